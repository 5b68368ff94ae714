"""A run of SDG as a batch job: shared out, stopped, retried, watched, verified, merged."""

import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.console import Terminated
from sclmkb.common.errors import UserError
from sclmkb.common.executors.local import Local
from sclmkb.generate import cli
from sclmkb.generate.captions import judging, sdg
from sclmkb.generate.captions.sdg import plan_captions
from sclmkb.generate.engines.base import Completion, Hear, Request, unheard
from sclmkb.generate.filter.filter import Candidate, HallucinationFilter, Verdict
from sclmkb.generate.runs.merge import merge
from sclmkb.generate.runs.status import read_status, status_lines
from sclmkb.generate.runs.verify import find_problems


@pytest.fixture
def corpus(fakes: ModuleType, tmp_path: Path) -> Path:
    return fakes.write_corpus(tmp_path / "corpus", 100)


class Job:
    """A run over the corpus with an engine of one's own."""

    def __init__(self, fakes: ModuleType, corpus: Path, out: Path) -> None:
        self.fakes, self.corpus, self.out = fakes, corpus, out

    def __call__(
        self,
        engine: Any = None,
        *,
        values: dict[str, Any] | None = None,
        only_shards: str | None = None,
        retry: Path | None = None,
    ) -> Artifact | None:
        settings = self.fakes.fake_settings(**(values or {}))
        backend = self.fakes.make_backend(settings, engine or self.fakes.FakeEngine())
        return Local(only_shards).execute(plan_captions(settings, self.corpus, self.out, backend, retry=retry))

    def to(self, out: Path) -> "Job":
        return Job(self.fakes, self.corpus, out)


@pytest.fixture
def job(fakes: ModuleType, corpus: Path, tmp_path: Path) -> Job:
    return Job(fakes, corpus, tmp_path / "sdg")


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.parquet"))}


def rows(artifact: Artifact | None) -> list[dict[str, Any]]:
    assert artifact is not None
    return artifact.table("rows").to_pylist()


