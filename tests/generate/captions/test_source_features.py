"""The source captions are embedded once between all processes of a run, and nobody sees who did it."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from sdg_fakes import FakeEncoder, FakeEngine, FlakyEngine, Job, files

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.console import Terminated, stop_requested
from sclmkb.generate.captions.refilter import RefilterSettings, plan_refilter
from sclmkb.generate.captions.waves import Worker
from sclmkb.generate.filter import index
from sclmkb.generate.runs.verify import find_problems

PART = 16
CAPTIONS = 100


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "PART", PART)


class Embedded:
    """Counts how often each source caption is embedded, and may do something before."""

    def __init__(self, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.parts = Counter[str](), 0
        self.sources = set(Artifact.open(corpus, "corpus").table("captions")["text"].to_pylist())
        encode = FakeEncoder.encode

        def counted(encoder: FakeEncoder, texts: Sequence[str]) -> torch.Tensor:
            if len(texts) in (PART, CAPTIONS % PART) and self.sources.issuperset(texts):
                self.parts += 1
                self.before()
                self.count.update(texts)
            return encode(encoder, texts)

        monkeypatch.setattr(FakeEncoder, "encode", counted)

    def before(self) -> None:
        """Do nothing."""

    def take(self) -> Counter[str]:
        """Return the count so far, and begin anew."""
        found, self.count = self.count, Counter()
        return found


@pytest.fixture
def embedded(job: Job, monkeypatch: pytest.MonkeyPatch) -> Embedded:
    return Embedded(job.corpus, monkeypatch)


def shared(root: Path) -> list[Path]:
    return sorted((root / "work" / "shared").glob("sources-*.npy"))


def test_processes_share_the_features_and_end_with_the_bytes_of_one(job: Job, embedded: Embedded) -> None:
    one, many = job("one").root, job.home / "many"
    assert embedded.take() == dict.fromkeys(embedded.sources, 1)
    for shards in ("1", "0"):
        assert job("many", shards=shards) is None
    assert embedded.take() == dict.fromkeys(embedded.sources, 1), "the second process took what the first one made"
    assert len(shared(many)) == 7
    assert job("many", shards="2") is not None
    assert not embedded.take()
    assert files(many) == files(one)
    for root in (one, many):
        assert not (root / "work").exists(), "they go with the last step"
        assert list(find_problems(root)) == []


@pytest.mark.usefixtures("deliver_signals")
def test_a_stop_while_they_are_embedded_keeps_those_that_are_done(
    job: Job, embedded: Embedded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = job("whole").root, job.home / "sdg"
    embedded.parts = 0
    assert "source captions: 100/100" in capsys.readouterr().err

    def stop_at_the_third() -> None:
        if embedded.parts == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            while not stop_requested():
                time.sleep(0.001)

    monkeypatch.setattr(embedded, "before", stop_at_the_third)
    with pytest.raises(Terminated):
        job()
    assert embedded.parts == len(shared(out)) == 3, "the one under way was finished"
    log = [json.loads(line) for line in next((out / "logs").iterdir()).read_text().splitlines()]
    assert [(event["event"], event.get("of")) for event in log[:-1]] == [("start", None), *[("sources", 7)] * 3]
    job()
    assert embedded.parts == 7, "the other four"
    assert files(out) == files(whole)
    assert not (out / "work").exists()


def test_an_interruption_ends_the_embedding_too(job: Job, embedded: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, interrupted, left = threading.Event(), threading.Event(), list[Worker]()

    def wait() -> None:
        begun.set()
        assert interrupted.wait(60)

    def interrupt(number: int) -> None:
        assert begun.wait(60)
        raise KeyboardInterrupt

    give_up = Worker.give_up
    monkeypatch.setattr(embedded, "before", wait)
    monkeypatch.setattr(Worker, "give_up", lambda self: (left.append(self), give_up(self)))
    with pytest.raises(KeyboardInterrupt):
        job(writer=FakeEngine(before=interrupt))
    interrupted.set()
    assert isinstance(left[0]._filter.exception(60), Terminated)
    assert embedded.parts == len(shared(job.home / "sdg")) == 1


def test_a_retry_makes_them_again(job: Job, embedded: Embedded) -> None:
    job(writer=FlakyEngine())
    assert embedded.take() == dict.fromkeys(embedded.sources, 1)
    again = job("again", retry="sdg")
    assert embedded.take() == dict.fromkeys(embedded.sources, 1)
    assert not (again.root / "work").exists()


def test_filter_shares_them_as_well(job: Job, embedded: Embedded) -> None:
    sdg = job().root
    embedded.take()
    settings = RefilterSettings.of_run(sdg, overrides=["filter.index=ivf"])
    for name, parts in (("one", ["0-2"]), ("many", ["2", "0-1"])):
        for shards in parts:  # each a process of its own
            work = plan_refilter(settings, sdg, job.home / name, load_encoder=lambda *_: FakeEncoder())
            work.make(work.shards(shards))
            assert len(shared(job.home / name)) == 7
        work.finish()
        assert embedded.take() == dict.fromkeys(embedded.sources, 1)
        assert not (job.home / name / "work").exists()
    assert files(job.home / "many") == files(job.home / "one")
