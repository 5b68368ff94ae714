import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sclmkb.common.artifacts import write_json
from sclmkb.common.checkpoints import load_checkpoint
from sclmkb.common.errors import UserError
from sclmkb.common.models.media_encoders import CnnSettings
from sclmkb.common.models.transceiver import Transceiver, TransceiverSettings
from sclmkb.train import cli
from sclmkb.train.jscc import open_inputs, settings_for_system, train_jscc
from sclmkb.train.jscc_task import JsccInputs, JsccSettings, JsccTask

TINY: dict[str, Any] = {"presets": "sclmkb.train", "section": "jscc", "preset": "tiny"}


@pytest.fixture(autouse=True)
def _cache(embedding_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCLMKB_CACHE", str(embedding_cache))


def settings(**options: Any) -> JsccSettings:
    return JsccSettings.resolve(**TINY, options=options)


def inputs(tiny: Any, chosen: JsccSettings) -> JsccInputs:
    return JsccInputs(
        corpus=tiny.corpus,
        csi=tiny.csi,
        sdg=tiny.sdg if chosen.with_sdg else None,
        predicted=tiny.predicted if chosen.csi_source == "predicted" else None,
    )


def task(tiny: Any, chosen: JsccSettings) -> JsccTask:
    given = inputs(tiny, chosen)
    return JsccTask.load(chosen, given, open_inputs(given))


@pytest.mark.parametrize("fusion", ["none", "extra_samples", "average", "cdfc", "mixed"])
def test_training_lowers_the_loss(tiny_artifacts: Any, fusion: str) -> None:
    job = task(tiny_artifacts, settings(fusion=fusion, num_steps=40, learning_rate=0.01))
    losses = [job.train_step(step)["loss"] for step in range(40)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_every_csi_source_and_receiver_trains_and_validates(tiny_artifacts: Any) -> None:
    for source in ("perfect", "stale", "predicted"):
        for receiver in ("literal", "dmrs", "both"):
            job = task(tiny_artifacts, settings(csi_source=source, receiver=receiver))
            assert job.train_step(0)["loss"] > 0
            measured = job.validate()
            assert measured["val_map"] == pytest.approx((measured["val_map_same"] + measured["val_map_changed"]) / 2)


def test_captions_with_a_picture_go_through_both_receivers_and_keep_their_place(
    tiny_artifacts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = task(tiny_artifacts, settings(fusion="none"))
    through: dict[str, list[float]] = {}
    texts = []

    def convey(f: torch.Tensor, link: Any, receiver: str, draw: Any) -> torch.Tensor:
        through[receiver] = link.snr_db.tolist()
        return f

    def decode(detected: torch.Tensor, link: Any) -> torch.Tensor:
        return link.snr_db[:, None].expand(-1, made.settings.model.embedding_width)

    def loss(text: torch.Tensor, *rest: Any) -> torch.Tensor:
        texts.append(text)
        return made.model.pictures.head.bias.sum()

    monkeypatch.setattr(made.model, "convey", convey)
    monkeypatch.setattr(made.model, "decode", decode)
    monkeypatch.setattr("sclmkb.train.jscc_task.contrastive_loss", loss)
    made.train_step(0)
    (text,) = texts
    pictured = set(text[: made.settings.pictures_per_step, 0].tolist())
    assert pictured & set(through["literal"])
    assert pictured & set(through["dmrs"])
    assert [text[0::2, 0].tolist(), text[1::2, 0].tolist()] == [through["literal"], through["dmrs"]]


def test_reduced_precision_is_of_the_networks_alone(tiny_artifacts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        made = task(tiny_artifacts, settings(precision=precision))
        convey, sent = made.model.convey, []

        def spy(f: torch.Tensor, *rest: Any, convey: Any = convey, sent: Any = sent) -> Any:
            assert not torch.is_autocast_enabled("cpu")
            detected = convey(f, *rest)
            sent.extend([f.dtype, detected.symbols.dtype])
            return detected

        monkeypatch.setattr(made.model, "convey", spy)
        losses[precision] = made.train_step(0)["loss"]
        assert sent
        assert set(sent) == {torch.complex64}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


@pytest.mark.parametrize(("found", "fast"), [({"avx512_bf16": True}, True), ({"avx512_f": True}, False), ({}, False)])
def test_precision_auto_asks_the_processor(
    tiny_artifacts: Any, monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    loss, reduced = (task(tiny_artifacts, settings(precision=p)).train_step(0)["loss"] for p in ("auto", "bfloat16"))
    assert (loss == reduced) is fast


def test_without_generated_captions_fusion_changes_nothing(tiny_artifacts: Any) -> None:
    plain = task(tiny_artifacts, settings(with_sdg=False, fusion="none")).train_step(0)
    for fusion in ("cdfc", "mixed", "average", "extra_samples"):
        assert task(tiny_artifacts, settings(with_sdg=False, fusion=fusion)).train_step(0) == plain


def test_cdfc_weights_differ_from_a_half_unless_signed(tiny_artifacts: Any) -> None:
    spread = {
        importance: task(tiny_artifacts, settings(fusion="cdfc", importance=importance)).train_step(0)["weight_spread"]
        for importance in ("signed", "abs", "grad_times_input")
    }
    assert spread["signed"] < 0.01 < 0.05 < min(spread["abs"], spread["grad_times_input"])


def test_a_killed_run_resumes_to_the_same_weights_and_metrics(
    tiny_artifacts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings()
    given = inputs(tiny_artifacts, chosen)
    train_jscc(chosen, given, tmp_path / "whole")
    step_of = JsccTask.train_step

    def killed(self: JsccTask, step: int) -> dict[str, float]:
        if step == 5:
            raise KeyboardInterrupt
        return step_of(self, step)

    monkeypatch.setattr(JsccTask, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train_jscc(chosen, given, tmp_path / "killed")
    monkeypatch.setattr(JsccTask, "train_step", step_of)
    done: list[int] = []
    monkeypatch.setattr(JsccTask, "train_step", lambda self, step: done.append(step) or step_of(self, step))
    train_jscc(chosen, given, tmp_path / "killed")
    assert done == [4, 5]  # saved every two steps
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "killed")]
    assert lines[0] == lines[1]
    assert not (tmp_path / "killed" / "state.safetensors").exists()


def test_the_checkpoint_loads_says_what_it_was_trained_on_and_a_finished_run_stays(
    tiny_artifacts: Any, tmp_path: Path
) -> None:
    chosen = settings(system="sc-lmkb")
    out = train_jscc(chosen, inputs(tiny_artifacts, chosen), tmp_path / "out")
    checkpoint = load_checkpoint(out, "jscc")
    model = Transceiver(TransceiverSettings.model_validate(checkpoint.settings["model"]))
    checkpoint.load_into(model)
    assert checkpoint.settings["csi_source"] == "predicted"
    assert set(checkpoint.info["inputs"]) == {"corpus", "csi", "sdg", "predicted", "encoder"}
    before = (out / "model.safetensors").stat().st_mtime_ns
    train_jscc(chosen, inputs(tiny_artifacts, chosen), out)
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    other = Transceiver(TransceiverSettings(num_streams=4, num_uses=4, media=CnnSettings(widths=(8, 8))))
    with pytest.raises(UserError, match="does not fit the model"):
        checkpoint.load_into(other)


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


def test_an_empty_corpus_is_refused(
    make_tiny: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = make_tiny("tiny")
    tiny.write_corpus(identities=0)
    tiny.write_sdg()
    tiny.write_csi()
    tiny.write_predicted()
    assert "is empty" in fails(tiny, tmp_path, capsys)


def test_missing_and_corrupt_shards_are_refused(
    tiny_artifacts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = next((tiny_artifacts.csi / "csi").glob("train-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-100])
    assert "corrupt shard file" in fails(tiny_artifacts, tmp_path, capsys)
    shard.unlink()
    assert "missing shard file" in fails(tiny_artifacts, tmp_path, capsys)


def test_another_schema_version_is_refused(
    tiny_artifacts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_artifacts.sdg / "plan.json"
    write_json(path, json.loads(path.read_text()) | {"schema_version": "99"})
    assert "schema version 99" in fails(tiny_artifacts, tmp_path, capsys)


@pytest.mark.parametrize("column", ["history", "future"])
def test_csi_with_nan_is_refused(
    make_tiny: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str
) -> None:
    tiny = make_tiny("tiny")
    tiny.write_corpus()
    tiny.write_sdg()
    tiny.write_csi(nan_in=column)
    tiny.write_predicted()
    line = fails(tiny, tmp_path, capsys)
    assert "NaN" in line
    assert "train-drop-0" in line


def test_predictions_that_lack_a_drop_are_refused(
    make_tiny: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = make_tiny("tiny")
    tiny.write_corpus()
    tiny.write_sdg()
    tiny.write_csi()
    tiny.write_predicted(only=7)
    assert "lacks predictions for 5 of 12 'train' drops" in fails(tiny, tmp_path, capsys)


def test_resuming_with_another_configuration_is_refused(
    tiny_artifacts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = settings()
    train_jscc(chosen, inputs(tiny_artifacts, chosen), tmp_path / "out")
    line = fails(tiny_artifacts, tmp_path, capsys, "--set", "learning_rate=0.5")
    assert "other settings" in line
    assert "learning_rate" in line


def test_no_space_left_is_one_line(
    tiny_artifacts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "state.safetensors")

    monkeypatch.setattr("sclmkb.train.checkpoint.save_file", full)
    assert "no space left on the device" in fails(tiny_artifacts, tmp_path, capsys)


def test_bad_settings_are_refused(tiny_artifacts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "min_snr_db = 30.0 is above" in fails(tiny_artifacts, tmp_path, capsys, "--set", "min_snr_db=30")
    assert "jscc.csi_source" in fails(tiny_artifacts, tmp_path, capsys, "--csi-source", "wrong")
