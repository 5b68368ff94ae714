"""Many workers on one plan, with deaths, restarts, two schedulers and clocks that differ: see simulate_scale."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"
DIFFERENT_EACH_TIME = """
import itertools, json, os, sys
from pathlib import Path

import simulate_scale

fakes, number = simulate_scale.load_fakes(), itertools.count()

class Moody(fakes.FakeEngine):
    def __init__(self):
        super().__init__()
        self.mood = next(number)

    def _write(self, request):
        completion = super()._write(request)
        return type(completion)(text=completion.text and f"{completion.text} {'xyz'[self.mood % 3]}",
                                finish_reason="stop", num_tokens=1)

found, cluster = simulate_scale.simulate(Path(sys.argv[1]), 20, 8, 0.2, 0, engine=Moody)
print(json.dumps([found, [repr(error) for error in cluster.errors]]), flush=True)
os._exit(0)
"""


def simulate(tmp_path: Path, *options: str) -> dict[str, float]:
    """Run the simulation and return what it counted."""
    command = [sys.executable, str(BENCH / "simulate_scale.py"), "--folder", str(tmp_path), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stdout
    pairs = [line.partition(": ") for line in done.stdout.splitlines()]
    return {name: float(value) for name, _, value in pairs if value.isdecimal()}


@pytest.mark.parametrize(
    ("shards", "workers", "deaths", "died", "killed"),
    [(40, 16, 0.2, 5, 1), pytest.param(200, 60, 0.1, 10, 15, marks=pytest.mark.long)],
)  # two hundred workers: make simulate-scale
def test_many_workers_end_as_one_does(
    shards: int, workers: int, deaths: float, died: int, killed: int, tmp_path: Path
) -> None:
    counted = simulate(tmp_path, f"--shards={shards}", f"--workers={workers}", f"--deaths={deaths}")
    assert counted["died"] >= died
    assert counted["killed with their scheduler"] >= killed
    assert counted["shards worked on to the end"] > shards, "both schedulers hand out some shards"


def test_what_a_process_changes_is_found_and_the_run_still_agrees_with_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DIFFERENT_EACH_TIME, str(tmp_path)], cwd=BENCH, check=True, stdout=subprocess.PIPE
    )
    found, errors = json.loads(done.stdout)
    assert not errors
    assert found["rows changed"] > 0
    assert found["files that differ"] > 0
    assert [found[name] for name in ("rows lost", "rows repeated", "problems that verify finds")] == [0, 0, 0]
