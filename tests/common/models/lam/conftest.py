from pathlib import Path

import pytest
from encoder_decoders import write_encoder_decoder


@pytest.fixture(scope="session", params=["t5", "flan", "bart"])
def encoder_decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small encoder-decoder model with random weights: 2 + 2 layers, 32 wide."""
    return write_encoder_decoder(tmp_path_factory.mktemp("lam") / request.param, request.param)
