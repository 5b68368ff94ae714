"""The filter works beside the engine, and what it says does not depend on that."""

import os
import random
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sdg_fakes import FakeEngine, Job

from sclmkb.generate.captions import judging
from sclmkb.generate.engines.base import Completion, Hear, Request, unheard
from sclmkb.generate.filter.filter import HallucinationFilter, Sample, Verdict


def test_the_filter_works_while_the_engine_writes(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "BLOCK", 8)
    judged = threading.Event()
    blocks: list[int] = []
    judge = HallucinationFilter.judge

    def note(self: HallucinationFilter, samples: list[Sample]) -> list[Verdict]:
        blocks.append(len(samples))
        judged.set()
        return judge(self, samples)

    class OutOfOrder(FakeEngine):
        def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
            first = not self.calls
            written = super().generate(requests)
            for place in reversed(range(len(requests))):
                hear(place, written[place])
                if first and place == 8:
                    assert judged.wait(30), "the second block is judged before the first one is written"
            return written

    whole = job("whole")
    monkeypatch.setattr(HallucinationFilter, "judge", note)
    out_of_order = job("out of order", OutOfOrder())
    assert out_of_order.table("rows") == whole.table("rows"), "whatever the order, each completion belongs to its row"
    assert blocks[:4] == [8] * 4


def judge_far(order: Sequence[int], beside: ThreadPoolExecutor) -> dict[int, list[str]]:
    """Let captions be judged as they are written in some order; return what was judged together, by its first place."""
    sent: dict[int, list[str]] = {}

    def judge(samples: Sequence[Sample]) -> list[Verdict]:
        sent[samples[0].source] = [c.text for c in samples]
        return [Verdict(similarity=c.source, margin=0, reason="") for c in samples]

    far = judging.Judging(judge, beside, range(len(order)))
    for place in order:
        far.take(place, Completion(text=f"caption {place}", finish_reason="stop", num_tokens=2))
    assert [verdict.similarity for _, verdict in far.judged()] == list(range(len(order)))
    return sent


def test_what_is_judged_together_does_not_depend_on_the_order_of_writing() -> None:
    with ThreadPoolExecutor(1) as beside:
        straight = judge_far(range(300), beside)
        assert {start: len(texts) for start, texts in straight.items()} == {0: 128, 128: 128, 256: 44}
        assert judge_far(random.Random(0).sample(range(300), 300), beside) == straight


def test_a_busy_thread_beside_holds_no_wave_up() -> None:
    released = threading.Event()
    with ThreadPoolExecutor(1) as beside:
        beside.submit(released.wait, 30)
        assert len(judge_far(range(200), beside)) == 2
        assert not released.is_set()
        released.set()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root may hurry an idle thread")
def test_the_filter_stands_back_only_while_the_engine_writes(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    policies: list[tuple[int, int]] = []
    judge, begun = HallucinationFilter.judge, threading.Event()

    def note(self: HallucinationFilter, samples: list[Sample]) -> list[Verdict]:
        if threading.current_thread() is not threading.main_thread():
            at_first = os.sched_getscheduler(0)
            begun.set()
            end = time.monotonic() + 30
            while os.sched_getscheduler(0) == at_first and time.monotonic() < end:  # the engine is done soon
                time.sleep(0.01)
            policies.append((at_first, os.sched_getscheduler(0)))
        return judge(self, samples)

    class Hearing(FakeEngine):
        def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
            begun.clear()
            written = super().generate(requests, hear)
            assert begun.wait(30)
            return written

    monkeypatch.setattr(HallucinationFilter, "judge", note)
    job("sdg", Hearing(), engine="transformers", wave_size=100, max_attempts=1)
    assert len(policies) > 1
    assert set(policies) == {(os.SCHED_IDLE, os.SCHED_OTHER)}
