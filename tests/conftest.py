"""Shared by all tests: shapes are checked, nothing is fetched from a hub, tiny artifacts with random content."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import install_import_hook

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # `make test` has a worker for each core
os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # threads that wait leave their core to the other worker

# Every public tensor function of these modules is checked against its annotated shapes while the tests run.
install_import_hook(
    [
        "sclmkb.common.csi",
        "sclmkb.common.link",
        "sclmkb.common.models",
        "sclmkb.common.metrics",
        "sclmkb.common.tasks",
        "sclmkb.evaluate.separate",
        "sclmkb.generate.engines.transformers",
        "sclmkb.train.semantic.fusion",
    ],
    "beartype.beartype",
)

import tiny  # noqa: E402 (after the hook)
from fake_slurm import FakeSlurm  # noqa: E402

CLUSTERS = ("executors/test_contract", "real_ray", "real_slurm", "test_cluster")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if any(item.iter_markers("slow")) or any(item.iter_markers("long"))}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a worker whole files, and one worker all files that start a cluster."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "cluster" if any(word in file for word in CLUSTERS) else file

    config.option.loadscopereorder = False
    return ByFile(config, log)


@pytest.fixture
def deliver_signals() -> Iterator[None]:
    """Handle SIGTERM and SIGUSR1 as the commands do."""
    from sclmkb.common import console

    before = {signum: signal.signal(signum, console._terminate) for signum in console.TERMINATING}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture(autouse=True)
def _fixed_torch_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_tiny(tmp_path: Path) -> Callable[[str], tiny.TinyArtifacts]:
    """Return what makes a folder for tiny artifacts, by name; nothing is written until its methods are called."""
    return lambda name: tiny.TinyArtifacts(tmp_path / name)


@pytest.fixture
def tiny_artifacts(make_tiny: Callable[[str], tiny.TinyArtifacts]) -> tiny.TinyArtifacts:
    """Return corpus, generated captions, CSI and predicted CSI with random content."""
    artifacts = make_tiny("tiny")
    artifacts.write_all()
    return artifacts


@pytest.fixture(scope="session")
def embedding_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for text embeddings that the tests of a session share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a LLaMA-architecture language model with random weights: 2 layers, 64 wide, 96 words."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=96,
        max_position_embeddings=64,
    )
    folder = tmp_path_factory.mktemp("lm") / "tiny-llama"
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _letters() -> list[str]:
    return [chr(c) for c in range(ord("a"), ord("z") + 1)]


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as that of bert-base-uncased, with random weights: 3 layers, 32 wide, letters as word pieces."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bert") / "tiny-bert"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_letters(), *(f"##{c}" for c in _letters())]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=40).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=40, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as that of openai/clip-vit-base-patch32, with random weights: 3 layers, 32 wide, 16 pixels."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizerFast

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    folder.mkdir()
    words = [*_letters(), *(f"{c}</w>" for c in _letters()), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizerFast(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=20
    ).save_pretrained(folder)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    config = CLIPConfig(
        text_config={**shape, **ends, "vocab_size": len(words), "max_position_embeddings": 20},
        vision_config={**shape, "image_size": 16, "patch_size": 8},
        projection_dim=24,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_ast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as that of MIT/ast-finetuned-audioset, with random weights: 3 layers, 32 wide, 64×16 values."""
    from transformers import ASTConfig, ASTForAudioClassification

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("ast") / "tiny-ast"
    config = ASTConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, patch_size=8,
        frequency_stride=8, time_stride=8, max_length=64, num_mel_bins=16,
    )  # fmt: skip
    ASTForAudioClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def write_path_csi() -> Callable[..., Path]:
    """Return a writer of CSI artifacts that are sums of paths: 4×4 antennas, 16 history and 4 future samples."""
    return tiny.write_path_csi


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "fake-slurm")
    monkeypatch.setenv("PATH", f"{fake.programs}:{os.environ['PATH']}")
    return fake


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start a real Slurm of one node for all tests of this process; return the environment that its programs need."""
    import real_slurm

    if reason := real_slurm.why_not():
        pytest.skip(reason)
    with real_slurm.slurm(tmp_path_factory.mktemp("slurm")) as found:
        yield {**found, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """Start a real Ray of one node for all tests of this process, and see that nothing is left of it."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'sclmkb[ray]'")
    import real_ray

    paths = [str(Path(__file__).parent / "support"), os.environ.get("PYTHONPATH", "")]
    own = {"PYTHONPATH": ":".join(paths), "RAY_ADDRESS": ""}
    with real_ray.cluster({**os.environ, **own, "OMP_NUM_THREADS": "1"}) as found:
        yield found
        processes = [p for node in found.nodes for p in real_ray.family(node.pid)]
    assert not real_ray.living(processes)
