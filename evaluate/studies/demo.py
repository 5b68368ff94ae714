"""The main job, end to end: makes the knowledge base, trains the link, draws the result.

::

    corpus ─► sdg ───────────────────────────────┐
    csi ─► cdg ─► predicted ─── backbone/seed-N ─┴─► jscc/SYSTEM/seed-N ─► eval ─► report.html
"""

from pydantic import Field

from sclmkb.common.config import Settings
from sclmkb.common.options import preset_folder
from sclmkb.common.studies.cells import Planner, Study, sets
from sclmkb.evaluate.studies.base import OFFLINE, StudyKind, Where

PARTS = {
    "corpus": "Corpus: pictures and captions of people",
    "sdg": "SDG: the language model writes more captions, the filter keeps the faithful ones",
    "csi": "CSI: 3GPP channels, noisy history and clean future",
    "cdg": "CDG, training: the same frozen language model learns to predict CSI",
    "predicted": "CDG: predicted CSI",
    "jscc": "JSCC: a retrieval backbone, then five systems that keep it, two seeds each",
    "eval": "Evaluation: mAP and Rank@k over SNR",
    "report": "Report",
}


class DemoSettings(Settings):
    """Settings of ``sclmkb-eval study demo``."""

    seeds: tuple[int, ...] = Field(default=(0, 1), min_length=1, description="seeds of training the transceiver")


def plan_demo(settings: DemoSettings, where: Where) -> Study:
    """Return every command of the demo."""
    planner, preset = Planner(where.out), ["--preset", where.preset or "demo"]

    def add(part: str, *words: object, name: str = "", cores: int = 0, **more: bool) -> None:
        planner.part = part
        planner.add(name or part, *words[:2], *preset, *words[2:], cores=cores, **more)

    def steps(count: int) -> list[str]:
        return sets(f"num_steps={count}") if where.preset in (None, "demo") else []

    corpus, sdg, csi, cdg, predicted = (where.out / part for part in ("corpus", "sdg", "csi", "cdg", "predicted"))
    planner.part = "corpus"
    planner.add("corpus", "sclmkb-gen", "corpus", "people-emoji", *preset, cores=0)
    add("sdg", "sclmkb-gen", "sdg", "--corpus", corpus)
    add("csi", "sclmkb-gen", "csi", "--scenario", "umi-los")
    add("cdg", "sclmkb-train", "cdg", "--csi", csi)
    add("predicted", "sclmkb-gen", "cdg", "--csi", csi, "--checkpoint", cdg)
    predictions = ["--csi-source", "predicted", "--predicted", predicted]
    systems: dict[str, list[object]] = {
        "sc-lmkb": [*predictions, "--sdg", sdg],
        "without-sdg": predictions,
        "without-cdg": ["--csi-source", "stale", "--sdg", sdg],
        "without-both": ["--csi-source", "stale"],
        "perfect-csi": ["--csi-source", "perfect", "--sdg", sdg],
    }
    trained = ["--system", "backbone", "--corpus", corpus, "--csi-source", "perfect", *sets("link.channel=none")]
    for seed in settings.seeds:
        words = [*trained, *steps(400), "--seed", seed]
        add("jscc", "sclmkb-train", "jscc", *words, name=f"backbone/seed-{seed}", cores=1)
    # A system keeps the picture encoder of its seed's backbone, so it has less to learn (docs/adr/0013).
    for system, own in systems.items():
        for seed in settings.seeds:
            kept = ["--media-from", where.out / "backbone" / f"seed-{seed}"]
            words = ["--system", system, "--corpus", corpus, "--csi", csi, *kept, *steps(300), *own, "--seed", seed]
            add("jscc", "sclmkb-train", "jscc", *words, name=f"jscc/{system}/seed-{seed}", cores=1)
    inputs = ["--corpus", corpus, "--csi", csi, "--predicted", predicted]
    add("eval", "sclmkb-eval", "run", "--checkpoints", where.out / "jscc", *inputs, again=True)
    shown = ["--eval", where.out / "eval", "--corpus", corpus, "--sdg", sdg, "--predicted", predicted]
    add("report", "sclmkb-eval", "report", *shown, name="report.html", again=True, new_run=False)
    return Study(
        name="demo", out=where.out, cells=planner.cells, parts=PARTS, environment=OFFLINE, side_by_side=2, shown=True
    )


STUDY = StudyKind(
    settings=DemoSettings,
    section="demo-study",
    folder=lambda preset: preset_folder(preset or "demo"),
    plan=plan_demo,
    ending="Open {out}/report.html in a browser.",
)
