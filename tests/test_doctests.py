"""Every example in a docstring runs."""

import doctest
import importlib
import pkgutil

import pytest

import sclmkb.common
import sclmkb.evaluate
import sclmkb.generate
import sclmkb.train

# Packages that only some machines have are imported by these when they are used, never before.
PACKAGES = (sclmkb.common, sclmkb.generate, sclmkb.train, sclmkb.evaluate)
MODULES = sorted(m.name for p in PACKAGES for m in pkgutil.walk_packages(p.__path__, p.__name__ + "."))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    found = [t for name in MODULES for t in finder.find(importlib.import_module(name)) if t.examples]
    assert len(found) >= 3
