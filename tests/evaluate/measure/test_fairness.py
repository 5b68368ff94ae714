"""What may stand in one figure: equal measurements of equally trained systems, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
from measuring import INPUTS, write_config

from sclmkb.common.artifacts.files import write_json
from sclmkb.common.errors import UserError
from sclmkb.common.link.sources import LinkSettings
from sclmkb.common.models.transceiver import TransceiverSettings
from sclmkb.common.tasks.trained import JsccSettings
from sclmkb.evaluate.measure.fairness import conditions_table, shared_conditions
from sclmkb.evaluate.measure.record import read_measurement
from sclmkb.evaluate.measure.settings import RunSettings
from sclmkb.evaluate.separate.sscc import SsccSettings


def write_run(root: Path, *systems: JsccSettings, seeds: tuple[int, ...] = (0, 1, 2), **more: Any) -> Path:
    """Write the configuration of ``sclmkb-eval run``, or of ``sclmkb-eval sscc`` for a system without a link."""
    folders = {name: more.pop(name) for name in ("kind", "inputs", "trained_on") if name in more}
    folders["trained_on"] = {**folders.get("trained_on", INPUTS), "encoder": "e0"}
    measured = (SsccSettings if folders.get("kind") == "sscc" else RunSettings)(**more).fingerprint_fields()
    trained = [{**system.model_dump(mode="json"), "seed": seed} for system in systems for seed in seeds]
    return write_config(root, trained, settings=measured, **folders)


FULL = JsccSettings()
STALE = JsccSettings(system="deepsc-mimo", csi_source="stale", with_sdg=False, threads=3)
FED_BACK = JsccSettings(system="fed-back", csi_source="feedback", link=LinkSettings(feedback_bits=64))
ALONE = JsccSettings(system="no-link", csi_source="perfect", link=LinkSettings(channel="none"))


def conditions(*folders: Path) -> dict[str, str]:
    return shared_conditions([read_measurement(folder) for folder in folders])


def refusal(*folders: Path) -> str:
    with pytest.raises(UserError) as error:
        conditions(*folders)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_equal_systems_share_every_condition_and_all_are_in_the_table(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / "a", FULL, STALE),
        write_run(tmp_path / "b", FED_BACK),
        write_run(tmp_path / "sscc", ALONE, kind="sscc", link=LinkSettings(feedback_bits=64)),
    ]
    values = conditions(*folders)
    assert values["seeds of training"] == "0 1 2"
    assert values["complex symbols per caption"] == "4 streams × 16 channel uses = 64"
    assert values["CSI that is fed back"] == "64 bits per report, 1 steps old"
    assert values["CSI artifact"] == "h0"
    text = conditions_table(values, "people").to_markdown()
    for name, value in values.items():
        assert name.partition(".")[0] in text
        assert value in text
    left_out = {*JsccSettings.marked("of_a_system"), *JsccSettings.marked("speed_only"), "link", "task"}
    assert {"system", "seed", "fusion", "save_every", "threads"} < left_out
    for name in set(JsccSettings.model_fields) - left_out:
        assert f"training: {name} " in text


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 5}, "seed of drops and noise is 5 in {odd} (deepsc-mimo seed 0) and 0 in {a} (sc-lmkb seed 0)"),
        ({"snrs_db": (0.0, 15.0)}, "SNRs [dB] is 0 15 in {odd}"),
        ({"receivers": ("literal",)}, "receivers is literal in {odd}"),
        ({"steps": (0,)}, "future steps is 0 in {odd}"),
        ({"inputs": {"corpus": "c1", "csi": "h0"}}, "corpus is c1 in {odd}"),
        ({"inputs": {"corpus": "c0", "csi": "h1"}}, "CSI artifact is h1 in {odd}"),
        ({"trained_on": {"corpus": "c0", "csi": "h1"}}, "training: csi is h1 in {odd}"),
        ({"link": LinkSettings(power="water_filling")}, "power is total 1 per channel use, water filling over streams"),
        ({"link": LinkSettings(channel="rayleigh")}, "channel is rayleigh"),
        ({"training": {"num_steps": 7}}, "training: num_steps is 7 in {odd}"),
        ({"training": {"learning_rate": 1e-3}}, "training: learning_rate is 0.001"),
        ({"training": {"max_snr_db": 30.0}}, "training: max_snr_db is 30"),
        ({"training": {"receiver": "dmrs"}}, "training: receiver is dmrs"),
        ({"training": {"task": "caption"}}, "training: task is caption"),
        ({"training": {"model": TransceiverSettings(embedding_width=64)}}, "training: model.embedding_width is 64"),
        ({"training": {"model": TransceiverSettings(num_uses=8)}}, "4 streams × 8 channel uses = 32"),
        ({"training": {"model": TransceiverSettings(dmrs_pilot_boost_db=3)}}, "pilots of receiver dmrs is +3 dB"),
        ({"training": {"link": LinkSettings(channel="rician")}}, "channel is rician"),
        (
            {"training": {"link": LinkSettings(feedback_bits=32), "csi_source": "feedback"}},
            "CSI that is fed back is 32 bits",
        ),
    ],
)
def test_what_is_unequal_is_named(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    measured = dict(changed)
    system = STALE.model_copy(update=measured.pop("training", {}))
    a, more = write_run(tmp_path / "a", FULL, FED_BACK), write_run(tmp_path / "more", FED_BACK, ALONE)
    odd = write_run(tmp_path / "odd", system, **measured)
    line = refusal(a, more, odd)
    assert named.format(a=a, odd=odd) in line
    assert f"leave {odd} (deepsc-mimo seed 0) out" in line


def test_systems_of_one_folder_must_be_equal_too(tmp_path: Path) -> None:
    assert "num_steps is 7" in refusal(write_run(tmp_path, FULL, STALE.model_copy(update={"num_steps": 7})))


def test_a_system_without_a_link_is_held_to_the_rest_alone(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "a", FULL), write_run(tmp_path / "b", ALONE, inputs={"corpus": "c0"})]
    conditions(*folders)
    other = ALONE.model_copy(update={"captions_per_step": 256})
    assert "captions_per_step is 256" in refusal(folders[0], write_run(tmp_path / "c", other))


def test_sscc_is_held_to_its_own_link(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "a", FULL, FED_BACK)]
    own = {"kind": "sscc", "link": LinkSettings(power="water_filling", feedback_bits=64)}
    assert "water filling" in refusal(*folders, write_run(tmp_path / "b", ALONE, **own))
    own = {"kind": "sscc", "link": LinkSettings(feedback_bits=512)}
    assert "CSI that is fed back is 512 bits" in refusal(*folders, write_run(tmp_path / "c", ALONE, **own))
    conditions(*folders, write_run(tmp_path / "d", ALONE, **own, csi_source="perfect"))


def test_the_system_with_other_seeds_is_named(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "a", FULL, STALE), write_run(tmp_path / "b", FED_BACK, seeds=(0, 1))]
    assert "fed-back has seeds 0 1 and sc-lmkb has 0 1 2" in refusal(*folders)
    rest = write_run(tmp_path / "c", FED_BACK, seeds=(2,))  # a system may lie in several folders
    assert conditions(*folders, rest)["seeds of training"] == "0 1 2"
    assert "SSCC in" in refusal(folders[0], write_run(tmp_path / "d", ALONE, kind="sscc", seeds=(0,)))


def test_what_is_no_measurement_is_refused(tmp_path: Path) -> None:
    assert "nowhere holds no measurement of sclmkb-eval run or sclmkb-eval sscc" in refusal(tmp_path / "nowhere")
    write_json(tmp_path / "old" / "config.json", {"kind": "eval", "settings": {}})
    assert "another version" in refusal(tmp_path / "old")


def test_systems_of_a_seed_share_a_kept_media_encoder_or_have_none(tmp_path: Path) -> None:
    kept = [{**INPUTS, "media_from": f"m{seed}"} for seed in (0, 1)]
    ours = [write_run(tmp_path / f"a{i}", FULL, seeds=(i,), trained_on=kept[i]) for i in (0, 1)]
    same = [write_run(tmp_path / f"b{i}", STALE, seeds=(i,), trained_on=kept[i]) for i in (0, 1)]
    values = conditions(*ours, *same)
    assert [values[f"training: media encoder of seed {i}"] for i in (0, 1)] == ["m0", "m1"]
    own = write_run(tmp_path / "own", STALE, seeds=(1,))
    assert "media encoder of seed 1 is the system's own in" in refusal(*ours, same[0], own)
    swapped = write_run(tmp_path / "swapped", STALE, seeds=(1,), trained_on=kept[0])
    assert "media encoder of seed 1 is m" in refusal(*ours, same[0], swapped)
