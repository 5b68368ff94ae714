import pytest

from sclmkb.common.errors import UserError
from sclmkb.generate.filter.encoder import TextEncoder, load_text_encoder


@pytest.fixture(scope="session")
def minilm() -> TextEncoder:
    """Return the embedded sentence encoder."""
    try:
        return load_text_encoder("minilm")
    except UserError:
        pytest.skip("the embedded sentence encoder is not installed")
