"""The page: says what was measured and nothing else, escapes what a language model wrote, stands alone."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from measuring import transceiver, write_measurement

from sclmkb.common.artifacts import schemas
from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.files import read_json, write_json
from sclmkb.common.artifacts.plan import Plan, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.errors import UserError
from sclmkb.common.tasks.trained import JsccSettings, Trained
from sclmkb.evaluate.report.page import ReportSettings, make_report
from sclmkb.evaluate.report.paper import PaperFigure, PaperSection
from sclmkb.evaluate.report.recipes import system_recipes
from sclmkb.evaluate.tables import Table
from sclmkb.train.semantic.fit import settings_for_system

MAP = {"sc-lmkb": 0.4, "without-cdg": 0.3, "without-sdg": 0.41, "without-both": 0.4, "perfect-csi": 0.45}
HOSTILE = "<script>alert('x')</script> & a <b>hat</b>"


def write_evaluation(folder: Path, corpus: Artifact, kind: str = "pictures") -> Path:
    """Write a measurement of two seeds of each system, and what one caption finds."""
    sources = {system: "predicted" if system in ("sc-lmkb", "without-sdg") else "stale" for system in MAP}

    def ap(at: dict[str, Any]) -> list[float]:  # without-both is above and below sc-lmkb in turn
        in_turn = 0.02 * (-1) ** at["seed"] if at["system"] == "without-both" else 0.0
        return [MAP[at["system"]] + 0.001 * at["seed"] + in_turn] * 10

    model = transceiver(kind).model_dump(mode="json")
    write_measurement(
        folder, MAP, ap, snrs_db=(0.0, 15.0), receivers=("literal", "dmrs"), wordings=("label", "sentence"),
        sources=sources, trained={"model": model}, inputs={"corpus": corpus.fingerprint},
    )  # fmt: skip
    retrieval = {
        "text": HOSTILE,
        "wording": "sentence",
        "system": "sc-lmkb",
        "seed": 0,
        "snr_db": 15.0,
        "receiver": "literal",
        "item_ids": corpus.table("items", "test").column("item_id").to_pylist()[:5],
        "hits": [True, False, False, False, True],
    }
    pq.write_table(pa.Table.from_pylist([retrieval]), folder / "retrievals.parquet")
    return folder


def write_sdg(folder: Path) -> Path:
    attempt = {
        "row_id": "r", "split": "train", "attempt": 0, "retry": 0, "finish_reason": "stop", "num_tokens": 9, "seed": 1
    }  # fmt: skip
    kept = {"sample": 0, "text": HOSTILE, "similarity": 0.9, "margin": 0.1, "accepted": True, "reason": ""}
    rejected = {"sample": 1, "text": "somebody else", "similarity": 0.4, "margin": -0.3, "accepted": False}
    row = {
        "row_id": "r", "identity": "i", "split": "train", "source_text": "a person & a hat", "state": "ok",
        "num_attempts": 1, "num_samples": 2, "captions": [HOSTILE], "similarities": [0.9], "error": "",
    }  # fmt: skip
    rows = {"rows": [row], "attempts": [attempt | kept, attempt | rejected | {"reason": "low similarity"}]}
    of = {"rows": schemas.SDG_ROWS, "attempts": schemas.SDG_ATTEMPTS}
    settings, shards = {"filter": {"min_similarity": 0.8}}, make_shards("train", ["r"], 10)
    run = Run.open(folder, Plan(kind="sdg", tables=of, settings=settings, shards=shards, inputs={}))
    tables = {name: pa.Table.from_pylist(rows[name], schema=schema) for name, schema in of.items()}
    run.commit_shard(run.pending()[0], tables, counts={"ok": 1}, figures={"tokens": 88}, seconds=4.0)
    run.finish("tiny", "")
    return folder


def write_calibration(folder: Path) -> Path:
    folder.mkdir()
    found = {
        "filter": {"encoder": "minilm", "min_similarity": 0.75, "min_margin": -0.05},
        "num_pairs": {"negation": 40},
        "auc": {"similarity": 0.81, "whole filter": 0.94},
        "auc_by_kind": {"negation": {"similarity": 0.62, "whole filter": 0.97}},
        "held_out": {"precision": 0.9, "recall": 0.88, "accepted_by_kind": {"negation": 0.25}},
    }
    (folder / "calibration.json").write_text(json.dumps(found))
    (folder / "roc.svg").write_text('<?xml version="1.0"?>\n<svg id="roc"></svg>')
    return folder


@pytest.fixture
def folders(tmp_path: Path, make_tiny: Callable[[str], Any]) -> dict[str, Path]:
    tiny = make_tiny("tiny")
    tiny.write_corpus()
    tiny.write_predicted()
    return {
        "corpus": tiny.corpus,
        "predicted": tiny.predicted,
        "sdg": write_sdg(tmp_path / "sdg"),
        "evaluation": write_evaluation(tmp_path / "eval", Artifact.open(tiny.corpus, "corpus")),
        "calibration": write_calibration(tmp_path / "calibration"),
        "out": tmp_path / "report.html",
    }


def page(folders: dict[str, Any], **changes: Any) -> str:
    arguments = {**folders, **changes}
    make_report(arguments.pop("settings", ReportSettings()), **arguments)
    return Path(arguments["out"]).read_text("utf-8")


def section(text: str, name: str) -> str:
    """Return a section of a page, by the id of its heading."""
    found = text.split(f'<h2 id="{name}">')[1]
    return found.split("<h2")[0]


def cells(text: str) -> list[list[str]]:
    """Return the cells of all tables of a text, without markup."""
    rows = re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
    return [[re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)] for row in rows]


def test_gains_and_losses_are_named_as_measured(folders: dict[str, Any]) -> None:
    table = section(page(folders), "found").split("</table>")[0]
    lines = [" ".join(re.sub("<[^>]*>", " ", row).split()) for row in table.split("<tr>")[2:]]
    literal_same = {line.split("+")[0].split("-0")[0].strip(): line for line in lines}
    assert "+0.100 ± 0.036 gain" in literal_same["predicted instead of stale CSI (CDG)"]
    # Seeds of systems with predicted CSI scatter little here, those of the others much.
    assert "-0.010 ± 0.003 loss" in literal_same["generated captions (SDG)"]
    assert "+0.000 ± 0.036 no clear difference" in literal_same["both together"]
    assert "-0.050 ± 0.036 loss" in literal_same["predicted instead of perfect CSI"]
    assert [len(re.findall("±", line)) for line in lines] == [4, 4, 4, 4]


def test_the_page_shows_what_was_measured_and_escapes_what_a_model_wrote(folders: dict[str, Any]) -> None:
    text = page(folders)
    assert "threshold 0.8" in text
    assert "error of the detected symbols (literal receiver)" in text
    assert "low similarity" in text
    assert text.count("data:image/png;base64,") == 5
    assert text.count('class="hit"') == 2
    assert section(text, "configurations").count("<summary>") == 4
    assert f"{10 * math.log10(0.5):.1f} dB" in text
    assert "<script>" not in text
    assert "<b>hat</b>" not in text
    assert text.count("&lt;script&gt;") >= 2, "in the examples and in the retrieval"
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r'(?:src|href)="(?!#|data:)', re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL))
    assert text.count("<figure") == text.count('<div class="paper"><svg')
    figure = folders["out"].with_suffix(".svg").read_text("utf-8")  # the main one also stands beside the page
    assert figure.startswith("<svg")
    assert all(text in figure for text in ("captions worded as in training", "captions worded otherwise", "SNR [dB]"))


@pytest.mark.parametrize("kind", ["motion", "audio"])
def test_the_page_shows_motion_and_sound(
    folders: dict[str, Any], write_items: Callable[[str], Any], tmp_path: Path, one_text_encoder: None, kind: str
) -> None:
    corpus = write_items(kind).corpus
    evaluation = write_evaluation(tmp_path / f"eval-{kind}", Artifact.open(corpus, "corpus"), kind)
    text = page(folders, evaluation=evaluation, corpus=corpus)
    assert text.count("data:image/png;base64,") == 5
    assert 'alt="thing-0, draw"' in text


def test_the_page_shows_the_calibration_of_the_filter(folders: dict[str, Any]) -> None:
    shown = section(page(folders), "calibration")
    assert '<svg id="roc"></svg>' in shown
    assert "<?xml" not in shown
    assert "precision 0.900 and recall 0.880" in " ".join(shown.split())
    rows = [re.sub("<[^>]*>", " ", row).split() for row in shown.split("</table>")[0].split("<tr>")[2:]]
    assert rows == [["all", "corruptions", "0.810", "0.940"], ["negation", "0.620", "0.970", "25", "%", "40"]]


@pytest.mark.parametrize(
    ("named", "shown"),
    [
        (("sdg",), {"captions"}),
        (("evaluation", "corpus", "calibration"), {"found", "curves", "systems", "examples", "calibration"}),
        (("predicted",), {"channel"}),
    ],
)
def test_parts_that_are_not_named_are_left_out(
    folders: dict[str, Any], named: tuple[str, ...], shown: set[str]
) -> None:
    text = page({name: folders[name] for name in (*named, "out")})
    always = {"costs", "hashes", "configurations", "recipes"}
    assert set(re.findall(r'<h2 id="(\w+)">', text)) - always == shown


@pytest.mark.parametrize(
    ("named", "changed", "mend"),
    [
        ((), {}, "nothing to report: name --eval"),
        (("evaluation",), {}, "--corpus"),
        ((), {"calibration": Path("nowhere")}, "no calibration.json"),
        (("corpus",), {"evaluation": Path("nowhere")}, "holds no measurement of sclmkb-eval run"),
        (
            ("evaluation", "corpus"),
            {"settings": ReportSettings(reference_snr_db=7.0)},
            r"measured at 7\.0 dB, only at \[0\.0, 15\.0\]",
        ),
    ],
)
def test_a_page_that_cannot_be_made_is_one_clear_line(
    folders: dict[str, Any], named: tuple[str, ...], changed: dict[str, Any], mend: str
) -> None:
    with pytest.raises(UserError, match=mend):
        page({name: folders[name] for name in (*named, "out")}, **changed)
    assert not folders["out"].exists()


def paper_section() -> PaperSection:
    claims = [
        ["over DeepSC-MIMO", "+24.9", "+20.1 ± 3.0", "holds"],
        ["over Csi-LLM", "+65.6", "-1.0 ± 3.0", "does not hold: no clear gain"],
        ["over LLM4CP", "+21.5", "–", "not measured: no checkpoint"],
        [HOSTILE, "+21.5", "+5.0 ± 2.0", "partly"],
    ]
    return PaperSection(
        claims=[Table(title="mAP at 25 dB", columns=["gain", "paper [%]", "ours [%]", "verdict"], rows=claims)],
        figures=[PaperFigure(name="Figure 6.", caption=HOSTILE, svg='<svg width="515pt" height="170pt"></svg>')],
        conditions=[Table(title="Fairness", columns=["system", "symbols"], rows=[["SC-LMKB", "8"]])],
        costs=Table(title="Cells", columns=["cell", "seconds"], rows=[["train-1", "31"]]),
        commands=[("train-1", f"sclmkb-train jscc --out '{HOSTILE}'")],
        notes=[HOSTILE],
    )


def test_the_papers_part_stands_alone_and_is_escaped(tmp_path: Path) -> None:
    text = page({"out": tmp_path / "page.html", "paper": paper_section()})
    claims = section(text, "claims")
    tones = dict(re.findall(r'<td class="(\w*)"[^>]*data-name="verdict">(holds|does not|not measured|partly)', claims))
    assert tones == {"good": "holds", "bad": "does not", "quiet": "not measured", "mixed": "partly"}
    assert cells(claims)[2] == ["over Csi-LLM", "+65.6", "-1.0 ± 3.0", "does not hold: no clear gain"]
    assert '<figure class="wide"><div class="paper"><svg' in section(text, "figures")
    assert cells(section(text, "costs")) == [["cell", "seconds"], ["train-1", "31"]]
    assert "sclmkb-train jscc" in section(text, "recipes")
    assert "<script>" not in text
    assert text.count("&lt;script&gt;") == 4
    assert re.findall(r'<h2 id="(\w+)">', text) == ["claims", "figures", "conditions", "costs", "recipes"]


def test_the_contents_name_every_section_in_the_order_of_the_page(folders: dict[str, Any]) -> None:
    text = page(folders, paper=paper_section())
    headings = re.findall(r'<h2 id="(\w+)">', text)
    assert headings == re.findall(r'<li><a href="#(\w+)">', text)
    order = ["claims", "figures", "found", "curves", "captions", "calibration", "channel", "examples", "costs"]
    assert [name for name in headings if name in order] == order
    assert headings[-3:] == ["hashes", "configurations", "recipes"]


def test_examples_stand_by_snr(folders: dict[str, Any]) -> None:
    path = folders["evaluation"] / "retrievals.parquet"
    (kept,) = pq.read_table(path).to_pylist()
    rows = [{**kept, "snr_db": snr_db, "system": system} for snr_db in (15.0, -10.0, 0.0)
            for system in ("perfect-csi", "sc-lmkb")]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), path)
    shown = section(page(folders), "examples")
    assert "literal receiver, -10, 0 and 15 dB" in shown
    assert re.findall(r"<h4>(.*?)</h4>", shown) == ["-10 dB", "0 dB", "15 dB"]
    assert re.findall(r'class="name">(.*?)<', shown) == ["SC-LMKB", "perfect CSI"] * 3


def change_checkpoints(evaluation: Path) -> list[dict[str, Any]]:
    """Give a measurement two seeds of a system and one of another, and return what it says of them."""
    path = evaluation / "config.json"
    config = read_json(path)
    config["checkpoints"] = []
    for system, seed in (("sc-lmkb", 0), ("sc-lmkb", 1), ("without-both", 0)):
        settings = JsccSettings(**settings_for_system(system, None, None), seed=seed, num_steps=7, threads=1)
        inputs = {**config["inputs"], "csi": "c", **({"sdg": "s", "predicted": "p"} if system == "sc-lmkb" else {})}
        record = {"folder": f"jscc/{system}/{seed}", "settings": settings.model_dump(mode="json"), "inputs": inputs}
        record["measured"] = {"val_map": 0.25, "step": 5}
        config["checkpoints"].append({**record, **({"seconds": 2.0} if system == "sc-lmkb" else {})})
        (evaluation / "work" / f"{system}-{seed}-{seed}badc0ffee").mkdir(parents=True)
    write_json(path, config)
    return config["checkpoints"]


def test_costs_and_hashes_are_those_of_the_files(folders: dict[str, Any]) -> None:
    corpus = Artifact.open(folders["corpus"], "corpus")
    change_checkpoints(folders["evaluation"])
    text = page(folders)
    costs = {row[0]: row[1:] for row in cells(section(text, "costs"))}
    assert costs["generated captions"] == ["1 rows", "4", "88", "22"]
    assert costs["SC-LMKB, training"] == ["2 seeds of 7 steps", "4", "–", "–"]
    assert costs["without both, training"] == ["1 seed of 7 steps", "not recorded", "–", "–"]
    hashes = {row[0]: row[1:] for row in cells(section(text, "hashes"))}
    assert hashes["corpus"][1:4] == [corpus.fingerprint, corpus.plan.fingerprint, "yes"]
    assert hashes["generated captions"][3] == "no: s"
    assert hashes["SC-LMKB"][:4] == ["1", "1badc0ffee", "0.250", "5"]
    assert f"All were trained on corpus {corpus.fingerprint}, csi c." in section(text, "hashes")


def test_the_recipes_train_what_was_measured(folders: dict[str, Any], tmp_path: Path) -> None:
    checkpoints = change_checkpoints(folders["evaluation"])
    for recipe in system_recipes([Trained.read(one) for one in checkpoints]):
        path = tmp_path / recipe.file
        path.write_text(recipe.settings)
        system = path.stem
        of = [one for one in checkpoints if one["settings"]["system"] == system]
        assert len(recipe.commands) == len(of)
        for command, one in zip(recipe.commands, of, strict=True):
            assert command.startswith(f"sclmkb-train jscc --config {recipe.file} --system {system} --csi-source ")
            assert ("--sdg SDG" in command) == one["settings"]["with_sdg"]
            assert f"--seed {one['settings']['seed']} --out {one['folder']}" in command
            options = {**settings_for_system(system, None, None), "seed": one["settings"]["seed"]}
            again = JsccSettings.resolve(presets="sclmkb.train", section="jscc", config=path, options=options)
            assert again.model_dump(mode="json") == one["settings"]
