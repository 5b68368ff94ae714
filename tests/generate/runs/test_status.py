"""Looking at runs: any kind, again and again, and as figures for a dashboard. How far sdg is: test_run.py."""

import json
import os
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from prometheus_client import parser

from sclmkb.common.artifacts.plan import Plan, Shard, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.console import Interrupted
from sclmkb.common.executors.runlog import RunLog
from sclmkb.generate import cli
from sclmkb.generate.runs.metrics_file import write_metrics
from sclmkb.generate.runs.status import Status, read_status, show, status_lines, watch

SCHEMA = pa.schema({"drop_id": pa.string()})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of three shards of four rows, nothing done, in a folder whose name needs escaping."""
    shards = make_shards("train", [f"drop-{i}" for i in range(12)], 4)
    plan = Plan(kind="csi", tables={"csi": SCHEMA}, settings={}, shards=shards, inputs={})
    return Run.open(tmp_path / 'a "run" \\ here', plan)


def commit(run: Run, shard: Shard, seconds: float = 3.0) -> None:
    table = pa.table({"drop_id": shard.row_ids}, schema=SCHEMA)
    run.commit_shard(shard, {"csi": table}, counts={"ok": len(shard.row_ids)}, seconds=seconds)


def finish(run: Run) -> None:
    for shard in run.pending():
        commit(run, shard)
    run.finish("Title", "Text.")


def test_a_run_of_csi(run: Run) -> None:
    before = time.time()
    with RunLog.open(run, run.plan.shards[:2]) as log:
        commit(run, run.plan.shards[0])
        log.write("shard", shard=run.plan.shards[0].name)
        status = read_status(run.root)
    assert (status.kind, status.rows, status.states["ok"], status.shards_done) == ("csi", 12, 4, 1)
    assert (status.seconds, status.left_s) == (3.0, 6.0)
    assert [(p.pid, p.shards) for p in status.processes] == [(os.getpid(), "0-1")]
    assert status.resubmit == "2"
    assert status.last_commit is not None
    assert before - 1 <= status.last_commit <= time.time()
    assert not any(line.startswith(("samples", "speed")) for line in status_lines(status))
    assert read_status(run.root).processes == [], "its log has ended"


def test_a_log_longer_than_what_is_read_of_it(run: Run) -> None:
    with RunLog.open(run, run.plan.shards) as log:
        for i in range(1000):
            tokens = 100 if i < 900 else 300
            log.write("chunk", shard="x", index=i, samples=2, tokens=tokens, seconds=2.0)
        (process,) = read_status(run.root).processes
    assert (process.tokens_per_s, process.samples_per_s) == (150.0, 1.0), "of the latest chunks alone"


def test_a_log_that_was_cut_off_is_of_somebody_dead(run: Run) -> None:
    (run.root / "logs").mkdir()
    (run.root / "logs" / "a.jsonl").write_text('{"time": 1.0, "event": "sta')
    (run.root / "logs" / "b.jsonl").write_text("")
    (run.root / "logs" / "c.jsonl").write_text('{"event": "start", "host": "elsewhere", "pid": 1, "shards": "0"}\n')
    os.utime(run.root / "logs" / "c.jsonl", (1.0, 1.0))
    assert read_status(run.root).processes == []


def test_watching_ends_with_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            finish(run)
        assert len(slept) < 3

    monkeypatch.setattr(time, "sleep", sleep)
    looks = list(watch(run.root, 60.0))
    assert [look.shards_done for look in looks] == [0, 0, 3]
    assert [look.is_done for look in looks] == [False, False, True]
    assert slept == [60.0, 60.0]


def test_a_run_without_its_card_is_not_done(run: Run) -> None:
    for shard in run.plan.shards:
        commit(run, shard)
    assert not read_status(run.root).is_done


def call(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["sclmkb-gen", *(str(a) for a in arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_command_watches_line_by_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(run, run.plan.shards[1])
    monkeypatch.setattr(time, "sleep", lambda _: finish(run))
    assert call("status", run.root, "--watch", "--json", "--metrics", monkeypatch=monkeypatch) == 0
    looks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [look["shards_done"] for look in looks] == [1, 3]
    assert "sclmkb_shards_done" in (run.root / "metrics.prom").read_text()


def test_ctrl_c_ends_the_watching_without_a_complaint(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(seconds: float) -> None:
        raise Interrupted

    monkeypatch.setattr(time, "sleep", interrupt)
    assert call("status", run.root, "--watch", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr()
    assert "0 of 3 done" in printed.out
    assert printed.err == ""


def test_a_terminal_has_the_latest_look_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")

    def looks() -> list[Status]:
        first = read_status(run.root)
        commit(run, run.plan.shards[0])
        return [first, read_status(run.root)]

    show(looks(), as_json=False, watching=True)
    out = capsys.readouterr().out
    assert "\x1b[" in out.partition("1 of 3 done")[0].rpartition("0 of 3 done")[2], "the first look is wiped out"


def test_metrics_are_what_prometheus_reads(run: Run) -> None:
    commit(run, run.plan.shards[0])
    path = write_metrics(read_status(run.root), run.root)
    families = {f.name: f for f in parser.text_string_to_metric_families(path.read_text())}
    values = {name: [s.value for s in family.samples] for name, family in families.items()}
    assert values["sclmkb_shards_planned"] == [3]
    assert values["sclmkb_shards_done"] == [1]
    assert values["sclmkb_work_seconds"] == [3.0]
    assert values["sclmkb_done"] == [0]
    rows = {s.labels["state"]: s.value for s in families["sclmkb_rows_finished"].samples}
    assert rows == {"ok": 4, "rejected": 0, "error": 0}
    (sample,) = families["sclmkb_rows_planned"].samples
    assert sample.labels == {"run": str(run.root), "kind": "csi"}
    assert abs(values["sclmkb_last_commit_timestamp_seconds"][0] - time.time()) < 60
    write_metrics(read_status(run.root), run.root)
    assert [p.name for p in run.root.iterdir() if "metrics" in p.name] == ["metrics.prom"]


def test_metrics_before_the_first_commit(run: Run) -> None:
    text = write_metrics(read_status(run.root), run.root).read_text()
    assert "sclmkb_shards_done" in text
    assert "last_commit" not in text
