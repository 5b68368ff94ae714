"""Small CSI predictors, with language models of random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from csi_paths import NARROW
from pydantic import TypeAdapter

from sclmkb.common.csi.sets import CsiShape
from sclmkb.common.models.csi.base import AnyPredictorSettings, FittedPredictor, PredictorSettings
from sclmkb.common.models.csi.zoo import build_predictor

SMALL: dict[str, dict[str, Any]] = {
    "gru": {"hidden": 24},
    "transformer": {"width": 16, "num_heads": 2, "num_encoder_layers": 1, "num_decoder_layers": 1},
    "llm4cp": {"num_layers": 2, "num_channels": 4, "num_blocks": 1},
    "csi_llm": {"num_layers": 2},
    "cdg": {
        "num_layers": 1, "num_prototypes": 12, "num_words": 50, "num_directions": 3, "width": 16, "num_heads": 2,
        "hidden": 24, "num_doppler_words": 21, "num_lags": 6,
    },
}  # fmt: skip


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a GPT-2 with random weights: 2 layers, 32 wide, 96 words, 32 positions."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=96, n_positions=32, n_embd=32, n_layer=2, n_head=2))
    folder = tmp_path_factory.mktemp("lm") / "tiny-gpt2"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def build(tiny_lm: Path, tiny_gpt2: Path) -> Callable[..., FittedPredictor]:
    """Return what builds a small predictor of a kind; its language model is GPT-2 or a LLaMA."""
    settings_type: TypeAdapter[PredictorSettings] = TypeAdapter(AnyPredictorSettings)

    def make(
        kind: str, shape: CsiShape = NARROW, *, lm: str = "gpt2", seed: int = 0, **options: Any
    ) -> FittedPredictor:
        folder = {"language_model": str({"llama": tiny_lm, "gpt2": tiny_gpt2}[lm])}
        needed = folder if kind in ("llm4cp", "csi_llm", "cdg") else {}
        settings = settings_type.validate_python({"kind": kind, **SMALL.get(kind, {}), **needed, **options})
        return build_predictor(settings, shape, seed)

    return make
