"""Bad input through the commands themselves: exit code 2, one line that names it, no traceback, nothing written."""

import errno
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sclmkb.common.console import EXIT_USER_ERROR

Folders = dict[str, Path]
MODULES = {"sclmkb-gen": "generate", "sclmkb-train": "train", "sclmkb-eval": "evaluate"}


def run(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    name, *arguments = command.split()
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    main = importlib.import_module(f"sclmkb.{MODULES[name]}.cli").main
    capsys.readouterr()
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    return code, capsys.readouterr().err


def first(folder: Path, pattern: str) -> Path:
    return sorted(folder.glob(pattern))[0]


def drop_shard(tiny: Any) -> None:
    first(tiny.csi, "csi/*.parquet").unlink()


def corrupt_shard(tiny: Any) -> None:
    path = first(tiny.csi, "csi/*.parquet")
    path.write_bytes(path.read_bytes()[:-100])


def other_schema_version(tiny: Any) -> None:
    plan = json.loads((tiny.csi / "plan.json").read_text())
    (tiny.csi / "plan.json").write_text(json.dumps({**plan, "schema_version": "99"}))


def unfinished(tiny: Any) -> None:
    first(tiny.csi, "manifests/*.json").unlink()


def nothing(tiny: Any) -> None:
    pass


JSCC = "sclmkb-train jscc --preset tiny --corpus {corpus} --csi {csi} --csi-source stale --system new --out {out}"
CDG_TRAIN = "sclmkb-train cdg --preset tiny --csi {csi} --out {out}"
CDG_GEN = "sclmkb-gen cdg --preset tiny --set ar_order=2 --csi {csi} --checkpoint {root}/nowhere --out {out}"
SDG = "sclmkb-gen sdg --preset tiny --corpus {corpus} --out {out}"
EVAL = "sclmkb-eval run --preset tiny --checkpoints {root}/nowhere --corpus {corpus} --csi {csi} --out {out}"
READERS_OF_CSI = [
    JSCC,
    CDG_TRAIN,
    "sclmkb-gen cdg --preset tiny --set ar_order=2 --csi {csi} --predictor ar --out {out}",
]

CASES: list[tuple[str, Callable[[Any], None], str]] = [
    *((command, drop_shard, "missing shard file") for command in READERS_OF_CSI),
    *((command, corrupt_shard, "corrupt shard file") for command in READERS_OF_CSI),
    *((command, other_schema_version, "schema version 99") for command in READERS_OF_CSI),
    *((command, unfinished, "is unfinished: shard") for command in READERS_OF_CSI),
    *(
        (command.replace("--preset tiny", "--preset nope"), nothing, "unknown preset 'nope': choose one of")
        for command in (JSCC, CDG_TRAIN, CDG_GEN, SDG, EVAL)
    ),
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


@pytest.mark.parametrize(("command", "spoil", "expected"), CASES)
def test_one_line_and_exit_code_2(
    command: str,
    spoil: Callable[[Any], None],
    expected: str,
    tiny_artifacts: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil(tiny_artifacts)
    folders = {name: getattr(tiny_artifacts, name) for name in ("corpus", "csi", "sdg", "predicted", "root")}
    out = tiny_artifacts.root / "out"
    code, printed = run(command.format(**folders, out=out), capsys, monkeypatch)
    assert code == EXIT_USER_ERROR, printed
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert printed.splitlines()[-1] == errors[0], "the error is the last line and all of it"
    assert expected in errors[0]
    assert "Traceback" not in printed
    assert not [p for p in out.rglob("*") if p.suffix in (".parquet", ".safetensors")]


@pytest.mark.parametrize("column", ["history", "future"])
@pytest.mark.parametrize("command", READERS_OF_CSI)
def test_csi_with_nan(
    command: str, column: str, make_tiny: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = make_tiny("tiny")
    tiny.write_corpus()
    tiny.write_csi(nan_in=column)
    code, printed = run(command.format(corpus=tiny.corpus, csi=tiny.csi, out=tiny.root / "out"), capsys, monkeypatch)
    assert code == EXIT_USER_ERROR, printed
    assert printed.splitlines()[-1].startswith("error: ")
    assert "drop-0" in printed, "the drop is named"


@pytest.mark.parametrize("command", [JSCC, SDG])
def test_empty_corpus(
    command: str, make_tiny: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = make_tiny("tiny")
    tiny.write_corpus(identities=0)
    tiny.write_csi()
    code, printed = run(command.format(corpus=tiny.corpus, csi=tiny.csi, out=tiny.root / "out"), capsys, monkeypatch)
    assert code == EXIT_USER_ERROR, printed
    assert "no train" in printed or "no split 'train'" in printed or "empty" in printed


def test_resumed_with_another_configuration(
    tiny_artifacts: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = JSCC.format(
        corpus=tiny_artifacts.corpus, csi=tiny_artifacts.csi, root=tiny_artifacts.root, out=tiny_artifacts.root / "out"
    )
    assert run(command, capsys, monkeypatch)[0] == 0
    code, printed = run(f"{command} --set num_steps=7", capsys, monkeypatch)
    assert code == EXIT_USER_ERROR
    assert "num_steps: 6 there, 7 now" in printed
    assert run(f"{command} --set num_steps=7 --new-run", capsys, monkeypatch)[0] == 0
    assert (tiny_artifacts.root / "out.old-1").is_dir()


def test_no_space_left(
    tiny_artifacts: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pq.write_table

    def full(table: Any, where: Path, **options: Any) -> None:
        real(table, where, **options)
        raise OSError(errno.ENOSPC, "No space left on device", str(where))

    monkeypatch.setattr(pq, "write_table", full)
    out = tiny_artifacts.root / "out"
    command = f"sclmkb-gen cdg --preset tiny --set ar_order=2 --csi {tiny_artifacts.csi} --predictor ar --out {out}"
    code, printed = run(command, capsys, monkeypatch)
    assert code == EXIT_USER_ERROR
    assert printed.splitlines()[-1].startswith("error: no space left on the device")
    assert not list(out.rglob("*.parquet*"))
    monkeypatch.undo()
    assert run(command, capsys, monkeypatch)[0] == 0, "and it goes on once there is space"
