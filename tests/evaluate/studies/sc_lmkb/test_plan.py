"""The plan of the paper's study: which cells there are, what another setting changes."""

from pathlib import Path

import pytest

from sclmkb.common.errors import UserError
from sclmkb.evaluate.studies.sc_lmkb.plan import SWEPT, csi_name, make_study
from sclmkb.evaluate.studies.sc_lmkb.settings import SYSTEMS, CorpusSettings, PaperSettings


def settings(**more: object) -> PaperSettings:
    people = CorpusSettings(title="people", task="person", reader="people-emoji", preset="demo", ablation=True)
    sounds = CorpusSettings(title="sounds", task="sound", reader="esc10", root="esc10", preset="esc10")
    return PaperSettings.model_validate({"corpora": {"people": people, "sounds": sounds}, **more})


def test_the_plan_holds_every_figure_and_asks_for_each_folder_that_it_reads(tmp_path: Path) -> None:
    (tmp_path / "data" / "esc10").mkdir(parents=True)
    made = make_study(settings(swept_bits=(64, 512)), tmp_path / "out", tmp_path / "data")
    trained, zero_shot, swept = csi_name("umi-los", 512), csi_name("uma-nlos", 512), csi_name("umi-los", 64)
    for system in SYSTEMS:
        assert f"people/eval/{trained}/{system}" in made.cells
    for system in (*SWEPT, "sscc"):
        assert f"people/eval/{zero_shot}/{system}" in made.cells
        assert f"people/eval/{swept}/{system}" in made.cells
        assert f"sounds/eval/{trained}/{system}" in made.cells
    assert "sounds/jscc/random-backbone/seed-0" not in made.cells
    seen: set[str] = set()
    for name, one in made.cells.items():
        assert seen.issuperset(one.needs), f"{name} comes before what it needs"
        read = [Path(w) for w in one.command if w.startswith(str(tmp_path / "out")) and Path(w) != one.out]
        needed = [made.cells[need].out for need in one.needs]
        for folder in read:  # a folder of several cells stands for all of them
            assert any(n == folder or n.is_relative_to(folder) for n in needed), f"{name} reads {folder}"
        seen.add(name)


def test_another_snr_or_seed_changes_the_cells_that_it_concerns_alone(tmp_path: Path) -> None:
    def keys(**more: object) -> dict[str, str]:
        return make_study(settings(**more), tmp_path, None).keys()

    first, more_snrs, more_seeds = keys(snrs_db=(0, 15)), keys(snrs_db=(0, 5, 15)), keys(snrs_db=(0, 15), seeds=(0, 3))
    changed = {name for name, key in first.items() if more_snrs[name] != key}
    assert changed
    assert all("/eval/" in name for name in changed)
    assert all(first[name] == key for name, key in more_seeds.items() if "/jscc/" in name and name.endswith("seed-0"))


def test_what_is_not_there_is_left_out_with_a_reason_and_nothing_left_is_an_error(tmp_path: Path) -> None:
    made = make_study(settings(), tmp_path, None)
    assert list(made.missing) == ["sounds"]
    assert "--data" in made.missing["sounds"]
    assert not any(name.startswith("sounds/") for name in made.cells)
    sounds = settings().corpora["sounds"]
    with pytest.raises(UserError, match=r"no corpus is left .* no folder .*esc10"):
        make_study(PaperSettings(corpora={"sounds": sounds}), tmp_path, tmp_path)


def test_unknown_systems_and_a_study_without_the_main_one_are_refused() -> None:
    with pytest.raises(ValueError, match="'deepsc' is unknown"):
        settings(systems=("sc-lmkb", "deepsc"))
    with pytest.raises(ValueError, match="name sc-lmkb"):
        settings(systems=("deepsc-mimo",))
