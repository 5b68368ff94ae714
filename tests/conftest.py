"""Shared by all tests: shapes are checked, nothing is fetched from a hub, tiny artifacts with random content."""

import io
import json
import os
import signal
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from jaxtyping import install_import_hook
from PIL import Image

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
        "sclmkb.train.semantic.losses",
    ],
    "beartype.beartype",
)

from sclmkb.common.artifacts import schemas  # noqa: E402 (after the hook)
from sclmkb.common.artifacts.plan import Plan, Shard, make_row_id, make_shards  # noqa: E402
from sclmkb.common.artifacts.run_folder import Run  # noqa: E402

SPLITS = ("train", "val", "test")
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


@dataclass(frozen=True)
class TinyArtifacts:
    """Folders of artifacts with random content: 16×16 antennas, 4 history and 2 future samples."""

    root: Path

    @property
    def corpus(self) -> Path:
        return self.root / "corpus"

    @property
    def sdg(self) -> Path:
        return self.root / "sdg"

    @property
    def csi(self) -> Path:
        return self.root / "csi"

    @property
    def predicted(self) -> Path:
        return self.root / "predicted"

    def write_corpus(self, identities: int = 10, pictures: int = 3) -> None:
        items, captions = [], []
        draw = np.random.default_rng(0)
        for split in SPLITS:
            for i in range(identities):
                identity = f"{split}-{i}"
                color = draw.integers(0, 256, 3)
                common = {"identity": identity, "group": identity, "split": split}
                for p in range(pictures):
                    pixels = np.clip(draw.integers(-40, 40, (16, 16, 3)) + color, 0, 255).astype(np.uint8)
                    file = io.BytesIO()
                    Image.fromarray(pixels).save(file, "PNG")
                    items.append(
                        {
                            **common,
                            "item_id": f"{identity}-{p}",
                            "source": f"artist {p}",
                            "modality": "pictures",
                            "media": {"bytes": file.getvalue(), "path": f"{identity}-{p}.png"},
                        }
                    )
                wordings = ("label",) if split == "train" else ("label", "sentence")
                for index, wording in enumerate(wordings):
                    captions.append(
                        {
                            **common,
                            "row_id": make_row_id("tiny", split, identity, index),
                            "caption_index": index,
                            "wording": wording,
                            "role": "caption",
                            "text": f"{wording} of color {color[0]} {color[1]} {color[2]}",
                        }
                    )
        self._write("corpus", {"items": (schemas.ITEMS, items), "captions": (schemas.CAPTIONS, captions)})

    def write_sdg(self, identities: int = 10) -> None:
        rows, attempts = [], []
        for i in range(identities):
            row_id = make_row_id("tiny", "train", f"train-{i}", 0)
            kept = [f"caption {k} of {i}" for k in range(i % 3)]
            rows.append(
                {
                    "row_id": row_id,
                    "identity": f"train-{i}",
                    "split": "train",
                    "source_text": f"label {i}",
                    "state": "ok" if kept else "rejected",
                    "num_attempts": 1,
                    "num_samples": 2,
                    "captions": kept,
                    "similarities": [0.9] * len(kept),
                    "error": "",
                }
            )
            attempts.append(
                {
                    "row_id": row_id, "split": "train", "attempt": 0, "sample": 0, "retry": 0,
                    "text": f"caption of {i}", "similarity": 0.9, "margin": 0.1, "accepted": bool(kept),
                    "reason": "" if kept else "similarity",
                    "finish_reason": "stop", "num_tokens": 5, "seed": i,
                }
            )  # fmt: skip
        self._write("sdg", {"rows": (schemas.SDG_ROWS, rows), "attempts": (schemas.SDG_ATTEMPTS, attempts)})

    def write_csi(self, drops: int = 12, antennas: int = 16, nan_in: str | None = None) -> None:
        """Write a channel that turns by a constant phase from sample to sample; ``nan_in`` spoils one column."""
        tables = {}
        for split in SPLITS:
            clean = self._channels(split, drops, antennas)
            noise = torch.randn(clean[:, :4].shape, dtype=torch.complex64, generator=_generator(1))
            columns = {"history": clean[:, :4] + 0.1 * noise, "clean_history": clean[:, :4], "future": clean[:, 4:]}
            if nan_in:
                columns[nan_in] = columns[nan_in].clone()
                columns[nan_in][0, 0, 0, 0] = torch.nan
            scalars = {
                "drop_id": self._drops(split, drops),
                "split": [split] * drops,
                "scenario": ["tiny"] * drops,
                "speed_kmh": [30.0] * drops,
                "pilot_snr_db": [20.0] * drops,
                "carrier_hz": [3.5e9] * drops,
                "sample_period_s": [5e-4] * drops,
                "num_subcarriers": [1] * drops,
                "user": [""] * drops,
                "x_m": [float("nan")] * drops,
                "y_m": [float("nan")] * drops,
            }
            packed = [schemas.pack_complex(name, values) for name, values in columns.items()]
            tables[split] = _table(schemas.csi_schema(4, 2, antennas, antennas), scalars, packed)
        self._commit("csi", {"csi": tables})

    def write_predicted(self, drops: int = 12, antennas: int = 16, only: int | None = None) -> None:
        """Write the true future with a little noise, in another order; ``only`` so many drops."""
        tables = {}
        for split in SPLITS:
            keep = list(reversed(range(drops)))[:only]
            future = self._channels(split, drops, antennas)[keep, 4:]
            noise = torch.randn(future.shape, dtype=torch.complex64, generator=_generator(2))
            scalars: dict[str, list[Any]] = {
                "drop_id": [self._drops(split, drops)[i] for i in keep],
                "split": [split] * len(keep),
                "predictor": ["tiny"] * len(keep),
            }
            for name in ("speed_kmh", "pilot_snr_db", "nmse", "nmse_persistence", "nmse_ar"):
                scalars[name] = [0.5] * len(keep)
            packed = [schemas.pack_complex("predicted", future + 0.05 * noise)]
            tables[split] = _table(schemas.predicted_schema(2, antennas, antennas), scalars, packed)
        self._commit("predicted", {"predicted": tables})

    def write_all(self) -> None:
        self.write_corpus()
        self.write_sdg()
        self.write_csi()
        self.write_predicted()

    def _channels(self, split: str, drops: int, antennas: int) -> torch.Tensor:
        h = torch.randn(drops, 1, antennas, antennas, dtype=torch.complex64, generator=_generator(SPLITS.index(split)))
        turn = torch.polar(torch.ones(6), 0.5 * torch.arange(6))
        return h * turn[:, None, None]

    def _drops(self, split: str, drops: int) -> list[str]:
        return [f"{split}-drop-{i}" for i in range(drops)]

    def _write(self, kind: str, tables: dict[str, tuple[pa.Schema, list[dict[str, Any]]]]) -> None:
        splits = [s for s in SPLITS if any(row["split"] == s for _, rows in tables.values() for row in rows)]
        self._commit(
            kind,
            {
                name: {
                    split: pa.Table.from_pylist([row for row in rows if row["split"] == split], schema=schema)
                    for split in splits or ["train"]
                }
                for name, (schema, rows) in tables.items()
            },
        )

    def _commit(self, kind: str, tables: dict[str, dict[str, pa.Table]]) -> None:
        first = next(iter(tables.values()))
        shards = [
            Shard(name=f"{split}-00000-of-00001", split=split, row_ids=tuple(str(i) for i in range(len(table))))
            for split, table in first.items()
        ]
        schema_of = {name: next(iter(parts.values())).schema for name, parts in tables.items()}
        run = Run.open(
            self.root / kind, Plan(kind=kind, tables=schema_of, settings={"tiny": True}, shards=shards, inputs={})
        )
        for shard in run.pending():
            run.commit_shard(
                shard,
                {name: parts[shard.split] for name, parts in tables.items()},
                counts={"ok": len(shard.row_ids)},
            )
        run.finish("tiny", "Random content for tests.")


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _table(schema: pa.Schema, scalars: dict[str, list[Any]], packed: list[dict[str, pa.Array]]) -> pa.Table:
    columns: dict[str, Any] = dict(scalars)
    for part in packed:
        columns |= part
    arrays = [
        columns[f.name] if isinstance(columns[f.name], pa.Array) else pa.array(columns[f.name], f.type) for f in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


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
def make_tiny(tmp_path: Path) -> Callable[[str], TinyArtifacts]:
    """Return what makes a folder for tiny artifacts, by name; nothing is written until its methods are called."""
    return lambda name: TinyArtifacts(tmp_path / name)


@pytest.fixture
def tiny_artifacts(make_tiny: Callable[[str], TinyArtifacts]) -> TinyArtifacts:
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


def path_channels(drops: int, samples: int, antennas: int, seed: int, num_paths: int = 5) -> torch.Tensor:
    """Return channels of unit power that are sums of a few paths, each with its own Doppler frequency."""
    generator = _generator(seed)
    receive, transmit = (
        torch.randn(drops, num_paths, antennas, dtype=torch.complex64, generator=generator) for _ in range(2)
    )
    gains = torch.tensor([1.0, 0.5, 0.3, 0.2, 0.1])[:num_paths]
    doppler = 0.3 * torch.cos(2 * torch.pi * torch.rand(drops, num_paths, generator=generator))
    turn = torch.polar(gains.expand(drops, samples, -1).contiguous(), doppler[:, None] * torch.arange(samples)[:, None])
    h = torch.einsum("btl,bli,blj->btij", turn, receive, transmit)
    return h / h.abs().square().mean((1, 2, 3), keepdim=True).sqrt()


@pytest.fixture(scope="session")
def write_path_csi() -> Callable[..., Path]:
    """Return a writer of CSI artifacts of :func:`path_channels`: 4×4 antennas, 16 history and 4 future samples."""

    def write(root: Path, *, sizes: tuple[int, int, int] = (48, 12, 12), antennas: int = 4, num_history: int = 16,
              num_future: int = 4, shard_size: int = 25, nan_in: str | None = None, zero_in: str | None = None,
              num_subcarriers: int = 1,
              future_scale: float = 1.0, prefixes: dict[str, str] | None = None) -> Path:  # fmt: skip
        """Write the artifact; ``nan_in`` and ``zero_in`` spoil the last drop, ``prefixes`` name a split's drops."""
        schema = schemas.csi_schema(num_history, num_future, antennas, antennas)
        shards, tables = [], {}
        for seed, (split, size) in enumerate(zip(SPLITS, sizes, strict=True)):
            h = path_channels(size, num_history + num_future, antennas, seed)
            snr_db = torch.tensor([10.0, 20.0]).repeat(size)[:size]
            clean, sigma = h[:, :num_history], torch.pow(10, -snr_db / 20)
            noise = torch.randn(clean.shape, dtype=torch.complex64, generator=_generator(100 + seed))
            columns = {
                "history": clean + sigma[:, None, None, None] * noise,
                "clean_history": clean,
                "future": future_scale * h[:, num_history:],
            }
            if nan_in:
                columns[nan_in][size - 1, 0, 0, 0] = torch.nan
            if zero_in:
                columns[zero_in][size - 1] = 0
            ids = [f"{(prefixes or {}).get(split, split)}-{i}" for i in range(size)]
            for shard in make_shards(split, ids, shard_size):
                rows = [int(name.rpartition("-")[2]) for name in shard.row_ids]
                scalars = {
                    "drop_id": list(shard.row_ids),
                    "split": [split] * len(rows),
                    "scenario": ["paths"] * len(rows),
                    "speed_kmh": [30.0] * len(rows),
                    "pilot_snr_db": snr_db[rows].tolist(),
                    "carrier_hz": [3.5e9] * len(rows),
                    "sample_period_s": [5e-4] * len(rows),
                    "num_subcarriers": [num_subcarriers] * len(rows),
                    "user": [""] * len(rows),
                    "x_m": [float("nan")] * len(rows),
                    "y_m": [float("nan")] * len(rows),
                }
                packed = [schemas.pack_complex(name, values[rows]) for name, values in columns.items()]
                shards.append(shard)
                tables[shard.name] = _table(schema, scalars, packed)
        run = Run.open(
            root, Plan(kind="csi", tables={"csi": schema}, settings={"antennas": antennas}, shards=shards, inputs={})
        )
        for shard in run.pending():
            run.commit_shard(shard, {"csi": tables[shard.name]}, counts={"ok": len(shard.row_ids)})
        run.finish("paths", "Sums of paths for tests.")
        return root

    return write


@pytest.fixture(scope="session")
def fakes() -> ModuleType:
    """Return the stand-ins of ``tests/support/sdg_fakes.py``."""
    import sdg_fakes

    return sdg_fakes


class FakeSlurm:
    """Programs on the path that keep what they are given, and print what a test puts into ``queue``."""

    def __init__(self, root: Path) -> None:
        self.root, self.programs = root, root / "bin"
        self.programs.mkdir(parents=True)
        (root / "queue").touch()
        self.write(
            "sbatch",
            'n=$(($(ls "$D" | grep -c "\\.script$") + 101)); cat > "$D/$n.script"; echo "$@" > "$D/$n.options"'
            '; env > "$D/$n.env"; echo "$n;cluster"',
        )
        self.write("squeue", 'echo "$@" > "$D/asked"; cat "$D/queue"')
        self.write("scontrol", 'echo "$@" >> "$D/scontrol"')
        self.write("srun", 'while [[ "$1" == --* ]]; do shift; done; exec "$@"')

    def write(self, name: str, text: str) -> None:
        """Make a program; ``$D`` is the folder of all that is kept."""
        path = self.programs / name
        path.write_text(f"#!/bin/bash\nD={self.root}\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)

    def submitted(self) -> dict[str, tuple[str, str]]:
        """Return script and options of every job, by number."""
        return {
            path.stem: (path.read_text(), path.with_suffix(".options").read_text().strip())
            for path in sorted(self.root.glob("*.script"))
        }


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

    folders = [str(Path(__file__).parent / name) for name in ("common/executors", "integration")]
    own = {"PYTHONPATH": ":".join([*folders, os.environ.get("PYTHONPATH", "")]), "RAY_ADDRESS": ""}
    with real_ray.cluster({**os.environ, **own, "OMP_NUM_THREADS": "1"}) as found:
        yield found
        processes = [p for node in found.nodes for p in real_ray.family(node.pid)]
    assert not real_ray.living(processes)
