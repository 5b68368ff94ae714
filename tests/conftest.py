"""Shared by all tests: shapes are checked, and nothing is fetched from a hub."""

import os

import pytest
import torch
from jaxtyping import install_import_hook

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Every public tensor function of these modules is checked against its annotated shapes while the tests run.
install_import_hook(
    ["sclmkb.common.channel", "sclmkb.common.models", "sclmkb.common.metrics", "sclmkb.train.losses"],
    "beartype.beartype",
)


@pytest.fixture(autouse=True)
def _fixed_torch_seed() -> None:
    torch.manual_seed(0)
