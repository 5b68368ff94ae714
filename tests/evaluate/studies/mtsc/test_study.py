"""The study of MTSC: its commands, and what is drawn of made-up items."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from commands import must_run
from measuring import table_rows
from media_corpora import write_pictures, write_questions
from mtsc_items import finish, write_items, write_training

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.texts import questions_of
from sclmkb.common.errors import UserError
from sclmkb.common.studies.cells import Study
from sclmkb.common.tasks.media.trained import MtscSettings
from sclmkb.evaluate.multitask.run import MtscEvalSettings
from sclmkb.evaluate.studies.base import Where
from sclmkb.evaluate.studies.mtsc.figures import draw_average
from sclmkb.evaluate.studies.mtsc.output import write_output
from sclmkb.evaluate.studies.mtsc.plan import plan_mtsc
from sclmkb.evaluate.studies.mtsc.results import read_results
from sclmkb.evaluate.studies.mtsc.settings import SYSTEMS, MtscStudySettings

TASKS = ("answer", "reconstruct")
SETTINGS = MtscStudySettings(systems=("mtsc", "no-lam", "single-answer"))


def test_every_system_is_trained_alike_and_measured_when_its_trainings_are_done(tmp_path: Path) -> None:
    settings = MtscStudySettings(systems=tuple(SYSTEMS), seeds=(3, 4), steps=50, train=("threads=1",))
    cells = plan_mtsc(settings, Where(out=tmp_path)).cells
    corpora = {"corpora/easy-vqa", "corpora/emoji", "corpora/cifar10"}
    for name in SYSTEMS:
        for seed in (3, 4):
            cell = cells[f"mtsc/{name}/seed-{seed}"]
            assert set(cell.needs) == corpora
            assert {"threads=1", *SYSTEMS[name].train} <= set(cell.command)
        evaluation = cells[f"eval/{name}"]
        assert set(evaluation.needs) == {f"mtsc/{name}/seed-3", f"mtsc/{name}/seed-4", *corpora}
        assert "baselines=[]" in evaluation.command
    beside = cells["eval/baselines"]
    assert set(beside.needs) == {"mtsc/mtsc/seed-3", "mtsc/mtsc/seed-4", *corpora}, "it waits for no measurement"
    assert "trained=false" in beside.command
    assert "num_steps=50" in cells["mtsc/mtsc/seed-3"].command
    assert cells["mtsc/single-caption/seed-3"].command.index("caption") > 0
    assert all(cell.cores == 1 for cell in cells.values()), "two side by side on two cores"
    assert {name for name, cell in cells.items() if cell.optional} == corpora


def test_corpora_that_do_not_install_by_themselves_are_read_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data" / "daquar").mkdir(parents=True)
    settings = MtscStudySettings(corpora={"daquar": ("max_x=1",), "cifar10": ()})
    study = plan_mtsc(settings, Where(out=tmp_path / "out", data=tmp_path / "data"))
    assert study.cells["corpora/daquar"].line().startswith(f"sclmkb-gen corpus daquar --root {tmp_path}/data/daquar")
    assert "--root" not in study.cells["corpora/cifar10"].command


@pytest.mark.parametrize("preset", ["mtsc", "mtsc-seeds", "mtsc-pictures", "mtsc-full", "mtsc-gpu"])
def test_commands_of_every_preset_have_settings_that_exist(tmp_path: Path, preset: str) -> None:
    settings = MtscStudySettings.resolve(presets="sclmkb.evaluate", section="mtsc-study", preset=preset)
    cells = plan_mtsc(settings, Where(out=tmp_path, preset=preset)).cells
    for cell in cells.values():
        words = list(cell.command)
        sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        if words[1] == "mtsc":
            kind, package = (MtscSettings, "train") if words[0] == "sclmkb-train" else (MtscEvalSettings, "evaluate")
            kind.resolve(presets=f"sclmkb.{package}", section="mtsc", preset=settings.base, overrides=sets)


@pytest.mark.parametrize("systems", [("no-lam",), ("mtsc", "mtsc"), ("mtsc", "none")])
def test_systems_are_checked(systems: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="systems"):
        MtscStudySettings.resolve(presets="sclmkb.evaluate", section="mtsc-study", options={"systems": systems})


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study that is done: two corpora, three systems, made-up items."""
    made = plan_mtsc(SETTINGS, Where(out=tmp_path / "mtsc"))
    questions = write_questions(made.out / "corpora" / "easy-vqa")
    pictures = write_pictures(made.out / "corpora" / "cifar10")
    samples = {
        "answer": [asked.row_id for asked in questions_of(Artifact.open(questions, "corpus"), "test")],
        "reconstruct": Artifact.open(pictures, "corpus").table("items", "test")["item_id"].to_pylist(),
    }
    for name in SETTINGS.systems:
        tasks = TASKS if name != "single-answer" else ("answer",)
        write_training(finish(made, f"mtsc/{name}/seed-0"), tasks)
        write_items(finish(made, f"eval/{name}"), {name: tasks}, samples)
    write_items(finish(made, "eval/baselines"), {"digital": TASKS}, samples)
    return made


