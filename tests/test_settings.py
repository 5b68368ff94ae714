"""Every setting is described where it is declared; docs/settings.md is made from these descriptions."""

import importlib
import pkgutil
from collections.abc import Iterator

import sclmkb.common
import sclmkb.evaluate
import sclmkb.generate
import sclmkb.train
from sclmkb.common.config import Settings

PACKAGES = (sclmkb.common, sclmkb.generate, sclmkb.train, sclmkb.evaluate)


def all_settings(base: type[Settings] = Settings) -> Iterator[type[Settings]]:
    for settings in base.__subclasses__():
        if settings.__module__.startswith("sclmkb."):
            yield settings
        yield from all_settings(settings)


def test_every_setting_has_a_description() -> None:
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
    bare = {
        f"{settings.__name__}.{name}"
        for settings in all_settings()
        for name, field in settings.model_fields.items()
        if not field.description
    }
    assert bare == set(), "declare it as Field(..., description='...') or speed_only(..., description='...')"
