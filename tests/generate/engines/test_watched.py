import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import engine_fakes
import psutil
import pytest
from engine_fakes import ObedientEngine, request
from real_ray import living
from waiting import wait_for

from sclmkb.common.errors import UserError
from sclmkb.generate.engines.base import Engine
from sclmkb.generate.engines.vllm import VllmSettings, worker_environments
from sclmkb.generate.engines.watched import WatchedEngine, WatchSettings


@pytest.fixture
def start() -> Iterator[Callable[..., WatchedEngine]]:
    made: list[WatchedEngine] = []

    def make(build: Callable[[], Engine], *, copies: int = 1, **settings: float) -> WatchedEngine:
        environments = [{"CUDA_VISIBLE_DEVICES": str(i)} for i in range(copies)]
        made.append(WatchedEngine(build, WatchSettings.model_validate(settings), environments))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def test_it_writes_what_the_engine_inside_writes(start: Callable[..., WatchedEngine]) -> None:
    engine = start(ObedientEngine)
    requests = [request(f"boat {i}", i) for i in range(5)]
    assert engine.generate(requests) == ObedientEngine().generate(requests)
    assert engine.generate([]) == []
    assert engine.generate(requests[:1]) == ObedientEngine().generate(requests[:1])
    assert engine.call("pid") != os.getpid()


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["die", *"abcdef"], "SIGKILL"),
        ([*"abcdef", "die"], "SIGKILL"),
        ([*"ab", "die", "die", *"cde"], "SIGKILL"),
        (["boat", "secret", "tower"], "kept completions to itself"),
        (["boat", "hang"], "silent for too long"),
        (["boat", "fail", "tower"], "no such kernel"),
    ],
)
def test_one_that_breaks_the_engine_is_an_error_and_the_rest_goes_on(
    start: Callable[..., WatchedEngine], texts: list[str], told: str
) -> None:
    engine = start(ObedientEngine, silence_timeout_s=0.3 if "hang" in texts else 60)
    written = engine.generate([request(text, i) for i, text in enumerate(texts)])
    for i, (text, completion) in enumerate(zip(texts, written, strict=True)):
        if text in ("die", "secret", "hang", "fail"):
            assert completion.finish_reason == "error"
            assert told in completion.error
        else:
            assert completion.text == f"{text.upper()} {i}"


def test_each_is_told_once_and_what_a_dead_worker_told_is_kept(
    start: Callable[..., WatchedEngine], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    texts = [f"log {log}", "boat", f"die-once {tmp_path / 'mark'}", "tower", "die", f"log {log}"]
    told: list[tuple[int, str]] = []
    written = start(ObedientEngine).generate(
        [request(text) for text in texts], lambda place, completion: told.append((place, completion.text))
    )
    assert sorted(told) == list(enumerate(completion.text for completion in written))
    assert [bool(c.error) for c in written] == [False] * 4 + [True, False], "who dies once may be written after all"
    assert log.read_text() == "xx", "what was written before a death is not written again"


def test_death_between_two_waves_costs_nothing(start: Callable[..., WatchedEngine]) -> None:
    engine = start(ObedientEngine)
    os.kill(engine.call("pid"), signal.SIGKILL)
    time.sleep(0.1)
    assert engine.generate([request("boat")])[0].text == "BOAT 0"


def test_an_engine_that_keeps_dying_ends_the_run(start: Callable[..., WatchedEngine]) -> None:
    engine = start(ObedientEngine, max_deaths=3)
    with pytest.raises(UserError, match="died 4 times in one wave"):
        engine.generate([request("die") for _ in range(8)])


def test_what_makes_the_engine_useless_raises(start: Callable[..., WatchedEngine]) -> None:
    with pytest.raises(UserError, match="the model was deleted"):
        start(ObedientEngine).generate([request("useless")])
    with pytest.raises(UserError, match="no such model"):
        start(engine_fakes.unusable)
    with pytest.raises(UserError, match="exit code 7 while it was starting"):
        start(engine_fakes.dies_at_the_start)


def test_signals_that_stop_a_run_in_good_order_leave_the_worker_alone(start: Callable[..., WatchedEngine]) -> None:
    engine = start(ObedientEngine)
    pid = engine.call("pid")
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(pid, signum)
    assert engine.generate([request("boat")])[0].text == "BOAT 0"
    assert engine.call("pid") == pid


def test_copies_share_a_wave_and_the_order_stays(start: Callable[..., WatchedEngine]) -> None:
    engine = start(engine_fakes.WhereEngine, copies=2)
    written = [c.text.split() for c in engine.generate([request("boat", i) for i in range(9)])]
    assert [int(seed) for _, _, seed in written] == list(range(9))
    assert {device for device, _, _ in written} == {"0", "1"}
    assert len({pid for _, pid, _ in written}) == 2


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_worker_dies_with_its_parent(signum: signal.Signals) -> None:
    script = [sys.executable, engine_fakes.__file__]
    parent = subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(signum)
    parent.wait(timeout=20)
    wait_for(lambda: not living([worker]), 5)


def test_gpus_and_cores_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    two = VllmSettings(data_parallel_size=2, tensor_parallel_size=2)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in worker_environments(two, {})] == ["0,1", "2,3"]
    visible = {"CUDA_VISIBLE_DEVICES": "7,5,3,1"}
    assert [e["CUDA_VISIBLE_DEVICES"] for e in worker_environments(two, visible)] == ["7,5", "3,1"]
    assert worker_environments(VllmSettings(), visible) == [{}]
    with pytest.raises(UserError, match="needs 6 GPUs, and 4 are visible"):
        worker_environments(VllmSettings(data_parallel_size=6), {})
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert worker_environments(VllmSettings(data_parallel_size=2), {"OMP_NUM_THREADS": "3"})[1] == {
        "OMP_NUM_THREADS": "3",
        "GOMP_SPINCOUNT": "10000",
    }
    assert worker_environments(VllmSettings(), {}) == [{"GOMP_SPINCOUNT": "10000"}]
    assert worker_environments(VllmSettings(), {"OMP_WAIT_POLICY": "ACTIVE"}) == [{}], "what the user chose stays"
