import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sclmkb.common.artifacts.checkpoints import load_checkpoint
from sclmkb.common.artifacts.files import write_json
from sclmkb.common.errors import UserError
from sclmkb.common.tasks.trained import TrainedSystem
from sclmkb.train import cli
from sclmkb.train.semantic.fit import settings_for_system, train_jscc

pytestmark = pytest.mark.usefixtures("jscc_cache")


def test_the_checkpoint_loads_says_what_it_was_trained_on_and_a_finished_run_stays(
    jscc_settings: Any, jscc_inputs: Any, tmp_path: Path
) -> None:
    chosen = jscc_settings(system="sc-lmkb")
    out = train_jscc(chosen, jscc_inputs(chosen), tmp_path / "out")
    checkpoint = TrainedSystem.load(out).checkpoint
    assert checkpoint.settings["csi_source"] == "predicted"
    assert set(checkpoint.info["inputs"]) == {"corpus", "csi", "sdg", "predicted", "encoder"}
    before = (out / "model.safetensors").stat().st_mtime_ns
    train_jscc(chosen, jscc_inputs(chosen), out)
    assert (out / "model.safetensors").stat().st_mtime_ns == before


def test_a_system_name_says_what_it_uses() -> None:
    assert settings_for_system("without-both", None, None) == {
        "system": "without-both", "csi_source": "stale", "with_sdg": False,
    }  # fmt: skip
    assert settings_for_system("sc-lmkb", "perfect", False)["with_sdg"] is False
    with pytest.raises(UserError, match="say its --csi-source"):
        settings_for_system("mine", None, None)


def fails(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Run the command, expect exit code 2 and return its last line."""
    arguments = ["--preset", "tiny", "--corpus", tiny.corpus, "--csi", tiny.csi, "--sdg", tiny.sdg]
    arguments += ["--predicted", tiny.predicted, "--out", tmp_path / "out", *options]
    with pytest.raises(SystemExit) as exit_:
        run(arguments)
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "".join(lines)
    return lines[-1]


def run(arguments: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["sclmkb-train", *map(str, arguments)])
        cli.main()


def test_plain_command_is_jscc(tiny_artifacts: Any, tmp_path: Path) -> None:
    tiny = tiny_artifacts
    with pytest.raises(SystemExit) as exit_:
        run(["--preset", "tiny", "--corpus", tiny.corpus, "--csi", tiny.csi, "--system", "without-both", "--seed", 3,
             "--out", tmp_path / "out"])  # fmt: skip
    assert exit_.value.code == 0
    saved = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (saved["kind"], saved["settings"]["csi_source"], saved["settings"]["seed"]) == ("jscc", "stale", 3)


def cut_a_shard(tiny: Any) -> None:
    shard = next((tiny.csi / "csi").glob("train-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-100])


def remove_a_shard(tiny: Any) -> None:
    next((tiny.csi / "csi").glob("train-*.parquet")).unlink()


def raise_the_version(tiny: Any) -> None:
    path = tiny.sdg / "plan.json"
    write_json(path, json.loads(path.read_text()) | {"schema_version": "99"})


@pytest.mark.parametrize(
    ("written", "spoil", "message"),
    [
        ({"corpus": {"identities": 0}}, None, "is empty"),
        ({"csi": {"nan_in": "history"}}, None, "drop train-drop-0 is NaN"),
        ({"predicted": {"only": 7}}, None, "lacks predictions for 5 of 12 'train' drops"),
        ({}, cut_a_shard, "corrupt shard file"),
        ({}, remove_a_shard, "missing shard file"),
        ({}, raise_the_version, "schema version 99"),
    ],
)
def test_a_spoiled_knowledge_base_is_one_line(
    make_tiny: Callable[[str], Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    written: dict[str, dict[str, Any]],
    spoil: Callable[[Any], None] | None,
    message: str,
) -> None:
    tiny = make_tiny("tiny")
    for name in ("corpus", "sdg", "csi", "predicted"):
        getattr(tiny, f"write_{name}")(**written.get(name, {}))
    if spoil is not None:
        spoil(tiny)
    assert message in fails(tiny, tmp_path, capsys)


def test_resuming_with_another_configuration_is_refused(
    tiny_artifacts: Any, jscc_settings: Any, jscc_inputs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = jscc_settings()
    train_jscc(chosen, jscc_inputs(chosen), tmp_path / "out")
    line = fails(tiny_artifacts, tmp_path, capsys, "--set", "learning_rate=0.5")
    assert "other settings" in line
    assert "learning_rate" in line


def test_no_space_left_is_one_line(
    tiny_artifacts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "state.safetensors")

    monkeypatch.setattr("sclmkb.train.engine.checkpoint.save_file", full)
    assert "no space left on the device" in fails(tiny_artifacts, tmp_path, capsys)


def test_bad_settings_are_refused(tiny_artifacts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "min_snr_db = 30.0 is above" in fails(tiny_artifacts, tmp_path, capsys, "--set", "min_snr_db=30")
    assert "jscc.csi_source" in fails(tiny_artifacts, tmp_path, capsys, "--csi-source", "wrong")


def test_a_kept_media_encoder_stays_as_it_is_and_its_checkpoint_is_whole(
    jscc_settings: Any, jscc_inputs: Any, tmp_path: Path
) -> None:
    backbone = jscc_settings("link.channel=none", system="backbone", csi_source="perfect", with_sdg=False)
    first = train_jscc(backbone, jscc_inputs(backbone), tmp_path / "backbone")
    chosen = jscc_settings()
    given = replace(jscc_inputs(chosen), media_from=first)
    out = train_jscc(chosen, given, tmp_path / "out")
    kept, own = load_checkpoint(first, "jscc"), load_checkpoint(out, "jscc")
    assert own.part("media.").keys() == kept.part("media.").keys()
    assert all(torch.equal(tensor, kept.tensors[name]) for name, tensor in own.part("media.").items())
    assert own.info["inputs"]["media_from"] == kept.fingerprint("media.") == own.fingerprint("media.")
    assert own.fingerprint("encoder.") != kept.fingerprint("encoder.")
    model = TrainedSystem.of(own).model()
    assert own.part("media.").keys() <= model.state_dict().keys()
    again = train_jscc(chosen, given, tmp_path / "again")
    assert load_checkpoint(again, "jscc").fingerprint() == own.fingerprint(), "what is embedded once is always the same"


def test_a_media_encoder_that_does_not_fit_is_refused(jscc_settings: Any, jscc_inputs: Any, tmp_path: Path) -> None:
    chosen = jscc_settings()
    first = train_jscc(chosen, jscc_inputs(chosen), tmp_path / "first")
    other = jscc_settings("model.embedding_width=24")
    with pytest.raises(UserError, match=r"was trained with model.embedding_width = \d+, this run has 24: set the same"):
        train_jscc(other, replace(jscc_inputs(other), media_from=first), tmp_path / "out")
    with pytest.raises(UserError, match=r"no jscc checkpoint at .*nowhere"):
        train_jscc(other, replace(jscc_inputs(other), media_from=tmp_path / "nowhere"), tmp_path / "out")