def call(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["sclmkb-gen", *(str(a) for a in arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


# Shared out


def test_shards_done_apart_are_the_run_done_at_once(job: Job, tmp_path: Path) -> None:
    whole = job.to(tmp_path / "whole")()
    assert whole is not None
    assert job(only_shards="1") is None
    assert not (job.out / "README.md").exists()
    assert [s.name for s in Run.look(job.out, "sdg").pending()] == ["train-00000-of-00003", "train-00002-of-00003"]
    last = job(only_shards="0,2")  # the last one closes the run
    assert last is not None
    assert files(last.root) == files(whole.root)
    assert last.fingerprint == whole.fingerprint


@pytest.mark.parametrize(
    ("text", "message"), [("3", "there is no shard 3"), ("x", "names no shards"), ("2-1", "0-3,7")]
)
def test_shards_that_are_none(job: Job, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        job(only_shards=text)


def test_merged_folders_are_the_run_done_at_once(job: Job, tmp_path: Path) -> None:
    whole = job.to(tmp_path / "whole")()
    assert whole is not None
    job.to(tmp_path / "a")(only_shards="0-1")
    job.to(tmp_path / "b")(only_shards="1-2")
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert merged.fingerprint == whole.fingerprint
    assert files(merged.root) == files(whole.root)
    assert (merged.root / "README.md").read_bytes() == (whole.root / "README.md").read_bytes()
    assert list(find_problems(merged.root)) == []
    assert merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged").fingerprint == whole.fingerprint


def test_the_options_reach_the_run(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, dict[str, Any]]] = []
    asked: list[str | None] = []
    monkeypatch.setattr("sclmkb.generate.captions.backend.make_backend", lambda _: None)
    monkeypatch.setattr(
        "sclmkb.generate.captions.sdg.plan_captions", lambda settings, *_, **options: made.append((settings, options))
    )
    monkeypatch.setattr("sclmkb.common.executors.local.Local.execute", lambda self, _: asked.append(self.shards))
    options = ["--shards", "0,2", "--max-error-rate", "0.5"]
    assert call("sdg", "--corpus", job.corpus, "--out", job.out, *options, monkeypatch=monkeypatch) == 0
    assert made[0][0].max_error_rate == 0.5
    assert made[0][1] == {"new_run": False, "join": False, "retry": None}
    assert asked == ["0,2"]
    assert made[0][0].fingerprint() == sdg.SdgSettings().fingerprint(), "a run may go on with another limit"


def test_the_last_step_alone(job: Job) -> None:
    with pytest.raises(UserError, match="has no manifest"):
        job(only_shards="none")
    assert job(only_shards="0-1") is None
    with pytest.raises(UserError, match="train-00002-of-00003"):
        job(only_shards="none")
    whole = job()
    again = job(only_shards="none")
    assert whole is not None
    assert again is not None
    assert again.fingerprint == whole.fingerprint


def test_the_merge_command(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job.to(tmp_path / "a")(only_shards="0-1")
    job.to(tmp_path / "b")(only_shards="2")
    folders = [tmp_path / "a", tmp_path / "b", "--out", tmp_path / "merged"]
    assert call("merge", *folders, monkeypatch=monkeypatch) == 0
    assert call("verify", tmp_path / "merged", monkeypatch=monkeypatch) == 0
    assert call("merge", tmp_path / "a", "--out", tmp_path / "part", monkeypatch=monkeypatch) == 2


def test_merge_refuses_what_does_not_belong_together(job: Job, tmp_path: Path) -> None:
    job.to(tmp_path / "a")(only_shards="0-1")
    job.to(tmp_path / "other")(only_shards="2", values={"seed": 5, "max_attempts": 2})
    with pytest.raises(UserError, match=r"max_attempts: 3 there, 2 now; seed: 0 there, 5 now"):
        merge([tmp_path / "a", tmp_path / "other"], tmp_path / "merged")
    with pytest.raises(UserError, match="no folder has the shards 2: make them with --shards"):
        merge([tmp_path / "a"], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


# Side by side


def test_the_filter_works_while_the_engine_writes(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "BLOCK", 8)
    judged = threading.Event()
    blocks: list[list[str]] = []
    judge = HallucinationFilter.judge

    def note(self: HallucinationFilter, candidates: list[Candidate]) -> list[Verdict]:
        blocks.append([c.text for c in candidates])
        judged.set()
        return judge(self, candidates)

    class OutOfOrder(job.fakes.FakeEngine):  # type: ignore[name-defined, misc]
        def generate(self, requests: list[Request], hear: Hear) -> list[Completion]:
            first = not self.calls
            written = super().generate(requests, unheard)
            for place in reversed(range(len(requests))):
                hear(place, written[place])
                if first and place == 8:
                    assert judged.wait(30), "the second block is judged before the first one is written"
            return written  # type: ignore[no-any-return]

    whole = job.to(job.out.with_name("whole"))()
    monkeypatch.setattr(HallucinationFilter, "judge", note)
    out_of_order = job(OutOfOrder())
    assert rows(out_of_order) == rows(whole), "whatever the order, each completion belongs to its row"
    assert [len(block) for block in blocks[:4]] == [8] * 4
    blocks.clear()
    job.to(job.out.with_name("in order"))()
    assert len(blocks) > 9


def test_what_is_judged_together_does_not_depend_on_the_order_of_writing() -> None:
    def judged(order: list[int]) -> dict[int, list[str]]:
        sent: dict[int, list[str]] = {}

        def judge(candidates: Sequence[Candidate]) -> list[Verdict]:
            sent[candidates[0].source] = [c.text for c in candidates]
            return [Verdict(similarity=c.source, margin=0, reason="") for c in candidates]

        with ThreadPoolExecutor(1) as beside:
            judged_beside = judging.Judging(judge, beside, range(300))
            for place in order:
                judged_beside.take(place, Completion(text=f"caption {place}", finish_reason="stop", num_tokens=2))
            assert [verdict.similarity for verdict in judged_beside.verdicts()] == list(range(300))
        return sent

    straight = judged(list(range(300)))
    assert {start: len(texts) for start, texts in straight.items()} == {0: 128, 128: 128, 256: 44}
    assert judged(random.Random(0).sample(range(300), 300)) == straight


def test_a_busy_thread_beside_holds_no_wave_up() -> None:
    released = threading.Event()

    def judge(candidates: Sequence[Candidate]) -> list[Verdict]:
        return [Verdict(similarity=c.source, margin=0, reason="") for c in candidates]

    with ThreadPoolExecutor(1) as beside:
        beside.submit(released.wait, 30)
        judged_beside = judging.Judging(judge, beside, range(200))
        for place in range(200):
            judged_beside.take(place, Completion(text="a boat", finish_reason="stop", num_tokens=2))
        assert [verdict.similarity for verdict in judged_beside.verdicts()] == list(range(200))
        assert not released.is_set()
        released.set()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root may hurry an idle thread")
def test_the_filter_stands_back_only_while_the_engine_writes(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    policies: list[tuple[int, int]] = []
    judge, begun = HallucinationFilter.judge, threading.Event()

    def note(self: HallucinationFilter, candidates: list[Candidate]) -> list[Verdict]:
        if threading.current_thread() is not threading.main_thread():
            at_first = os.sched_getscheduler(0)
            begun.set()
            end = time.monotonic() + 30
            while os.sched_getscheduler(0) == at_first and time.monotonic() < end:  # the engine is done soon
                time.sleep(0.01)
            policies.append((at_first, os.sched_getscheduler(0)))
        return judge(self, candidates)

    class Hearing(job.fakes.FakeEngine):  # type: ignore[name-defined, misc]
        def generate(self, requests: list[Request], hear: Hear) -> list[Completion]:
            begun.clear()
            written = super().generate(requests, hear)
            assert begun.wait(30)
            return written  # type: ignore[no-any-return]

    monkeypatch.setattr(HallucinationFilter, "judge", note)
    job(Hearing(), values={"engine": "transformers", "wave_size": 100, "max_attempts": 1})
    assert len(policies) > 1
    assert set(policies) == {(os.SCHED_IDLE, os.SCHED_OTHER)}


# Failures


def test_a_run_with_transient_failures_ends_with_the_rows_of_one_without(job: Job, tmp_path: Path) -> None:
    whole = job.to(tmp_path / "whole")()
    engine = job.fakes.FlakyEngine()
    first = job(engine)
    assert first is not None
    assert first.counts()["error"] > 3
    assert rows(first) != rows(whole)
    kept = files(job.out)
    again = first
    for number in range(8):  # the rounds that follow fail for the first time too
        made = job.to(tmp_path / f"again-{number}")(engine, retry=again.root)
        assert made is not None
        again = made
    assert rows(again) == rows(whole)
    assert files(job.out) == kept, "the older run stays as it was"
    attempts = again.table("attempts").to_pylist()
    assert {a["retry"] for a in attempts} == {0, 1}
    # The failed tries stay on record, the new ones have their seeds.
    keys = {(a["row_id"], a["attempt"], a["sample"], a["retry"]): a for a in attempts}
    assert len(keys) == len(attempts)
    for a in first.table("attempts").to_pylist():
        assert keys[a["row_id"], a["attempt"], a["sample"], 0]["finish_reason"] == a["finish_reason"]
    retried = [a for a in attempts if a["retry"] == 1]
    assert retried
    assert all(keys[a["row_id"], a["attempt"], a["sample"], 0]["seed"] == a["seed"] for a in retried)
    assert list(find_problems(again.root)) == []


def test_a_retry_that_was_cut_goes_on(job: Job, tmp_path: Path) -> None:
    class Cut(job.fakes.FakeEngine):  # type: ignore[name-defined, misc]
        def generate(self, requests: list[Request], hear: Hear) -> list[Completion]:
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().generate(requests, hear)  # type: ignore[no-any-return]

    whole = job.to(tmp_path / "whole")()
    job(job.fakes.FlakyEngine())
    again = job.to(tmp_path / "again")
    with pytest.raises(KeyboardInterrupt):
        again(Cut(), retry=job.out)
    with pytest.raises(UserError, match="unfinished"):
        Artifact.open(again.out, "sdg")
    engine = job.fakes.FakeEngine()
    assert rows(again(engine, retry=job.out)) == rows(whole)
    asked = [
        (a["row_id"], a["attempt"], a["sample"]) for a in Artifact.open(again.out, "sdg").table("attempts").to_pylist()
    ]
    assert max(Counter(asked).values()) == 2, "what was asked for again before the cut is not asked for a third time"
    assert list(find_problems(again.out)) == []


def test_nothing_to_retry_starts_no_engine_and_changes_nothing(job: Job, tmp_path: Path) -> None:
    job()
    engine = job.fakes.FakeEngine()
    again = job.to(tmp_path / "again")(engine, retry=job.out)
    assert engine.calls == []
    assert again is not None
    assert files(again.root) == files(job.out)
    assert again.plan.inputs["retry"] == Artifact.open(job.out, "sdg").fingerprint


def test_a_retry_with_other_settings_is_refused(job: Job, tmp_path: Path) -> None:
    job(job.fakes.FlakyEngine())
    again = job.to(tmp_path / "again")
    with pytest.raises(UserError, match=r"written with other settings \(seed: 0 there, 5 now\)"):
        again(values={"seed": 5}, retry=job.out)
    with pytest.raises(UserError, match="no sdg artifact"):
        again(retry=tmp_path / "absent")
    assert not again.out.exists()
    assert again(values={"max_error_rate": 0.5}, retry=job.out) is not None, "what changes no output may differ"


def test_the_retry_command_takes_the_settings_of_the_run(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = job.fakes
    job(fakes.FlakyEngine())
    backend = lambda settings: fakes.make_backend(settings, fakes.FakeEngine())  # noqa: E731
    monkeypatch.setattr("sclmkb.generate.captions.backend.make_backend", backend)
    out = tmp_path / "again"
    assert call("sdg", "--corpus", job.corpus, "--retry", job.out, "--out", out, monkeypatch=monkeypatch) == 0
    again = Artifact.open(out, "sdg")
    assert again.counts()["error"] == 0
    assert again.plan.settings == Artifact.open(job.out, "sdg").plan.settings
    changed = ["--set", "num_samples=1"]
    assert call("sdg", "--corpus", job.corpus, "--retry", job.out, *changed, monkeypatch=monkeypatch) == 2


def test_too_many_errors_stop_the_run_and_are_mended_by_a_retry(job: Job, tmp_path: Path) -> None:
    class Down(job.fakes.FakeEngine):  # type: ignore[name-defined, misc]
        def _write(self, request: Request) -> Completion:
            return Completion(text="", finish_reason="error", num_tokens=0, error="connection\nrefused")

    limit = {"max_error_rate": 0.25, "min_rows_for_error_rate": 16}
    engine = Down()
    with pytest.raises(UserError, match=r"16 of 16 rows failed.*connection refused.*--retry"):
        job(engine, values=limit)
    assert len(engine.calls) == 2, "it stops at the first wave after 16 rows"
    whole = job.to(tmp_path / "whole")()
    resumed = job(values=limit)
    assert resumed is not None
    assert resumed.counts()["error"] == 16
    assert rows(job.to(tmp_path / "again")(values=limit, retry=job.out)) == rows(whole)


def test_a_few_errors_do_not_stop_the_run(job: Job) -> None:
    assert job(job.fakes.FlakyEngine(), values={"max_error_rate": 0.6, "min_rows_for_error_rate": 8}) is not None


# Stopped


def test_a_stop_commits_the_chunk_and_loses_nothing(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_engine, rest = job.fakes.FakeEngine(), job.fakes.FakeEngine()
    whole = job.to(tmp_path / "whole")(whole_engine)
    assert whole is not None

    class Signalled(job.fakes.FakeEngine):  # type: ignore[name-defined, misc]
        def generate(self, requests: list[Request], hear: Hear) -> list[Completion]:
            if len(self.calls) == 3:
                os.kill(os.getpid(), signal.SIGUSR1)
            return super().generate(requests, hear)  # type: ignore[no-any-return]

    engine = Signalled()
    settings = job.fakes.fake_settings()
    monkeypatch.setattr(
        "sclmkb.generate.captions.backend.make_backend", lambda _: job.fakes.make_backend(settings, engine)
    )
    monkeypatch.setattr(sdg.SdgSettings, "resolve", lambda **_: settings)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers = [signal.getsignal(s) for s in numbers]
    try:
        code = call("sdg", "--corpus", job.corpus, "--out", job.out, monkeypatch=monkeypatch)
    finally:
        for signum, handler in zip(numbers, handlers, strict=True):
            signal.signal(signum, handler)
    assert code == 75
    assert len(engine.calls) == 4
    assert "Terminated" in next((job.out / "logs").glob("*.jsonl")).read_text().splitlines()[-1]
    resumed = job(rest)
    assert resumed is not None
    assert files(resumed.root) == files(whole.root)
    assert rest.calls == whole_engine.calls[4:], "the wave that was under way is not done again"


def test_every_start_has_a_log_of_its_own(job: Job) -> None:
    job(only_shards="0")
    first = {p: p.read_bytes() for p in (job.out / "logs").iterdir()}
    job()
    logs = sorted((job.out / "logs").iterdir())
    assert len(logs) == 2
    assert all(p.read_bytes() == data for p, data in first.items())
    for path in logs:
        events = [json.loads(line) for line in path.read_text().splitlines()]
        assert (events[0]["event"], events[-1]["event"], events[-1]["how"]) == ("start", "end", "done")
        assert sum(e["event"] == "chunk" for e in events) > 2


# Watched


def test_status_of_a_run_that_is_going_on(job: Job) -> None:
    seen = []

    class Watched(job.fakes.FakeEngine):  # type: ignore[name-defined, misc]
        def generate(self, requests: list[Request], hear: Hear) -> list[Completion]:
            if len(self.calls) in (0, 9):
                seen.append(read_status(job.out))
            return super().generate(requests, hear)  # type: ignore[no-any-return]

    engine = Watched()
    job(engine, only_shards="0-1")
    start, middle = seen
    assert (start.rows, start.samples, start.left_s) == (100, 0, None)
    assert (middle.samples, middle.shards, middle.resubmit) == (sum(len(call) for call in engine.calls[:9]), 3, "2")
    assert [(p.pid, p.shards) for p in middle.processes] == [(os.getpid(), "0-1")]
    assert 0 < sum(middle.states.values()) < 100
    assert middle.left_s is not None
    lines = "\n".join(status_lines(middle))
    assert f"process {os.getpid()}: shards 0-1" in lines
    assert "--shards 2" in lines


def test_status_adds_up_in_the_end(job: Job) -> None:
    job(job.fakes.FlakyEngine(), only_shards="0,2")
    status = read_status(job.out)
    assert (status.shards_done, status.shards, status.resubmit, status.has_card) == (2, 3, "1", False)
    artifact = job(job.fakes.FlakyEngine())
    assert artifact is not None
    status = read_status(job.out)
    assert status.states == artifact.counts()
    attempts = artifact.table("attempts").to_pylist()
    assert (status.samples, status.kept) == (len(attempts), sum(a["accepted"] for a in attempts))
    assert status.failed == sum(a["finish_reason"] == "error" for a in attempts)
    assert (status.processes, status.resubmit, status.has_card) == ([], "", True)
    assert f"--retry {job.out} --out NEW" in "\n".join(status_lines(status))


def test_status_counts_a_row_once_while_it_is_retried(job: Job, tmp_path: Path) -> None:
    seen = []
    again = job.to(tmp_path / "again")

    class Watched(job.fakes.FakeEngine):  # type: ignore[name-defined, misc]
        def generate(self, requests: list[Request], hear: Hear) -> list[Completion]:
            seen.append(read_status(again.out).states)
            return super().generate(requests, hear)  # type: ignore[no-any-return]

    job(job.fakes.FlakyEngine())
    again(Watched(), retry=job.out)
    assert all(0 <= count <= 100 for states in seen for count in states.values())
    finished = [sum(states.values()) for states in seen]
    assert finished == sorted(finished)
    assert finished[-1] <= 100
    states = read_status(again.out).states
    assert (states["error"], sum(states.values())) == (0, 100)


def test_the_status_command_prints_json(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job()
    assert call("status", job.out, "--json", monkeypatch=monkeypatch) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["rows"], printed["shards_done"], printed["resubmit"]) == (100, 3, "")
    assert call("status", job.out.parent / "nowhere", monkeypatch=monkeypatch) == 2


# Verified


def test_verify_finds_nothing_in_what_was_not_touched(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job(job.fakes.FlakyEngine())
    assert list(find_problems(job.out)) == []
    assert list(find_problems(job.corpus)) == []
    assert call("verify", job.out, monkeypatch=monkeypatch) == 0
    assert "is whole" in capsys.readouterr().err


def change_manifest(root: Path, change: Any) -> None:
    path = sorted((root / "manifests").glob("*.json"))[1]
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def rewrite(root: Path, table: str, change: Any) -> None:
    """Change rows of the second shard, and its manifest with them, as somebody might who means well."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sclmkb.common.artifacts.files import sha256_file

    path = sorted((root / table).glob("*.parquet"))[1]
    old = pq.read_table(path)
    changed = change(old.to_pylist())
    pq.write_table(pa.Table.from_pylist(changed, schema=old.schema), path)
    change_manifest(
        root,
        lambda m: m["files"].update({f"{table}/{path.name}": {"num_rows": len(changed), "sha256": sha256_file(path)}}),
    )


def flip(root: Path) -> None:
    path = sorted((root / "rows").glob("*.parquet"))[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def edit_plan(root: Path) -> None:
    path = root / "plan.json"
    path.write_text(path.read_text().replace('"max_attempts": 3', '"max_attempts": 4'))


DAMAGE = {
    "sha256": flip,
    "missing": lambda root: sorted((root / "attempts").glob("*.parquet"))[1].unlink(),
    "shards 1 have no manifest": lambda root: sorted((root / "manifests").glob("*.json"))[1].unlink(),
    "cannot be read as JSON": lambda root: sorted((root / "manifests").glob("*.json"))[1].write_text("{"),
    "fingerprint": edit_plan,
    "row ids of the plan are missing": lambda root: next(root.glob("plan-rows-*")).unlink(),
    "row ids of the plan are corrupt": lambda root: next(root.glob("plan-rows-*")).write_bytes(b"PAR1"),
    "does not add up": lambda root: change_manifest(root, lambda m: m["counts"].update(ok=0)),
    "belongs to no manifest": lambda root: (root / "rows" / "train-x.parquet").write_bytes(b""),
    "ids of table rows are not those of the plan": lambda root: rewrite(root, "rows", lambda r: r[:-1]),
    "more than once": lambda root: rewrite(root, "attempts", lambda a: [*a, a[-1]]),
    "belong to no row": lambda root: rewrite(root, "attempts", lambda a: [*a[:-1], {**a[-1], "row_id": "stranger"}]),
    "is not what its attempts say": lambda root: rewrite(root, "rows", lambda r: [{**r[0], "error": "x"}, *r[1:]]),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_verify_names_what_is_wrong(
    job: Job, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job()
    DAMAGE[message](job.out)
    assert call("verify", job.out, monkeypatch=monkeypatch) == 2
    assert message in capsys.readouterr().out


def test_verify_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no artifact"):
        list(find_problems(tmp_path))


# Passed on


def test_the_card_says_what_the_captions_are(job: Job) -> None:
    artifact = job()
    assert artifact is not None
    card = (job.out / "README.md").read_text()
    attempts = artifact.table("attempts").to_pylist()
    reasons = Counter(a["reason"] for a in attempts if not a["accepted"])
    for reason, count in reasons.items():
        assert f"| rejected: {reason} | {count} |" in card
    bars = [line.split() for line in card.splitlines() if " .. " in line]
    assert sum(int(bar[-1]) for bar in bars) == len(attempts)
    for text in ("rewrite-1", "licence", "## Limits", f"of {len(attempts)} samples were kept"):
        assert text in card


def test_both_tables_load_with_datasets(job: Job, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    artifact = job(job.fakes.FlakyEngine())
    assert artifact is not None
    again = job.to(tmp_path / "again")(retry=job.out)
    assert again is not None
    for table in ("rows", "attempts"):
        loaded = datasets.load_dataset(str(again.root), table, split="train", cache_dir=str(tmp_path / "cache"))
        assert loaded.num_rows == again.table(table).num_rows


def test_terminated_is_an_interruption() -> None:
    assert issubclass(Terminated, BaseException)
    assert not issubclass(Terminated, Exception), "nothing that mends errors may swallow it"
