from typing import Any

import pytest

from sclmkb.common.artifacts.artifact import UnfinishedError
from sclmkb.common.errors import UserError
from sclmkb.common.executors.local import Local


def test_all_shards_are_made_once(stage: Any) -> None:
    artifact = Local().execute(stage.work())
    assert artifact is not None
    assert artifact.table("rows")["row_id"].to_pylist() == [f"row-{i}" for i in range(10)]
    assert len(stage.made) == 5
    assert Local().execute(stage.work()) is not None
    assert len(stage.made) == 5


def test_shards_are_left_to_others(stage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert Local("1,3").execute(stage.work()) is None
    assert capsys.readouterr().err.endswith("toy: these shards are done, others are left: 0,2,4\n")
    assert stage.work().left() == [0, 2, 4]
    assert not (stage.out / "README.md").exists()
    assert Local("0-2,4").execute(stage.work()) is not None, "the last one does the last step"
    assert stage.work().left() == []


def test_the_last_step_alone_makes_nothing(stage: Any) -> None:
    with pytest.raises(UnfinishedError, match="5 shards"):
        Local("none").execute(stage.work())
    assert stage.made == []


def test_who_joins_starts_nothing(stage: Any) -> None:
    with pytest.raises(UserError, match=r"holds no run to join: start it first"):
        stage.work(join=True)
    assert not stage.out.exists()
    Local("0").execute(stage.work())
    assert stage.work(join=True).left() == [1, 2, 3, 4]
