"""A run of SDG as a batch job: shared out, retried, stopped, passed on."""

import json
import os
import signal
from collections import Counter

import pytest
from commands import run_command
from sdg_fakes import FakeEngine, FlakyEngine, InterruptedEngine, Job, fake_settings, files, make_backend

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.errors import UserError
from sclmkb.generate.captions import sdg
from sclmkb.generate.engines.base import Completion, Request, refused
from sclmkb.generate.runs.verify import find_problems


@pytest.fixture
def commanded(monkeypatch: pytest.MonkeyPatch) -> list[sdg.SdgSettings]:
    """Let the command run with the engine of the tests, and note its settings."""
    chosen: list[sdg.SdgSettings] = []

    def backend(settings: sdg.SdgSettings) -> sdg.Backend:
        chosen.append(settings)
        return make_backend(settings, FakeEngine())

    monkeypatch.setattr("sclmkb.generate.captions.backend.make_backend", backend)
    return chosen


# Shared out


def test_shards_done_apart_are_the_run_done_at_once(job: Job) -> None:
    whole, out = job("whole"), job.home / "sdg"
    with pytest.raises(UserError, match="train-00000-of-00003 has no manifest"):
        job(shards="none")
    assert job(shards="1") is None
    assert not (out / "README.md").exists()
    assert [s.name for s in Run.look(out, "sdg").pending()] == ["train-00000-of-00003", "train-00002-of-00003"]
    log = {p: p.read_bytes() for p in (out / "logs").iterdir()}
    last = job(shards="0,2")  # the last one closes the run
    assert files(out) == files(whole.root)
    assert last.fingerprint == whole.fingerprint == job(shards="none").fingerprint
    logs = sorted((out / "logs").iterdir())
    assert len(logs) == 2
    assert all(p.read_bytes() == data for p, data in log.items()), "every start has a log of its own"
    for path in logs:
        events = [json.loads(line) for line in path.read_text().splitlines()]
        assert (events[0]["event"], events[-1]["event"], events[-1]["how"]) == ("start", "end", "done")
        assert sum(e["event"] == "chunk" for e in events) > 2