def test_figures_claims_and_one_page_that_stands_alone(study: Study) -> None:
    text = write_output(SETTINGS, study)
    stems = {path.stem for path in (study.out / "figures").iterdir()}
    assert stems == {"figure-5a", "figure-6"}
    for stem in stems:
        for suffix in ("svg", "pdf", "png", "parquet", "csv"):
            assert (study.out / "figures" / f"{stem}.{suffix}").stat().st_size > 0
    points = pq.read_table(study.out / "figures" / "figure-5a.parquet").to_pylist()
    assert {row["system"] for row in points} == {"mtsc", "no-lam", "digital"}, "single tasks stand in a table"
    claims = pq.read_table(study.out / "claims.parquet").to_pylist()
    assert {row["verdict"] for row in claims} >= {"consistent", "undecided", "not measured"}
    page = (study.out / "report.html").read_text("utf-8")
    for words in ("What the pre-trained language model earns", "what color is this?", "sclmkb-train mtsc", "-6 dB"):
        assert words in page, words
    assert "red &lt;b&gt;" in page, "what a model wrote is text"
    assert "data:image/png;base64," in page
    assert not re.search(r'(src|href)="(?!data:|#)', page), "nothing is fetched"
    assert "| MTSC" in text
    assert "DeepJSCC, published" in text
    assert page.count("<svg") == 2


def test_what_is_not_measured_yet_is_left_out(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    (study.out / "eval" / "no-lam" / "items.parquet").unlink()
    assert "no LAM" not in write_output(SETTINGS, study).replace("MTSC less no LAM", "")
    (study.out / "eval" / "mtsc" / "items.parquet").unlink()
    assert write_output(SETTINGS, study) == ""
    assert "nothing is drawn: mtsc is not measured yet" in capsys.readouterr().err


def test_systems_that_were_measured_otherwise_are_refused(study: Study) -> None:
    path = study.out / "eval" / "no-lam" / "config.json"
    path.write_text(path.read_text().replace('"max_samples": 9', '"max_samples": 8'))
    with pytest.raises(UserError, match="no-lam was measured otherwise"):
        write_output(SETTINGS, study)


def test_rates_of_one_model_are_a_figure_over_uses(study: Study) -> None:
    path = study.out / "eval" / "mtsc" / "items.parquet"
    items = pq.read_table(path)
    own = items.filter((pc.field("inputs") == "own") & (pc.field("system") == "mtsc"))
    parts = [items]
    for rate, less, uses in (("fixed-0.5", 0.2, 4.0), ("learned-0.5", 0.005, 4.0), ("learned-0.25", 0.1, 2.0)):
        values = {"rate": [rate] * len(own), "uses": [uses] * len(own)}
        values["value"] = [value - less for value in own["value"].to_pylist()]
        parts.append(pa.table({name: values.get(name, own[name]) for name in items.column_names}, schema=items.schema))
    pq.write_table(pa.concat_tables(parts), path)
    write_output(SETTINGS, study)
    points = {row["system"]: row for row in table_rows(study.out / "figures", "rate-answer")}
    assert points.keys() == {"full", "fixed-0.5", "learned-0.5", "learned-0.25"}
    page = (study.out / "report.html").read_text("utf-8")
    assert "50 % fewer uses change it by -0.005 ± 0.000, above fixed" in page
    assert "75 % fewer uses change it by -0.100 ± 0.000, above no other rate" in page
    claims = [row for row in pq.read_table(study.out / "claims.parquet").to_pylist() if row["figure"] == "4b"]
    assert [row["verdict"] for row in claims] == ["consistent"] * 4, "of two tasks"
    assert "50 % fewer uses" in claims[0]["at"]
    assert "answer: the learned rate is above fixed at equal uses" in page
    assert re.search(r"\| learned-0.5 +\| 4.00 ", (study.out / "tables.md").read_text("utf-8"))


@pytest.mark.long
def test_the_study_runs_from_its_corpora_to_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCLMKB_CACHE", str(tmp_path / "cache"))
    write_questions(tmp_path / "out" / "corpora" / "easy-vqa")
    write_pictures(tmp_path / "out" / "corpora" / "cifar10")
    parts = ["--only", "training", "--only", "evaluation", "--set", "systems=[mtsc, u-deepsc]"]
    small = ["--set", "train=[model.language_model.name=scratch]"]
    study = ["sclmkb-eval", "study", "mtsc", "--preset", "tiny", "--out", tmp_path / "out"]
    done = must_run([*study, *parts, *small])
    assert "mtsc: figures in" in done.err
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    for words in ("Figure 5a.", "Figure 6.", "U-DeepSC", "red"):
        assert words in page
    assert "| majority |" in (tmp_path / "out" / "tables.md").read_text("utf-8"), "baselines are a cell of their own"
    assert done.err.count("$ sclmkb-train mtsc") == 2
    assert must_run([*study, *parts, *small]).err.count("# done") == 5


def test_captions_of_several_kinds_are_averaged(tmp_path: Path) -> None:
    kinds = ("caption", "caption_video")
    samples = {task: [f"{task}{i}" for i in range(20)] for task in kinds}
    results = read_results([write_items(tmp_path, {"mtsc": kinds, "u-deepsc": kinds}, samples)], ["mtsc"]).full
    (drawing,) = draw_average(results, tmp_path / "figures")
    assert drawing.stem.with_suffix(".png").stat().st_size > 5000
    assert "Mean over captions of pictures and captions of clips, AWGN." in drawing.figure.caption
    assert draw_average([of for of in results if of.task == "caption"], tmp_path) == []


def test_budgets_of_rates_are_means_over_the_snrs_that_are_measured(tmp_path: Path) -> None:
    settings = MtscStudySettings(systems=("mtsc", "nested"))
    command = plan_mtsc(settings, Where(out=tmp_path)).cells["eval/nested"].command
    sets = [command[i + 1] for i, word in enumerate(command) if word == "--set"]
    measured = MtscEvalSettings.resolve(presets="sclmkb.evaluate", section="mtsc", preset=settings.base, overrides=sets)
    assert measured.rate_snrs_db == measured.snrs_db
