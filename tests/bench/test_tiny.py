"""Every benchmark runs to its verdict in a tiny form, where its bounds are not held."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = sorted(Path(__file__).parent.glob("bench_*.py"))


@pytest.mark.long
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_benchmark_comes_to_its_verdict(program: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "TINY": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "(bound " in done.stdout
