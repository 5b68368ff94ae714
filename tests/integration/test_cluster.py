"""SDG by every executor, with a node lost or a task preempted in the middle of a shard: the same artifact.

With the deterministic engine each byte is the same; with the real language model the rows and their states are.
"""

import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sdg_fakes import write_corpus
from toy_runs import Here, OnRay, OnSlurm, Toy

COMMON = ["num_samples=1", "max_attempts=2", "wave_size=4", "shard_size=8", "slurm.shards_per_task=2"]
ENGINES = {
    "template": ["engine=template"],
    "vllm": ["sampling.max_tokens=12", "vllm.enforce_eager=true", "vllm.max_num_seqs=16", "vllm.max_model_len=256"],
}
NUM_ROWS = 24


pytestmark = pytest.mark.long


@pytest.fixture(scope="module", params=["template", pytest.param("vllm", marks=pytest.mark.vllm)])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "vllm":
        pytest.importorskip("vllm")
    return str(request.param)


@pytest.fixture(scope="module")
def words(engine: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return what the command of gated_sdg.py is given."""
    corpus = write_corpus(tmp_path_factory.mktemp("corpus") / "corpus", NUM_ROWS)
    return ["--corpus", str(corpus), *(f"--set={item}" for item in [*COMMON, *ENGINES[engine]])]


def made(toy: Toy, engine: str) -> dict[str, Any]:
    """Return what must be the same: each file, byte for byte, or each row and its state."""
    if engine == "template":
        return toy.files()
    rows = [row for path in toy.out.glob("rows/*.parquet") for row in pq.read_table(path).to_pylist()]
    return {row["row_id"]: row["state"] for row in rows}


@pytest.fixture(scope="module")
def alone(engine: str, words: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what one process makes that nothing happens to."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    toy = Toy(tmp_path_factory.mktemp("alone") / "toy", environment, "gated_sdg", *words)
    toy.mood("go")
    assert toy.start().wait(400) == 0, toy.said()
    found = made(toy, engine)
    assert len(found) == (NUM_ROWS if engine == "vllm" else 2 * NUM_ROWS // 8 + 2), "tables, row ids and the card"
    return found


@pytest.fixture(params=["ray", "slurm"])
def runner(request: pytest.FixtureRequest) -> Here:
    """Return an executor with two places for work."""
    if request.param == "slurm":
        return OnSlurm(request.getfixturevalue("slurm"))
    cluster = request.getfixturevalue("ray_cluster")
    return OnRay(cluster, cluster.add())


def test_who_is_lost_in_the_middle_of_a_shard_changes_nothing(
    runner: Here, engine: str, words: list[str], alone: dict[str, Any], tmp_path: Path
) -> None:
    toy = Toy(tmp_path / "toy", runner.environment, "gated_sdg", *words)
    try:
        runner.run(toy)
        runner.wait_at_work(toy, 2)  # one in each place
        assert len(list(toy.out.glob("work/*/chunk-*.json"))) == 2
        runner.lose(toy)
        toy.mood("go")
        runner.wait(toy)
    finally:
        runner.end(toy)
    assert made(toy, engine) == alone
