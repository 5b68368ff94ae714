import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def fakes() -> ModuleType:
    """The stand-ins of ``sdg_fakes.py``."""
    path = Path(__file__).with_name("sdg_fakes.py")
    spec = importlib.util.spec_from_file_location("sdg_fakes", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sdg_fakes"] = module
    spec.loader.exec_module(module)
    return module
