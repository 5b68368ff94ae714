"""Every setting is described where it is declared, and docs/settings.md is made from these descriptions."""

import runpy
from pathlib import Path
from types import SimpleNamespace

tables = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "docs" / "settings_tables.py")))


def test_every_setting_has_a_description() -> None:
    tables.import_everything()
    bare = {
        f"{settings.__name__}.{name}"
        for settings in tables.settings_classes()
        for name, field in settings.model_fields.items()
        if not field.description
    }
    assert bare == set(), "declare it as Field(..., description='...') or speed_only(..., description='...')"


def test_the_tables_of_settings_are_those_of_the_code() -> None:
    assert tables.PAGE.read_text("utf-8") == tables.page(), "run python docs/settings_tables.py"
