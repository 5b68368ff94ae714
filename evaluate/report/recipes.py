"""The section of the report that says how each row is made again: a command, and the settings that it reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.tasks.trained import Trained
from sclmkb.evaluate.drawing.styles import label_of
from sclmkb.evaluate.measure.record import Measurement
from sclmkb.evaluate.report.costs import NAMES, predictor_of

_EMOJI = "people-emoji"
_ROWS = {"cdg": "CSI predictor", "eval": "every figure and table of retrieval"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How something is made again: command lines, and name and contents of the YAML file that they read."""

    name: str
    commands: Sequence[str]
    file: str
    settings: str


def artifact_recipes(artifacts: Mapping[str, Artifact]) -> list[Recipe]:
    """Return how artifacts are made, of those whose command is known from their settings; ``artifacts`` by kind."""
    recipes = []
    for kind, artifact in artifacts.items():
        settings, notes, out = dict(artifact.plan.settings), artifact.plan.notes, artifact.root
        if kind == "corpus" and (dataset := settings.pop("dataset", None)):
            section, data = ("corpus", "") if dataset == _EMOJI else (dataset, " --root DATA")
            recipes.append(_recipe(kind, f"sclmkb-gen corpus {dataset}{data}", section, settings, out))
        if kind == "sdg" and not any("iltered again" in name for name in notes):
            recipes.append(_recipe(kind, "sclmkb-gen sdg --corpus CORPUS", "sdg", settings, out))
        if kind == "csi" and "scenario" in settings:
            recipes.append(_recipe(kind, "sclmkb-gen csi", "csi", settings, out))
        if kind == "predicted":
            command = "sclmkb-gen cdg --csi CSI"
            if settings.get("predictor") == "checkpoint":
                command += " --checkpoint CHECKPOINT"
            if fitted := predictor_of(artifact):
                training = _recipe("cdg", "sclmkb-train cdg --csi CSI", "cdg", fitted["settings"], out.parent / "cdg")
                recipes.append(training)
            recipes.append(_recipe(kind, command, "cdg", settings, out))
    return recipes


def system_recipes(trainings: Sequence[Trained]) -> list[Recipe]:
    """Return how the checkpoints that were measured are trained: one recipe per system, one command per seed."""
    recipes = []
    for system in dict.fromkeys(one.settings.system for one in trainings):
        of = [one for one in trainings if one.settings.system == system]
        inputs = [f"--{name} {name.upper()}" for name in ("csi", "sdg", "predicted") if name in of[0].inputs]
        knowledge = " ".join(["--corpus CORPUS", *inputs])
        settings = of[0].settings.model_dump(mode="json", exclude={"seed", "system"}, exclude_unset=True)
        given = f"--system {system} --csi-source {of[0].settings.csi_source} {knowledge}"
        recipes.append(
            Recipe(
                name=label_of(system),
                commands=[
                    f"sclmkb-train jscc --config {system}.yaml {given} --seed {one.settings.seed} --out {one.root}"
                    for one in of
                ],
                file=f"{system}.yaml",
                settings=_yaml("jscc", settings),
            )
        )
    return recipes


def evaluation_recipe(measured: Measurement) -> Recipe:
    """Return how an evaluation is measured again."""
    names = [name for name in ("corpus", "csi", "predicted") if name in measured.inputs]
    command = "sclmkb-eval run --checkpoints CHECKPOINTS" + "".join(f" --{name} {name.upper()}" for name in names)
    return _recipe("eval", command, "run", measured.settings, measured.folder)


def _recipe(kind: str, command: str, section: str, settings: Mapping[str, Any], out: Path) -> Recipe:
    file = f"{kind}.yaml"
    return Recipe(
        name=_ROWS.get(kind) or NAMES[kind],
        commands=[f"{command} --config {file} --out {out}"],
        file=file,
        settings=_yaml(section, settings),
    )


def _yaml(section: str, settings: Mapping[str, Any]) -> str:
    return yaml.safe_dump({section: dict(settings)}, sort_keys=False, allow_unicode=True, default_flow_style=None)
