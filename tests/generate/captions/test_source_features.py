"""The source captions are embedded once between all processes of a run, and nobody sees who did it."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.console import Terminated, stop_requested
from sclmkb.common.executors.local import Local
from sclmkb.generate.captions.refilter import RefilterSettings, plan_refilter
from sclmkb.generate.captions.sdg import plan_captions
from sclmkb.generate.captions.waves import Worker
from sclmkb.generate.engines.base import Completion, Hear, Request
from sclmkb.generate.filter import index
from sclmkb.generate.runs.merge import merge
from sclmkb.generate.runs.status import read_status
from sclmkb.generate.runs.verify import find_problems

PART = 16
CAPTIONS = 100


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "PART", PART)


@pytest.fixture
def corpus(fakes: ModuleType, tmp_path: Path) -> Path:
    return fakes.write_corpus(tmp_path / "corpus", CAPTIONS)


class Embedded:
    """Counts how often each source caption is embedded, and may do something before."""

    def __init__(self, fakes: ModuleType, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.parts = Counter[str](), 0
        self.sources = set(Artifact.open(corpus, "corpus").table("captions")["text"].to_pylist())
        encode = fakes.FakeEncoder.encode

        def counted(encoder: Any, texts: Sequence[str]) -> torch.Tensor:
            if len(texts) in (PART, CAPTIONS % PART) and self.sources.issuperset(texts):
                self.parts += 1
                self.before()
                self.count.update(texts)
            return encode(encoder, texts)

        monkeypatch.setattr(fakes.FakeEncoder, "encode", counted)

    def before(self) -> None:
        """Do nothing."""

    def take(self) -> Counter[str]:
        """Return the count so far, and begin anew."""
        found, self.count = self.count, Counter()
        return found


@pytest.fixture
def embedded(fakes: ModuleType, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Embedded:
    return Embedded(fakes, corpus, monkeypatch)


@pytest.fixture
def job(fakes: ModuleType, corpus: Path) -> Any:
    def run(out: Path, engine: Any = None, only_shards: str | None = None, **options: Any) -> Artifact | None:
        settings = fakes.fake_settings()
        backend = fakes.make_backend(settings, engine or fakes.FakeEngine())
        return Local(only_shards).execute(plan_captions(settings, corpus, out, backend, **options))

    return run


def data(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.parquet"))}


def shared(root: Path) -> list[Path]:
    return sorted((root / "work" / "shared").glob("sources-*.npy"))


def test_processes_share_the_features_and_end_with_the_bytes_of_one(
    job: Any, embedded: Embedded, tmp_path: Path
) -> None:
    job(tmp_path / "one")
    assert embedded.take() == dict.fromkeys(embedded.sources, 1)
    for shards in ("1", "0"):
        assert job(tmp_path / "many", only_shards=shards) is None
    assert embedded.take() == dict.fromkeys(embedded.sources, 1), "the second process took what the first one made"
    assert len(shared(tmp_path / "many")) == 7
    assert job(tmp_path / "many", only_shards="2") is not None
    assert not embedded.take()
    assert data(tmp_path / "many") == data(tmp_path / "one")
    for root in (tmp_path / "one", tmp_path / "many"):
        assert not (root / "work").exists(), "they go with the last step"
        assert list(find_problems(root)) == []


def test_who_looks_at_the_run_does_not_see_them(job: Any, tmp_path: Path) -> None:
    whole = job(tmp_path / "whole")
    job(tmp_path / "a", only_shards="0-1")
    job(tmp_path / "b", only_shards="2")
    assert shared(tmp_path / "a")
    status = read_status(tmp_path / "a")
    assert (status.shards_done, status.resubmit) == (2, "2")
    assert list(find_problems(tmp_path / "a")) == [
        "shards 2 have no manifest: the run is unfinished, run its command again"
    ]
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert merged.fingerprint == whole.fingerprint
    assert not (tmp_path / "merged" / "work").exists()


@pytest.mark.usefixtures("deliver_signals")
def test_a_stop_while_they_are_embedded_keeps_those_that_are_done(
    job: Any, embedded: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job(tmp_path / "whole")
    embedded.parts = 0
    assert "source captions: 100/100" in capsys.readouterr().err

    def stop_at_the_third() -> None:
        if embedded.parts == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            while not stop_requested():
                time.sleep(0.001)

    monkeypatch.setattr(embedded, "before", stop_at_the_third)
    with pytest.raises(Terminated):
        job(tmp_path / "sdg")
    assert embedded.parts == len(shared(tmp_path / "sdg")) == 3, "the one under way was finished"
    log = [json.loads(line) for line in next((tmp_path / "sdg" / "logs").iterdir()).read_text().splitlines()]
    assert [(event["event"], event.get("of")) for event in log[:-1]] == [("start", None), *[("sources", 7)] * 3]
    embedded.take()
    job(tmp_path / "sdg")
    assert embedded.parts == 7, "the other four"
    assert data(tmp_path / "sdg") == data(tmp_path / "whole")
    assert not (tmp_path / "sdg" / "work").exists()


def test_an_interruption_ends_the_embedding_too(
    fakes: ModuleType, job: Any, embedded: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, interrupted, left = threading.Event(), threading.Event(), list[Worker]()

    def wait() -> None:
        begun.set()
        assert interrupted.wait(60)

    class Interrupted(fakes.FakeEngine):  # type: ignore[name-defined, misc]
        def generate(self, requests: Sequence[Request], hear: Hear) -> list[Completion]:
            assert begun.wait(60)
            raise KeyboardInterrupt

    give_up = Worker.give_up
    monkeypatch.setattr(embedded, "before", wait)
    monkeypatch.setattr(Worker, "give_up", lambda self: (left.append(self), give_up(self)))
    with pytest.raises(KeyboardInterrupt):
        job(tmp_path / "sdg", Interrupted())
    interrupted.set()
    assert isinstance(left[0]._filter.exception(60), Terminated)
    assert embedded.parts == len(shared(tmp_path / "sdg")) == 1


def test_a_retry_makes_them_again(fakes: ModuleType, job: Any, embedded: Embedded, tmp_path: Path) -> None:
    whole, before = job(tmp_path / "whole"), tmp_path / "sdg"
    engine = fakes.FlakyEngine()
    job(before, engine)
    embedded.take()
    for number in range(8):
        out = tmp_path / f"sdg-{number}"
        artifact = job(out, engine, retry=before)
        before = out
    assert embedded.take()
    assert artifact.table("rows").equals(whole.table("rows"))
    assert not (out / "work").exists()


def test_filter_shares_them_as_well(fakes: ModuleType, job: Any, embedded: Embedded, tmp_path: Path) -> None:
    job(tmp_path / "sdg")
    embedded.take()
    settings = RefilterSettings.of_run(tmp_path / "sdg", overrides=["filter.index=ivf"])
    for name, parts in (("one", ["0-2"]), ("many", ["2", "0-1"])):
        for shards in parts:  # each a process of its own
            work = plan_refilter(
                settings, tmp_path / "sdg", tmp_path / name, load_encoder=lambda *_: fakes.FakeEncoder()
            )
            work.make(work.shards(shards))
            assert len(shared(tmp_path / name)) == 7
        work.finish()
        assert embedded.take() == dict.fromkeys(embedded.sources, 1)
        assert not (tmp_path / name / "work").exists()
    assert data(tmp_path / "many") == data(tmp_path / "one")
