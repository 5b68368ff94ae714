"""Looking at runs: any kind, again and again, and as figures for a dashboard."""

import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pytest
from commands import run_command
from prometheus_client import parser
from sdg_fakes import FakeEngine, FlakyEngine, Job

from sclmkb.common.artifacts.plan import Plan, Shard, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.console import Interrupted
from sclmkb.common.executors.runlog import RunLog
from sclmkb.generate.runs.metrics_file import write_metrics
from sclmkb.generate.runs.status import Status, read_status, show, status_lines

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


def test_sdg_that_is_going_on(job: Job) -> None:
    seen = []
    writer = FakeEngine(before=lambda number: number in (0, 9) and seen.append(read_status(job.home / "sdg")))
    job(writer=writer, shards="0-1")
    start, middle = seen
    assert (start.rows, start.samples, start.left_s) == (100, 0, None)
    assert (middle.samples, middle.shards, middle.resubmit) == (sum(len(call) for call in writer.calls[:9]), 3, "2")
    assert [(p.pid, p.shards) for p in middle.processes] == [(os.getpid(), "0-1")]
    assert 0 < sum(middle.states.values()) < 100
    assert middle.left_s is not None
    lines = "\n".join(status_lines(middle))
    assert f"process {os.getpid()}: shards 0-1" in lines
    assert "--shards 2" in lines


def test_sdg_adds_up_in_the_end(job: Job) -> None:
    job(writer=FlakyEngine(), shards="0,2")
    status = read_status(job.home / "sdg")
    assert (status.shards_done, status.shards, status.resubmit, status.has_card) == (2, 3, "1", False)
    artifact = job(writer=FlakyEngine())
    status, attempts = read_status(artifact.root), artifact.table("attempts").to_pylist()
    assert status.states == artifact.counts()
    assert (status.samples, status.kept) == (len(attempts), sum(a["accepted"] for a in attempts))
    assert status.failed == sum(a["finish_reason"] == "error" for a in attempts)
    assert (status.processes, status.resubmit, status.has_card) == ([], "", True)
    assert f"--retry {artifact.root} --out NEW" in "\n".join(status_lines(status))


def test_a_row_counts_once_while_it_is_retried(job: Job) -> None:
    seen = []
    job(writer=FlakyEngine())
    again = job("again", FakeEngine(before=lambda _: seen.append(read_status(job.home / "again").states)), retry="sdg")
    assert all(0 <= count <= 100 for states in seen for count in states.values())
    finished = [sum(states.values()) for states in seen]
    assert finished == sorted(finished)
    assert finished[-1] <= 100
    states = read_status(again.root).states
    assert (states["error"], sum(states.values())) == (0, 100)


def test_the_command_watches_line_by_line_until_the_run_is_done(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 1:
            for shard in run.plan.shards:
                commit(run, shard)  # without its card the run is not done
        else:
            finish(run)

    monkeypatch.setattr(time, "sleep", sleep)
    done = run_command(["sclmkb-gen", "status", run.root, "--watch", "--json", "--metrics", "--every", "60"])
    assert done.code == 0
    assert [json.loads(line)["shards_done"] for line in done.out.splitlines()] == [0, 3, 3]
    assert slept == [60.0, 60.0]
    assert "sclmkb_shards_done" in (run.root / "metrics.prom").read_text()
    assert run_command(["sclmkb-gen", "status", run.root / "nowhere"]).code == 2


def test_ctrl_c_ends_the_watching_without_a_complaint(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise Interrupted

    monkeypatch.setattr(time, "sleep", interrupt)
    done = run_command(["sclmkb-gen", "status", run.root, "--watch"])
    assert (done.code, done.err) == (0, "")
    assert "0 of 3 done" in done.out


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
    before = write_metrics(read_status(run.root), run.root).read_text()
    assert "sclmkb_shards_done" in before
    assert "last_commit" not in before
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
