"""The loop over shards: what is committed, logged, shown, and where it stops."""

import dataclasses
import json
import os
import signal
from collections.abc import Generator, Sequence
from typing import Any

import pytest

from sclmkb.common.artifacts.plan import Shard
from sclmkb.common.console import Terminated
from sclmkb.common.executors.stage import Made, Session


def events(stage: Any) -> list[list[dict[str, Any]]]:
    """Return the lines of each log of a run."""
    logs = sorted((stage.out / "logs").glob("*.jsonl"))
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in logs]


def test_every_shard_is_committed_logged_and_shown(stage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    work = stage.work()
    work.make(work.shards("1-2"))
    assert stage.made == ["train-00001-of-00005", "train-00002-of-00005"]
    assert work.left() == [0, 3, 4]
    (log,) = events(stage)
    assert [line["event"] for line in log] == ["start", "shard", "shard", "end"]
    assert (log[0]["shards"], log[1]["rows"], log[3]["how"]) == ("1-2", {"ok": 2}, "done")
    assert log[1]["seconds"] >= 0
    assert capsys.readouterr().err.splitlines() == ["toy: rows: 2/4", "toy: rows: 4/4"]
    assert work.run_here().counts() == {"ok": 10}
    assert "toy: rows: 10/10" in capsys.readouterr().err
    stage.work().run_here()
    assert (len(stage.made), len(events(stage))) == (5, 2), "nothing to make loads nothing and leaves no log"


@pytest.mark.usefixtures("deliver_signals")
def test_a_stop_waits_for_the_shard_under_way_and_closes_the_stage(stage: Any) -> None:
    work, closed = stage.work(), []

    def produce(pending: Sequence[Shard], session: Session) -> Generator[Made, None, None]:
        try:
            for made in work.produce(pending, session):
                if len(stage.made) == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield made
        finally:
            closed.append(len(stage.made))

    stopped = dataclasses.replace(work, produce=produce)
    with pytest.raises(Terminated):
        stopped.make(stopped.shards(None))
    assert (work.left(), closed) == ([2, 3, 4], [2])
    (log,) = events(stage)
    assert log[-1]["how"].startswith("Terminated")


def test_what_another_process_was_first_with_is_left(stage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    work, other = stage.work(), stage.work(join=True)

    def produce(pending: Sequence[Shard], session: Session) -> Generator[Made, None, None]:
        for number, made in enumerate(work.produce(pending, session)):
            if number == 1:
                other.make([made.shard])
            yield made

    dataclasses.replace(work, produce=produce).make(work.shards(None))
    log = max(events(stage), key=len)
    assert [line["event"] for line in log] == ["start", "shard", "left", "shard", "shard", "shard", "end"]
    assert "toy: rows: 4/10 done elsewhere" in capsys.readouterr().err
    assert work.finish().counts() == {"ok": 10}
