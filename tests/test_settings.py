"""Every setting is described where it is declared, and docs/settings.md is made from these descriptions."""

import importlib.util
from pathlib import Path

_SCRIPT = Path(__file__).parents[1] / "docs" / "settings_tables.py"
_SPEC = importlib.util.spec_from_file_location("settings_tables", _SCRIPT)
assert _SPEC is not None
assert _SPEC.loader is not None
tables = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tables)


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
