"""The evidence on retrieval: people, motion and sound, every system beside its controls (docs/results.md).

The folder of the demo has the people, the CSI and the predicted CSI::

    DEMO/csi, DEMO/predicted ────────────────────────┐
    TASK/corpus ─► TASK/sdg, TASK/template ──────────┴─► TASK/jscc/SYSTEM/seed-N ─► TASK/eval
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from sclmkb.common.config import Settings
from sclmkb.common.errors import UserError
from sclmkb.common.studies.cells import Planner, Study, sets
from sclmkb.evaluate.studies.base import OFFLINE, StudyKind, Where

PARTS = {
    "people": "People: every system and its controls",
    "motion": "Motion: few captions, several generated ones of each",
    "sound": "Sound: few captions, several generated ones of each",
}
_SNRS = "snrs_db=[-15, -10, -5, 0, 5, 10, 15, 20, 25, 30]"


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A corpus that is read from ``--data``.

    Attributes:
        reader: name in ``sclmkb-gen corpus``, and that of the trainings' preset.
        root: folder below ``--data``.
        prompt: of the language model.
    """

    reader: str
    root: str
    prompt: str


_TASKS = {
    "motion": _Task(reader="bandai-motion", root="bandai_motion", prompt="motion-1"),
    "sound": _Task(reader="esc10", root="esc10", prompt="audio-1"),
}


class RetrievalStudySettings(Settings):
    """Settings of ``sclmkb-eval study retrieval``."""

    demo: Path = Field(default=Path("artifacts/demo"), description="folder of the demo, whose CSI is used")
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1, description="seeds of training the transceiver")


def plan_retrieval(settings: RetrievalStudySettings, where: Where) -> Study:
    """Return every command of the study.

    Raises:
        UserError: if there is no demo.
    """
    demo = settings.demo
    if not (demo / "predicted").is_dir():
        raise UserError(f"no predicted CSI in {demo}: run make demo first, or name its folder with --set demo=FOLDER")
    retrieval = _Retrieval(settings, Planner(where.out))
    retrieval.people()
    missing, inputs = {}, {"DEMO": demo}
    for name, task in _TASKS.items():
        if where.data is None:
            missing[name] = f"no folder was named with --data, it would be {task.root} there"
            continue
        retrieval.corpus(name, task, where.data)
        inputs["DATA"] = where.data
    return Study(
        name="retrieval", out=where.out, cells=retrieval.planner.cells, parts=PARTS, missing=missing, inputs=inputs,
        environment=OFFLINE, side_by_side=2, shown=True,
    )  # fmt: skip


@dataclass
class _Retrieval:
    settings: RetrievalStudySettings
    planner: Planner

    def people(self) -> None:
        """Add the people of the demo; what it has made is not made again.

        Its systems keep a backbone and are trained for less, so they are no part of this.
        """
        demo, folder = self.settings.demo, self.planner.out / "people"
        self.planner.part = "people"
        copied = [demo / "corpus", demo / "sdg"]
        self.planner.add("people/corpus", "cp", "-r", *copied, folder, cores=0, new_run=False, says_out=False)
        self.captions("people", "--preset", "demo")
        self.systems("people", "demo")

    def corpus(self, name: str, task: _Task, data: Path) -> None:
        """Add a corpus with few captions: several generated ones of each."""
        self.planner.part = name
        self.planner.add(f"{name}/corpus", "sclmkb-gen", "corpus", task.reader, "--root", data / task.root, cores=0)
        self.captions(name, *sets("num_samples=8", "vllm.enforce_eager=true", f"prompt={task.prompt}"))
        self.systems(name, task.reader)

    def captions(self, name: str, *words: str) -> None:
        """Add captions by the language model, and by templates."""
        command = ["sclmkb-gen", "sdg", "--corpus", self.planner.out / name / "corpus", *words]
        self.planner.add(f"{name}/sdg", *command, cores=0)
        self.planner.add(f"{name}/template", *command, *sets("engine=template"), cores=0)

    def systems(self, name: str, preset: str) -> None:
        """Add every system and its controls, and what measures them."""
        folder, demo = self.planner.out / name, self.settings.demo
        predicted: list[object] = ["--csi-source", "predicted", "--predicted", demo / "predicted"]
        sdg = ["--sdg", folder / "sdg"]
        systems: dict[str, list[object]] = {
            "sc-lmkb": [*predicted, *sdg],
            "without-sdg": predicted,
            "without-cdg": ["--csi-source", "stale", *sdg],
            "without-both": ["--csi-source", "stale"],
            "perfect-csi": ["--csi-source", "perfect", *sdg],
            # Controls: no link at all; no language model; no filter; no CDFC.
            "no-link": ["--csi-source", "perfect", *sdg, *sets("link.channel=none")],
            "template": [*predicted, "--sdg", folder / "template"],
            "unfiltered": [*predicted, *sdg, *sets("captions=all")],
            "average": [*predicted, *sdg, *sets("fusion=average")],
        }
        inputs = ["--corpus", folder / "corpus", "--csi", demo / "csi"]
        for system, own in systems.items():
            for seed in self.settings.seeds:
                words = ["--preset", preset, "--system", system, "--seed", seed, *inputs, *sets("threads=1"), *own]
                self.planner.add(f"{name}/jscc/{system}/seed-{seed}", "sclmkb-train", "jscc", *words)
        inputs += ["--predicted", demo / "predicted", *sets(_SNRS)]
        self.planner.add(
            f"{name}/eval", "sclmkb-eval", "run", "--checkpoints", folder / "jscc", *inputs, cores=0, again=True
        )


STUDY = StudyKind(
    settings=RetrievalStudySettings,
    section="retrieval-study",
    folder=lambda _: Path("artifacts", "jscc-study"),
    plan=plan_retrieval,
    ending="The tables of a task are in {out}/TASK/eval/tables.md.",
)
