"""What a second worker is worth: the same run of SDG by one and by two, on this machine.

The engine is a fake that takes no CPU: it sleeps for a wave, then answers as the control engine does. Everything else
is real: prompts, waves, filter, committed Parquet, and starting the processes, which counts on both sides. The workers
are processes with ``--shards``, or Ray actors, whose start counts too (``--executor ray``).

``--engine vllm`` takes the real engine with the embedded model: one worker with all cores, then two with half of them
each; both have the same cores, so two shall be no slower. Counted are samples a second while waves are under way.

Run it on a quiet machine: python tests/bench/bench_executors.py [--executor local|ray] [--shards N] [--seconds S]
                           python tests/bench/bench_executors.py --engine vllm [--shards N]
"""

import argparse
import dataclasses
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from verdict import sized, verdict

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.console import run_app
from sclmkb.common.executors.choose import choose_executor
from sclmkb.common.options import RunOptions, takes_run_options
from sclmkb.generate.captions.backend import make_backend
from sclmkb.generate.captions.sdg import SdgSettings, plan_captions
from sclmkb.generate.engines.base import Completion, Hear, Request, unheard
from sclmkb.generate.engines.template import TemplateEngine

BOUND, BOUND_OF_SHARES = 1.7, 1.0
ROWS_A_SHARD = 32
REAL = {"shard_size": 128, "max_attempts": 1, "vllm": {"enforce_eager": True}}
"""Settings of a run with the real engine: 256 samples a shard, in one wave."""
app = typer.Typer()


class SleepingEngine(TemplateEngine):
    """Takes its time for a call, and no CPU."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
        """Sleep, then answer."""
        time.sleep(self._seconds)
        return super().generate(requests, hear)


@app.callback()
def root() -> None:
    """Make the application one with commands."""


@app.command("run")
@takes_run_options
def sdg(corpus: Path, out: Path, seconds: Annotated[float, typer.Option()] = 0.0, *, run: RunOptions) -> None:
    """Do as ``sclmkb-gen sdg`` does, with one wave a shard; the engine is the real one if it shall not sleep."""
    executor = choose_executor(run, "sdg", out, "bench_executors")
    if seconds:
        settings = SdgSettings(engine="template", shard_size=ROWS_A_SHARD, max_attempts=1)
        backend = dataclasses.replace(make_backend(settings), engine=lambda: SleepingEngine(seconds))
    else:
        settings = SdgSettings(**REAL)
        backend = make_backend(settings)
    executor.execute(plan_captions(settings, corpus, out, backend, join=run.join))


def write_corpus(folder: Path, num_rows: int) -> Path:
    """Write a corpus of so many captions."""
    table = folder / "captions.csv"
    rows = [f"item-{i},a person who carries {i} red apples,train" for i in range(num_rows)]
    table.write_text("\n".join(["identity,caption,split", *rows]) + "\n")
    command = [sys.executable, "-m", "sclmkb.generate.cli", "corpus", "table", "--root", str(table)]
    subprocess.run([*command, "--out", str(folder / "corpus"), "--set", "columns.split=split"], check=True)
    return folder / "corpus"


def time_run(executor: str, workers: int, num_shards: int, words: Sequence[str], out: Path) -> float:
    """Return the seconds that a run by so many workers takes."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": ":".join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bench_executors", "run", *words, str(out)]
    if executor == "ray":
        shares = [["--executor", "ray", "--set", f"ray.workers={workers}", "--set", "ray.cpus=0.5"]]
    else:
        ends = [round(i * num_shards / workers) for i in range(workers + 1)]
        shares = [["--shards", f"{start}-{end - 1}"] for start, end in itertools.pairwise(ends)]
    started = time.perf_counter()
    processes = [subprocess.Popen([*command, *share], env=environment, stderr=subprocess.PIPE) for share in shares]
    said = [process.communicate()[1].decode() for process in processes]
    seconds = time.perf_counter() - started
    if any(process.returncode for process in processes):
        raise SystemExit("\n".join(said))
    Artifact.open(out, "sdg")
    return seconds


def samples_per_second(workers: int, num_shards: int, corpus: Path, out: Path) -> float:
    """Return what so many workers, each with its part of the cores, write in a second with the real engine."""
    cores = sorted(os.sched_getaffinity(0))
    each = len(cores) // workers
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "bench_executors", "run", str(corpus), str(out), "--shards"]
    shares = [range(num_shards)[i::workers] for i in range(workers)]
    processes = []
    for i, share in enumerate(shares):
        pinned = ["taskset", "-c", ",".join(map(str, cores[i * each : (i + 1) * each]))]
        line = [*pinned, *command, ",".join(map(str, share))]
        processes.append(subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
    said = [process.communicate()[1].decode() for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("\n".join(said))
    figures = [manifest["figures"] for manifest in Artifact.open(out, "sdg").manifests]
    own = [[figures[i] for i in share] for share in shares]
    return sum(sum(f["samples"] for f in part) / sum(f["seconds"] for f in part) for part in own)


def measure_shares(num_shards: int) -> int:
    """Measure the real engine, print a line, and return 1 if the bound is missed."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder), num_shards * REAL["shard_size"])
        one, two = (samples_per_second(n, num_shards, corpus, Path(folder) / f"by-{n}") for n in (1, 2))
    print(f"{num_shards} shards, vLLM: {one:.1f} samples/s by one worker, {two:.1f} by two with half of the cores each")
    return verdict([("two workers / one, the same cores, vLLM", two / one, BOUND_OF_SHARES, two >= one)])


def main() -> int:
    """Measure, print a line a bound, and return 1 if it is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executor", choices=["local", "ray"], default="local")
    parser.add_argument("--shards", type=int, default=sized(16, 2), help="shards of the run, an even number")
    parser.add_argument(
        "--seconds", type=float, default=sized(8.0, 0.1), help="that the engine sleeps for each of them"
    )
    parser.add_argument("--engine", choices=["sleeping", "vllm"], default="sleeping")
    chosen = parser.parse_args()
    if chosen.engine == "vllm":
        return measure_shares(chosen.shards)
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder), chosen.shards * ROWS_A_SHARD)
        words = [str(corpus), "--seconds", str(chosen.seconds)]
        seconds = {
            workers: time_run(chosen.executor, workers, chosen.shards, words, Path(folder) / f"by-{workers}")
            for workers in (1, 2)
        }
    print(
        f"{chosen.shards} shards of {chosen.seconds:g} s: {seconds[1]:.1f} s by one worker, {seconds[2]:.1f} s by two"
    )
    ratio = seconds[1] / seconds[2]
    return verdict([(f"two workers / one, {chosen.executor}", ratio, BOUND, ratio >= BOUND)])


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        run_app(app)
    sys.exit(main())
