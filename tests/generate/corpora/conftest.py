from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test decode items and fetch packages for itself."""
    monkeypatch.setenv("SCLMKB_CACHE", str(tmp_path / "cache"))