@pytest.mark.parametrize(
    ("text", "message"), [("3", "there is no shard 3"), ("x", "names no shards"), ("2-1", "0-3,7")]
)
def test_shards_that_are_none(job: Job, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        job(shards=text)


# Failures


def test_a_run_with_transient_failures_ends_with_the_rows_of_one_without(job: Job) -> None:
    rows, engine = job("whole").table("rows"), FlakyEngine()
    first = again = job(writer=engine)
    assert first.counts()["error"] > 3
    kept = files(first.root)
    for number in range(8):  # the rounds that follow fail for the first time too
        again = job(f"again-{number}", engine, retry=again.root.name)
    assert again.table("rows") == rows
    assert files(first.root) == kept, "the older run stays as it was"
    attempts = again.table("attempts").to_pylist()
    # The failed tries stay on record, the new ones have their seeds.
    keys = {(a["row_id"], a["attempt"], a["sample"], a["retry"]): a for a in attempts}
    assert len(keys) == len(attempts)
    for a in first.table("attempts").to_pylist():
        assert keys[a["row_id"], a["attempt"], a["sample"], 0]["finish_reason"] == a["finish_reason"]
    retried = [a for a in attempts if a["retry"]]
    assert {a["retry"] for a in retried} == {1}
    assert all(keys[a["row_id"], a["attempt"], a["sample"], 0]["seed"] == a["seed"] for a in retried)
    assert list(find_problems(again.root)) == []


def test_a_retry_that_was_cut_goes_on(job: Job) -> None:
    whole = job("whole")
    job(writer=FlakyEngine())
    with pytest.raises(KeyboardInterrupt):
        job("again", InterruptedEngine(2), retry="sdg")
    with pytest.raises(UserError, match="unfinished"):
        Artifact.open(job.home / "again", "sdg")
    again = job("again", retry="sdg")
    assert again.table("rows") == whole.table("rows")
    asked = Counter((a["row_id"], a["attempt"], a["sample"]) for a in again.table("attempts").to_pylist())
    assert max(asked.values()) == 2, "what was asked for again before the cut is not asked for a third time"
    assert list(find_problems(again.root)) == []


def test_nothing_to_retry_starts_no_engine_and_changes_nothing(job: Job) -> None:
    first, engine = job(), FakeEngine()
    again = job("again", engine, retry="sdg")
    assert engine.calls == []
    assert files(again.root) == files(first.root)
    assert again.plan.inputs["retry"] == first.fingerprint


def test_a_retry_with_other_settings_is_refused(job: Job) -> None:
    job(writer=FlakyEngine())
    with pytest.raises(UserError, match=r"written with other settings \(seed: 0 there, 5 now\)"):
        job("again", retry="sdg", seed=5)
    with pytest.raises(UserError, match="no sdg artifact"):
        job("again", retry="absent")
    assert not (job.home / "again").exists()
    assert job("again", retry="sdg", max_error_rate=0.5) is not None, "what changes no output may differ"


def test_the_retry_command_takes_the_settings_of_the_run(job: Job, commanded: list[sdg.SdgSettings]) -> None:
    first, out = job(writer=FlakyEngine()), job.home / "again"
    command = ["sclmkb-gen", "sdg", "--corpus", job.corpus, "--retry", first.root, "--out", out]
    assert run_command([*command, "--shards", "0,2", "--max-error-rate", "0.5"]).code == 0
    assert [s.name for s in Run.look(out, "sdg").pending()] == ["train-00001-of-00003"]
    assert commanded[0].max_error_rate == 0.5
    assert run_command(command).code == 0, "a run may go on with another limit"
    again = Artifact.open(out, "sdg")
    assert again.counts()["error"] == 0
    assert again.plan.settings == first.plan.settings
    assert run_command([*command, "--set", "num_samples=1"]).code == 2


def test_too_many_errors_stop_the_run_and_are_mended_by_a_retry(job: Job) -> None:
    class Down(FakeEngine):
        def _write(self, request: Request) -> Completion:
            return refused("connection\nrefused")

    limit = {"max_error_rate": 0.25, "min_rows_for_error_rate": 16}
    engine = Down()
    with pytest.raises(UserError, match=r"16 of 16 rows failed.*connection refused.*--retry"):
        job(writer=engine, **limit)
    assert len(engine.calls) == 2, "it stops at the first wave after 16 rows"
    assert job(**limit).counts()["error"] == 16
    assert job("again", retry="sdg", **limit).table("rows") == job("whole").table("rows")
    few = job("few", FlakyEngine(), max_error_rate=0.6, min_rows_for_error_rate=8)
    assert few.counts()["error"] > 3, "a few errors do not stop the run"


# Stopped


def test_a_stop_commits_the_chunk_and_loses_nothing(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(number: int) -> None:
        if number == 3:
            os.kill(os.getpid(), signal.SIGUSR1)

    whole_engine, engine, rest = FakeEngine(), FakeEngine(before=stop), FakeEngine()
    whole, out = job("whole", whole_engine), job.home / "sdg"
    backend = make_backend(fake_settings(), engine)
    monkeypatch.setattr("sclmkb.generate.captions.backend.make_backend", lambda _: backend)
    monkeypatch.setattr(sdg.SdgSettings, "resolve", lambda **_: fake_settings())
    assert run_command(["sclmkb-gen", "sdg", "--corpus", job.corpus, "--out", out]).code == 75
    assert len(engine.calls) == 4
    assert "Terminated" in next((out / "logs").glob("*.jsonl")).read_text().splitlines()[-1]
    job(writer=rest)
    assert files(out) == files(whole.root)
    assert rest.calls == whole_engine.calls[4:], "the wave that was under way is not done again"


# Passed on


def test_the_card_says_what_the_captions_are(job: Job) -> None:
    artifact = job()
    card = (artifact.root / "README.md").read_text()
    attempts = artifact.table("attempts").to_pylist()
    reasons = Counter(a["reason"] for a in attempts if not a["accepted"])
    for reason, count in reasons.items():
        assert f"| rejected: {reason} | {count} |" in card
    bars = [line.split() for line in card.splitlines() if " .. " in line]
    assert sum(int(bar[-1]) for bar in bars) == len(attempts)
    for text in ("rewrite-1", "licence", "## Limits", f"of {len(attempts)} samples were kept"):
        assert text in card


def test_both_tables_load_with_datasets(job: Job) -> None:
    datasets = pytest.importorskip("datasets")
    job(writer=FlakyEngine())
    again = job("again", retry="sdg")
    for table in ("rows", "attempts"):
        loaded = datasets.load_dataset(str(again.root), table, split="train", cache_dir=str(job.home / "cache"))
        assert loaded.num_rows == again.table(table).num_rows
