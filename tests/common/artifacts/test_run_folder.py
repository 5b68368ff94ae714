"""The one answer to "is this run mine?", whatever the folder holds."""

from pathlib import Path
from typing import Any

import pytest

from sclmkb.common.artifacts.files import write_json
from sclmkb.common.artifacts.run_folder import holds_run
from sclmkb.common.errors import UserError

WANTED = {"kind": "eval", "settings": {"snrs": (0.0, 5.0), "seed": 0}, "inputs": {"csi": "a"}}


def test_a_folder_is_free_or_holds_the_run(tmp_path: Path) -> None:
    root = tmp_path / "run"
    assert not holds_run(root, "config.json", WANTED)
    write_json(root / "config.json", {**WANTED, "notes": "count for nothing"})
    assert holds_run(root, "config.json", WANTED)
    assert holds_run(root, "config.json", WANTED, new_run=True, processes=2), "the same run is gone on with"
    assert holds_run(root, "config.json", WANTED, join=True)
    assert not list(tmp_path.glob("*.old-*"))


@pytest.mark.parametrize(
    ("there", "asked", "message"),
    [
        (None, {"join": True}, "holds no run to join"),
        (WANTED, {"join": True, "new_run": True}, "holds no run to join"),
        ({**WANTED, "kind": "sscc"}, {}, r"other settings \(kind: 'sscc' there, 'eval' now\): .*--new-run"),
        ({**WANTED, "settings": {"snrs": [0.0, 5.0]}}, {}, r"\(seed: 'absent' there, 0 now\)"),
        ({**WANTED, "inputs": {"csi": "b"}}, {}, r"\(csi: 'b' there, 'a' now\)"),
        ({**WANTED, "inputs": {}}, {"new_run": True, "processes": 3}, "3 processes cannot set .* aside together"),
    ],
)
def test_another_run_is_refused_in_one_line(
    tmp_path: Path, there: dict[str, Any] | None, asked: dict[str, Any], message: str
) -> None:
    if there is not None:
        write_json(tmp_path / "run" / "config.json", there)
    with pytest.raises(UserError, match=message) as error:
        holds_run(tmp_path / "run", "config.json", WANTED, **asked)
    assert "\n" not in str(error.value)


def test_another_run_is_set_aside_and_what_is_no_run_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "run" / "config.json", {**WANTED, "inputs": {}})
    assert not holds_run(tmp_path / "run", "config.json", WANTED, new_run=True)
    assert (tmp_path / "run.old-1" / "config.json").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"not empty and holds no config\.json"):
        holds_run(tmp_path / "other", "config.json", WANTED, new_run=True)
