"""One plan by every executor, with a node lost and a task preempted in the middle of a shard: the same artifact.

With the deterministic engine each byte is the same; with the real language model the rows and their states are.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
import real_ray
import real_slurm

HERE = Path(__file__).parent
COMMON = ["num_samples=1", "max_attempts=2", "wave_size=4", "shard_size=8"]
ENGINES = {
    "template": ["engine=template"],
    "vllm": [
        "sampling.max_tokens=12",
        "vllm.enforce_eager=true",
        "vllm.max_num_seqs=16",
        "vllm.max_model_len=256",
    ],
}
NUM_ROWS = 24


pytestmark = pytest.mark.long


class Gated:
    """The command of gated_sdg.py with one engine, on one corpus."""

    def __init__(self, root: Path, corpus: Path, settings: list[str]) -> None:
        self.root, self.gate = root, root / "gate"
        self.gate.mkdir()
        self.words = [sys.executable, "-m", "gated_sdg", str(corpus)]
        self.settings = [f"--set={item}" for item in settings]

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
        own = {"PYTHONPATH": ":".join(filter(None, paths)), "OMP_NUM_THREADS": "1", "GATE": str(self.gate)}
        return {**os.environ, **more, **own}

    def start(self, out: Path, *options: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with out.with_suffix(".log").open("wb") as log:
            return subprocess.Popen(
                [*self.words, str(out), *self.settings, *options],
                stdout=log, stderr=log, env=self.environment(environment), cwd=self.root, start_new_session=True,
            )  # fmt: skip

    def at_work(self) -> int:
        """Return how many engines stood before the gate up to now."""
        path = self.gate / "at-work"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def open(self) -> None:
        (self.gate / "go").touch()


def _chunks(out: Path) -> int:
    return len(list(out.glob("work/*/chunk-*.json")))


def _said(out: Path) -> str:
    logs = [out.with_suffix(".log"), *sorted(out.glob("logs/slurm/*.log"))]
    lines = {path.name: path.read_text().splitlines() for path in logs}
    return "\n".join(f"{name}: {line}" for name, of in lines.items() for line in of if "[state-dump]" not in line)


def _made(out: Path, engine: str) -> dict[str, object]:
    """Return what must be the same: each file, byte for byte, or each row and its state."""
    data = sorted(p for p in out.rglob("*") if p.suffix in (".parquet", ".md"))
    if engine == "template":
        return {str(p.relative_to(out)): p.read_bytes() for p in data}
    rows = [row for p in data if p.parent.name == "rows" for row in pq.read_table(p).to_pylist()]
    return {row["row_id"]: row["state"] for row in rows}


@pytest.fixture(scope="module", params=["template", pytest.param("vllm", marks=pytest.mark.vllm)])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "vllm":
        pytest.importorskip("vllm")
    return str(request.param)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, fakes: ModuleType) -> Path:
    written: Path = fakes.write_corpus(tmp_path_factory.mktemp("corpus") / "corpus", NUM_ROWS)
    return written


@pytest.fixture(scope="module")
def alone(engine: str, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Return what one process makes that nothing happens to."""
    gated = Gated(tmp_path_factory.mktemp("alone"), corpus, [*COMMON, *ENGINES[engine]])
    gated.open()
    out = gated.root / "run"
    assert gated.start(out, environment={}).wait(400) == 0, _said(out)
    made = _made(out, engine)
    assert len(made) == (NUM_ROWS if engine == "vllm" else 2 * NUM_ROWS // 8 + 2), "tables, row ids and the card"
    return made


@pytest.fixture
def gated(engine: str, corpus: Path, tmp_path: Path) -> Gated:
    return Gated(tmp_path, corpus, [*COMMON, *ENGINES[engine]])


def test_ray_with_a_node_lost(engine: str, gated: Gated, alone: dict[str, object]) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'sclmkb[ray]'")
    with real_ray.cluster(gated.environment({})) as cluster:
        second, out = cluster.add(), gated.root / "run"
        command = gated.start(out, "--executor=ray", f"--ray-address={cluster.address}", environment={})
        try:
            real_ray.wait_for(lambda: gated.at_work() == 2 or command.poll() is not None)  # one on each node
            assert command.poll() is None, _said(out)
            assert _chunks(out) == 2
            cluster.lose(second)
            gated.open()
            assert command.wait(400) == 0, _said(out)
        finally:
            real_ray.kill(real_ray.family(command.pid))
    assert "goes to another actor" in _said(out)
    assert _made(out, engine) == alone


@pytest.mark.skipif(bool(real_slurm.why_not()), reason=real_slurm.why_not() or "runs")
def test_slurm_with_a_task_preempted(engine: str, gated: Gated, alone: dict[str, object]) -> None:
    out = gated.root / "run"
    with real_slurm.slurm(gated.root / "slurm") as programs:
        environment = gated.environment(programs)

        def ask(*command: str) -> str:
            return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout

        tasks = ["--set=slurm.partition=low", "--set=slurm.shards_per_task=2"]
        assert gated.start(out, "--executor=slurm", *tasks, environment=programs).wait(100) == 0, _said(out)
        try:
            real_slurm.wait_for(lambda: gated.at_work() == 2, 400)
            assert _chunks(out) == 2
            ask("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")
            real_slurm.wait_for(lambda: gated.at_work() > 2, 400)  # Slurm requeues it
            gated.open()
            real_slurm.wait_for(lambda: not ask("squeue", "-h"), 400)
        except AssertionError as error:
            raise AssertionError(_said(out)) from error
    assert "PREEMPTION" in _said(out)
    assert _made(out, engine) == alone
