"""What ``sclmkb-eval study mtsc`` draws of its evaluations.

::

    DIR/figures/figure-5a.svg, .pdf, .png, .parquet, .csv    each figure with its numbers; 5b and 6 as well
    DIR/claims.parquet, .csv                                 each claim of the paper, what was measured, the verdict
    DIR/tables.md                                            what is printed
    DIR/commands.sh                                          every command of the study, in an order that works
    DIR/report.html                                          all of it with examples, self-contained
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from sclmkb.common.artifacts.artifact import open_all
from sclmkb.common.artifacts.files import read_json, write_bytes, write_csv, write_parquet
from sclmkb.common.console import say
from sclmkb.common.errors import UserError
from sclmkb.common.studies.cells import Study
from sclmkb.evaluate.report.multitask import PageSection, write_page
from sclmkb.evaluate.studies.costs import study_costs
from sclmkb.evaluate.studies.mtsc.claims import VERDICTS, ClaimTest, claim_tests, claims_table, rate_claims
from sclmkb.evaluate.studies.mtsc.examples import examples_of
from sclmkb.evaluate.studies.mtsc.figures import Drawing, draw_average, draw_figures, draw_rates
from sclmkb.evaluate.studies.mtsc.plan import eval_name, made_corpora
from sclmkb.evaluate.studies.mtsc.results import TaskResults, Training, read_results, read_trainings
from sclmkb.evaluate.studies.mtsc.settings import MAIN, UNTRAINED, MtscStudySettings
from sclmkb.evaluate.studies.mtsc.tables import (
    crossover_table,
    inputs_table,
    pre_training_table,
    published_table,
    rates_table,
    single_table,
    trainings_table,
    values_table,
)
from sclmkb.evaluate.tables import Table

CLAIM_COLUMNS = pa.schema(
    [
        *((name, pa.string()) for name in ("figure", "channel", "claim", "compared", "at", "verdict")),
        *((name, pa.float64()) for name in ("mean", "half_width")),
    ]
)
_TITLE = "MTSC: answers, captions and pictures by one large model, over counted channel uses"


def write_output(settings: MtscStudySettings, study: Study) -> str:
    """Write what there are measurements for, and return the tables as Markdown; nothing without the main system's.

    Raises:
        UserError: if a system was measured otherwise than the main one.
    """
    roots = _measured(settings, study)
    if MAIN not in roots:
        say(f"mtsc: nothing is drawn: {MAIN} is not measured yet ({eval_name(MAIN)})")
        return ""
    read = read_results(list(roots.values()), settings.systems)
    results = read.full
    trainings = read_trainings({name: study.out / "mtsc" / name for name in roots if name != UNTRAINED})
    folder, tests = study.out / "figures", [*claim_tests(results), *rate_claims(read.rates)]
    drawings = [*draw_figures(results, folder), *draw_average(results, folder), *draw_rates(read.rates, folder)]
    _write_claims(tests, study.out)
    channels = list(dict.fromkeys(of.channel for of in results))
    claims = [claims_table(tests, channel) for channel in channels]
    found = _tables(results, trainings)
    values, costs = [values_table(of) for of in results], study_costs(study)
    rates = [rates_table(of) for of in read.rates]
    tables = [*claims, *found.values(), *rates, *values, costs]
    text = "\n".join(table.to_markdown() for table in tables if table.rows)
    write_bytes(study.out / "tables.md", text.encode())
    split = str(read_json(roots[MAIN] / "config.json")["settings"]["split"])
    write_page(
        study.out / "report.html",
        title=_TITLE,
        about=_about(results, settings, split),
        cards=_cards(results, tests),
        sections=[
            _claims_section(claims),
            *_figures(drawings, results, study, list(roots.values()), split),
            *_comparisons(found),
            *([PageSection(name="rates", title="Variable rate", tables=rates)] if rates else []),
            PageSection(name="values", title="Every value", tables=values),
            PageSection(name="costs", title="What it took", tables=[costs]),
            PageSection(
                name="commands", title="Every command", commands=[(c.name, c.line()) for c in study.cells.values()]
            ),
        ],
    )
    study.write_listing()  # last: says what was drawn
    return text


def _measured(settings: MtscStudySettings, study: Study) -> dict[str, Path]:
    """Return the folders of the systems and baselines that were measured, all alike.

    Raises:
        UserError: if one was measured otherwise than the main system.
    """
    cells = {name: study.cells[eval_name(name)] for name in (*settings.systems, UNTRAINED)}
    there = {
        name: cell.out
        for name, cell in cells.items()
        if study.record(cell) is not None and (cell.out / "items.parquet").exists()
    }
    shared = {name: _conditions(root) for name, root in there.items()}
    if odd := [name for name in there if shared[name] != shared.get(MAIN, shared[name])]:
        raise UserError(f"mtsc: {odd[0]} was measured otherwise than {MAIN}: run the study again")
    return there


def _conditions(root: Path) -> tuple[object, ...]:
    config = read_json(root / "config.json")
    settings = (config["settings"][name] for name in ("snrs_db", "channels", "split", "max_samples", "seed"))
    return (config["inputs"], *settings)


def _write_claims(tests: Sequence[ClaimTest], out: Path) -> None:
    rows = [
        {
            **{name: getattr(test, name) for name in ("figure", "channel", "claim", "compared", "verdict")},
            "at": test.where,
            "mean": test.value.mean if test.value else None,
            "half_width": test.value.half_width if test.value else None,
        }
        for test in tests
    ]
    table = pa.Table.from_pylist(rows, schema=CLAIM_COLUMNS)
    write_parquet(out / "claims.parquet", table)
    write_csv(out / "claims.csv", table)


def _tables(results: Sequence[TaskResults], trainings: Mapping[str, Training]) -> dict[str, Table]:
    """Return the comparisons, by the name of their part of the page."""
    main = [of for of in results if of.is_main]
    found = {
        "pre-training": pre_training_table(main, trainings),
        "single": single_table(main),
        "input": inputs_table(main),
        "crossover": crossover_table(main),
    }
    for of in main:
        if (of.task, of.channel) == ("reconstruct", "awgn"):
            found["published"] = published_table(of)
    return {**found, "systems": trainings_table(trainings)}


def _comparisons(found: Mapping[str, Table]) -> list[PageSection]:
    return [PageSection(name=name, title=table.title, tables=[_untitled(table)]) for name, table in found.items()]


def _untitled(table: Table) -> Table:
    return Table(title="", columns=table.columns, rows=table.rows, note=table.note)


def _claims_section(claims: Sequence[Table]) -> PageSection:
    return PageSection(
        name="claims",
        title="The paper's claims",
        text="The paper gives curves and no numbers, so its claims are relative. They were made for other models and"
        " corpora: a verdict says whether the effect shows here.",
        tables=claims,
        verdicts=True,
        notes=[
            "Baseline 1 sends the picture in as many uses as every other system has. Where none fits into them, its"
            " receiver answers from the question alone, and the digital link that sends the text is the rival.",
        ],
    )


def _figures(
    drawings: Sequence[Drawing], results: Sequence[TaskResults], study: Study, roots: Sequence[Path], split: str
) -> list[PageSection]:
    """Return the figures, and examples of each task."""
    corpora = open_all([made_corpora(study.out)], "corpus")
    titles = {
        "reconstruct": "Pictures that arrive",
        "answer": "Questions and answers",
        "caption": "Captions of pictures",
        "caption_video": "Captions of clips",
    }
    sections = [PageSection(name="figures", title="The paper's figures", figures=[one.figure for one in drawings])]
    for task in [task for task in titles if any(of.task == task for of in results)]:
        sections.append(
            PageSection(
                name=f"examples-{task}",
                title=titles[task],
                text=f"Samples of split {split}, evenly spread and not chosen by hand; seed and channel are the first.",
                examples=examples_of(task, roots, corpora, split),
            )
        )
    return sections


def _about(results: Sequence[TaskResults], settings: MtscStudySettings, split: str) -> str:
    channels = " and ".join(dict.fromkeys("AWGN" if of.channel == "awgn" else of.channel for of in results))
    sizes = "; ".join(
        f"{of.task}: {len(of.groups)} samples, {of.uses[MAIN]:g} uses"
        for of in results
        if of.is_main and MAIN in of.uses
    )
    seeds = f"{len(settings.seeds)} seed{'s' if len(settings.seeds) > 1 else ''}"
    return (
        f"Every complex use has power 1, and SNR is per complex use. {channels}; {sizes}; {seeds}, split {split}."
        " Every number below was computed from the items of the evaluations."
    )


def _cards(results: Sequence[TaskResults], tests: Sequence[ClaimTest]) -> list[dict[str, str]]:
    """Return the main system's value of each task near 12 dB, and how many claims have which verdict."""
    words = {"answer": "of questions answered right", "reconstruct": "PSNR of pictures"}
    cards, seen = [], set()
    for of in results:
        if of.is_main and of.task not in seen:
            seen.add(of.task)
            snr_db = min(of.snrs_db, key=lambda snr_db: abs(snr_db - 12))
            value = of.at[snr_db].mean(MAIN)
            text = f"{100 * value.mean:.0f} %" if of.task == "answer" else value.text(of.digits)
            text += " dB" if of.task == "reconstruct" else ""
            what = words.get(of.task, f"CIDEr of {of.task}")
            cards.append({"value": text, "label": f"{what} at {snr_db:g} dB, {of.uses[MAIN]:g} uses each"})
    counts = Counter(test.verdict for test in tests)
    others = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS[1:] if counts[verdict])
    label = f"claims of the paper {VERDICTS[0]}" + (f"; {others}" if others else "")
    return [*cards, {"value": f"{counts[VERDICTS[0]]} of {len(tests)}", "label": label}]
