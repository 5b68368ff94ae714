"""Bad input through the commands themselves: exit code 2, one line that names it, no traceback, nothing written."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from commands import must_run, run_command

from sclmkb.common.console import EXIT_USER_ERROR

Spoil = Callable[[Any], object]


def first(folder: Path, pattern: str) -> Path:
    return sorted(folder.glob(pattern))[0]


def corrupt_shard(tiny: Any) -> None:
    path = first(tiny.csi, "csi/*.parquet")
    path.write_bytes(path.read_bytes()[:-100])


def other_schema_version(tiny: Any) -> None:
    plan = json.loads((tiny.csi / "plan.json").read_text())
    (tiny.csi / "plan.json").write_text(json.dumps({**plan, "schema_version": "99"}))


def with_nan(column: str) -> Spoil:
    def spoil(tiny: Any) -> None:
        shutil.rmtree(tiny.csi)
        tiny.write_csi(nan_in=column)

    return spoil


def empty_corpus(tiny: Any) -> None:
    shutil.rmtree(tiny.corpus)
    tiny.write_corpus(identities=0)


def nothing(tiny: Any) -> None:
    pass


JSCC = "sclmkb-train jscc --preset tiny --corpus {corpus} --csi {csi} --csi-source stale --system new --out {out}"
CDG_TRAIN = "sclmkb-train cdg --preset tiny --csi {csi} --out {out}"
CDG_AR = "sclmkb-gen cdg --preset tiny --set ar_order=2 --csi {csi} --predictor ar --out {out}"
CDG_GEN = CDG_AR.replace("--predictor ar", "--checkpoint {root}/nowhere")
SDG = "sclmkb-gen sdg --preset tiny --corpus {corpus} --out {out}"
EVAL = "sclmkb-eval run --preset tiny --checkpoints {root}/nowhere --corpus {corpus} --csi {csi} --out {out}"

OF_CSI: list[tuple[Spoil, str]] = [
    (lambda tiny: first(tiny.csi, "csi/*.parquet").unlink(), "missing shard file"),
    (corrupt_shard, "corrupt shard file"),
    (other_schema_version, "schema version 99"),
    (lambda tiny: first(tiny.csi, "manifests/*.json").unlink(), "is unfinished: shard"),
    (with_nan("history"), "drop-0"),
    (with_nan("future"), "drop-0"),
]
CASES: list[tuple[str, Spoil, str]] = [
    *((command, spoil, expected) for command in (JSCC, CDG_TRAIN, CDG_AR) for spoil, expected in OF_CSI),
    *(
        (command.replace("--preset tiny", "--preset nope"), nothing, "unknown preset 'nope': choose one of")
        for command in (JSCC, CDG_TRAIN, CDG_GEN, SDG, EVAL)
    ),
    *((command, empty_corpus, "train") for command in (JSCC, SDG)),
    (f"{SDG} --model {{root}}/nowhere", nothing, "nowhere"),
    (f"{SDG} --model {{root}}", nothing, "has no config.json"),
    (f"{CDG_TRAIN} --model {{root}}/nowhere", nothing, "nowhere"),
    (CDG_GEN, nothing, "no cdg checkpoint at"),
    (EVAL, nothing, "checkpoint"),
    (JSCC.replace("{corpus}", "{root}/nowhere"), nothing, "no corpus artifact at"),
    (f"{JSCC} --set num_steps=many", nothing, "setting 'jscc.num_steps' = 'many'"),
    (f"{JSCC} --set colour=blue", nothing, "setting 'jscc.colour' does not exist"),
    ("sclmkb-gen csi --scenario moon-los --out {out}", nothing, "moon-los"),
    ("sclmkb-gen corpus people-cartoons --out {out}", nothing, "unknown corpus 'people-cartoons'"),
]


def on(tiny: Any, command: str) -> str:
    """Return a command with the folders of the artifacts."""
    folders = {name: getattr(tiny, name) for name in ("corpus", "csi", "root")}
    return command.format(**folders, out=tiny.root / "out")


@pytest.mark.parametrize(("command", "spoil", "expected"), CASES)
def test_one_line_and_exit_code_2(command: str, spoil: Spoil, expected: str, tiny_artifacts: Any) -> None:
    spoil(tiny_artifacts)
    done = run_command(on(tiny_artifacts, command))
    assert done.code == EXIT_USER_ERROR, done.err
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert done.err.splitlines()[-1] == errors[0], "the error is the last line and all of it"
    assert expected in errors[0]
    assert "Traceback" not in done.err
    assert not [p for p in (tiny_artifacts.root / "out").rglob("*") if p.suffix in (".parquet", ".safetensors")]


def test_resumed_with_another_configuration(tiny_artifacts: Any) -> None:
    command = on(tiny_artifacts, JSCC)
    must_run(command)
    done = run_command(f"{command} --set num_steps=7")
    assert done.code == EXIT_USER_ERROR
    assert "num_steps: 6 there, 7 now" in done.err
    must_run(f"{command} --set num_steps=7 --new-run")
    assert (tiny_artifacts.root / "out.old-1").is_dir()


def test_no_space_left(tiny_artifacts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pq.write_table

    def full(table: Any, where: Path, **options: Any) -> None:
        real(table, where, **options)
        raise OSError(errno.ENOSPC, "No space left on device", str(where))

    monkeypatch.setattr(pq, "write_table", full)
    done = run_command(on(tiny_artifacts, CDG_AR))
    assert done.code == EXIT_USER_ERROR
    assert done.err.splitlines()[-1].startswith("error: no space left on the device")
    assert not list((tiny_artifacts.root / "out").rglob("*.parquet*"))
    monkeypatch.undo()
    must_run(on(tiny_artifacts, CDG_AR))  # it goes on once there is space
