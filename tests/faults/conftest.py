"""The fault suite: ``make test-faults`` runs its long form, the other tests its short one (``FAULT_KILLS``)."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sdg_fakes import Job, write_corpus

NUM_KILLS = int(os.environ.get("FAULT_KILLS", "5"))


@pytest.fixture(scope="session")
def num_kills() -> int:
    """How many times to kill."""
    return NUM_KILLS


@pytest.fixture(scope="session")
def forked() -> Callable[..., Any]:
    """Run a function of ``processes.py`` in a fresh interpreter, where it may fork, and return what it returns."""

    def call(function: str, **arguments: Any) -> Any:
        program = Path(__file__).with_name("processes.py")
        given = json.dumps(arguments, default=str)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, str(program), function, given], capture_output=True, text=True, env=environment
        )
        sys.stderr.write(done.stderr)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return call


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("faults") / "corpus", 100)


@pytest.fixture(scope="session")
def whole(corpus: Path) -> Path:
    """Return the artifact of a run that nobody disturbed."""
    return Path(Job(corpus.parent, corpus)("whole").root)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("faults")
