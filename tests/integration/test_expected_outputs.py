"""The outputs of a tiny seeded pipeline, byte for byte: what only moves code must leave them as they are.

The bytes of a machine with another kind of processor or another PyTorch differ in the last digits of floating point
numbers, so there only what no arithmetic has touched is compared: names, shapes, ids, texts and states.

``RECORD_EXPECTED=1 pytest tests/integration/test_expected_outputs.py`` records anew; say in the commit what changed.
Bytes of other machines are dropped then, if more than those changed.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

EXPECTED = Path(__file__).parents[1] / "expected" / "pipeline.json"
RECORD = bool(os.environ.get("RECORD_EXPECTED"))

PIPELINE = """
sclmkb-gen corpus people-emoji --preset tiny --out corpus
sclmkb-gen sdg --preset tiny --corpus corpus --out sdg --set engine=template
sclmkb-gen filter --sdg sdg --out filtered --set filter.min_similarity=0.6
sclmkb-gen csi --preset tiny --scenario umi-los --out csi
sclmkb-gen csi-feedback --csi csi --out feedback --bits 64
sclmkb-train cdg --preset tiny --csi csi --out cdg
sclmkb-gen cdg --preset tiny --csi csi --checkpoint cdg --out predicted
sclmkb-train jscc --preset tiny --system sc-lmkb {data} --csi-source predicted \
  --predicted predicted --sdg sdg --out jscc/sc-lmkb/seed-0
sclmkb-train jscc --preset tiny --system no-link {data} --csi-source perfect \
  --set link.channel=none --out jscc/no-link/seed-0
sclmkb-eval csi --preset tiny --csi csi --checkpoints cdg --out csi-eval
sclmkb-eval run --preset tiny --checkpoints jscc --corpus corpus --csi csi --predicted predicted --out eval
sclmkb-eval sscc --preset tiny --checkpoints jscc --eval eval --corpus corpus --csi csi --out sscc
sclmkb-eval report --preset tiny --eval eval --corpus corpus --sdg sdg --predicted predicted --out report.html
"""


def processor() -> str:
    """Return what floating point bytes depend on."""
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) or [platform.processor()]
    return f"{models[0]}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the pipeline in a process of its own: what other tests did to libraries in this one can reach the bytes."""
    folder = tmp_path_factory.mktemp("expected")
    lines = [line.format(data="--corpus corpus --csi csi") for line in PIPELINE.strip().splitlines()]
    code = f"from commands import must_run\nfor line in {lines!r}: must_run(line)"
    paths = os.pathsep.join([str(Path(__file__).parents[1] / "support"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_outputs_are_those_that_were_recorded(made: Path) -> None:
    found = {"exact": exact_outputs(made), "stable": stable_outputs(made)}
    recorded: dict[str, Any] = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {"exact": {}}
    if RECORD:
        others = recorded["exact"] if recorded.get("stable") == found["stable"] else {}
        recorded = {"exact": {**others, processor(): found["exact"]}, "stable": found["stable"]}
        EXPECTED.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    assert found["stable"] == recorded["stable"]
    if processor() not in recorded["exact"]:
        pytest.skip(f"no bytes were recorded on {processor()}; what no arithmetic touches is as recorded")
    assert found["exact"] == recorded["exact"][processor()]


def outputs(folder: Path) -> list[Path]:
    """Return every table, every file of weights, and the report."""
    kinds = (".parquet", ".safetensors", ".csv", ".md", ".html")
    return sorted(path for path in folder.rglob("*") if path.suffix in kinds and path.is_file())


def exact_outputs(folder: Path) -> dict[str, str]:
    """Return a hash of each output, by name; of the report, of its tables but for what it took."""
    found = {}
    for path in outputs(folder):
        content = path.read_bytes()
        if path.suffix == ".html":
            page = re.sub(r'<h2 id="costs">.*?<h2 ', "<h2 ", content.decode(), flags=re.DOTALL)
            content = "\n".join(re.findall(r"<table.*?</table>", page, re.DOTALL)).encode()
        found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def stable_outputs(folder: Path) -> dict[str, list[str]]:
    """Return hashes of what no arithmetic has touched, by name without the hashes in it."""
    found: dict[str, list[str]] = {}
    for path in outputs(folder):
        name = re.sub(r"-[0-9a-f]{8,12}(?=[./])", "", str(path.relative_to(folder)))
        content: Any = []
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            whole = name.startswith(("corpus/", "csi/", "sdg/", "filtered/"))
            columns = [f.name for f in table.schema if whole and pa.types.is_string(f.type)]
            content = [str(table.schema.remove_metadata()), len(table), table.select(columns).to_pylist()]
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                content = {key: file.get_slice(key).get_shape() for key in sorted(file.keys())}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        found[name] = sorted([*found.get(name, []), digest])
    return found
