"""The trainer and the evaluator work with the base dependencies alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("vllm", "faiss", "sionna", "ray"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
try:
    import faiss
except ModuleNotFoundError:
    pass
else:
    sys.exit("the block does not work")
"""


COMMANDS = """
import json
for module, arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        __import__(f"sclmkb.{module}.cli", fromlist=["main"]).main()
    except SystemExit as stop:
        if stop.code:
            raise
"""


def run(cache: Path, *commands: tuple[str, tuple[object, ...]]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + COMMANDS, json.dumps(commands, default=str)],
        env={**os.environ, "SCLMKB_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_training_and_evaluation_need_no_generator(tiny_artifacts: Any, tmp_path: Path, embedding_cache: Path) -> None:
    tiny = tiny_artifacts
    common = ("--preset", "tiny", "--corpus", tiny.corpus, "--csi", tiny.csi, "--predicted", tiny.predicted)
    checkpoint = tmp_path / "jscc" / "sc-lmkb" / "seed-0"
    run(
        embedding_cache,
        ("train", ("jscc", *common, "--sdg", tiny.sdg, "--out", checkpoint)),
        ("evaluate", ("run", *common, "--checkpoints", tmp_path / "jscc", "--out", tmp_path / "eval")),
    )
    assert pq.read_table(tmp_path / "eval" / "results.parquet").num_rows > 0
