"""Every command of the study of MTSC.

::

    corpora/NAME ─► mtsc/SYSTEM/seed-N ─► eval/SYSTEM ─► report.html
"""

from pathlib import Path

from sclmkb.common.studies.cells import Planner, Study, sets
from sclmkb.evaluate.studies.base import OFFLINE, Where
from sclmkb.evaluate.studies.mtsc.settings import MAIN, SYSTEMS, UNTRAINED, MtscStudySettings

PARTS = {
    "corpora": "Corpora: pictures with questions, pictures with captions, small pictures",
    "training": "Training: one model for all tasks, and what it is compared with",
    "evaluation": "Evaluation: every test sample over SNR",
}


def plan_mtsc(settings: MtscStudySettings, where: Where) -> Study:
    """Return the commands; a corpus that cannot be made leaves its tasks out."""
    planner, corpora = Planner(where.out), where.out / "corpora"
    planner.part = "corpora"
    for name, own in settings.corpora.items():
        root = where.data / name if where.data is not None else None
        given: list[object] = ["--root", root] if root is not None and root.is_dir() else []
        planner.add(f"corpora/{name}", "sclmkb-gen", "corpus", name, *given, *sets(*own), optional=True)
    base = ["--preset", settings.base, "--corpus", corpora]
    planner.part = "training"
    for seed in settings.seeds:
        for name in settings.systems:
            words = [*base, "--system", name, "--seed", seed, *_own(settings, name)]
            planner.add(f"mtsc/{name}/seed-{seed}", "sclmkb-train", "mtsc", *words)
    planner.part = "evaluation"
    for name in settings.systems:
        chosen = [*settings.measure, "baselines=[]", *SYSTEMS[name].measure]
        words = [*base, "--checkpoints", where.out / "mtsc" / name, *sets(*chosen)]
        planner.add(eval_name(name), "sclmkb-eval", "mtsc", *words)
        if name == MAIN:  # baselines take its model, and are measured beside it on another core
            words = [*base, "--checkpoints", where.out / "mtsc" / MAIN, *sets(*settings.measure, "trained=false")]
            planner.add(eval_name(UNTRAINED), "sclmkb-eval", "mtsc", *words)
    inputs = {} if where.data is None else {"DATA": where.data}
    return Study(
        name="mtsc", out=where.out, cells=planner.cells, parts=PARTS, inputs=inputs, environment=OFFLINE, shown=True
    )


def eval_name(system: str) -> str:
    """Return the name of the cell that measures a system, or all baselines."""
    return f"eval/{system}"


def made_corpora(out: Path) -> Path:
    """Return the folder of the corpora of a study."""
    return out / "corpora"


def _own(settings: MtscStudySettings, name: str) -> list[str]:
    """Return the options of a system's training."""
    system = SYSTEMS[name]
    tasks = ["--tasks", ",".join(system.tasks)] if system.tasks else []
    steps = f"num_steps={round(settings.steps * system.steps)}"
    return [*tasks, *sets(steps, *settings.train, *system.train)]
