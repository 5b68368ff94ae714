"""The section of the report that says how each row is made again: a command, and the settings that it reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sclmkb.common.artifacts import Artifact
from sclmkb.evaluate.styles import label_of

_EMOJI = "people-emoji"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How something is made again.

    Attributes:
        name: of the row.
        commands: command lines.
        file: name of the YAML file that they read; empty if none.
        settings: contents of that file.
    """

    name: str
    commands: Sequence[str]
    file: str = ""
    settings: str = ""


def artifact_recipes(artifacts: Mapping[str, Artifact]) -> list[Recipe]:
    """Return how artifacts are made, of those kinds whose command is known from their settings."""
    return [recipe for name, artifact in artifacts.items() if (recipe := _of_artifact(name, artifact))]


def _of_artifact(name: str, artifact: Artifact) -> Recipe | None:
    settings = dict(artifact.plan["settings"])
    if name == "corpus":
        dataset = settings.pop("dataset", "")
        section, what = ("corpus", dataset) if dataset == _EMOJI else (dataset, f"{dataset} --root DATA")
        return _recipe(name, f"sclmkb-gen corpus {what}", section, settings, artifact.root) if dataset else None
    if name == "generated captions":
        if any("iltered again" in note for note in artifact.plan["notes"]):
            return None
        return _recipe(name, "sclmkb-gen sdg --corpus CORPUS", "sdg", settings, artifact.root)
    if settings.get("predictor"):
        with_checkpoint = " --checkpoint CHECKPOINT" if settings["predictor"] == "checkpoint" else ""
        return _recipe(name, f"sclmkb-gen cdg --csi CSI{with_checkpoint}", "cdg", settings, artifact.root)
    return None


def system_recipes(trainings: Sequence[Mapping[str, Any]]) -> list[Recipe]:
    """Return how the checkpoints that were measured are trained: one recipe a system, one command a seed."""
    recipes = []
    for system in dict.fromkeys(one["settings"]["system"] for one in trainings):
        of = [one for one in trainings if one["settings"]["system"] == system]
        settings = {name: value for name, value in of[0]["settings"].items() if name not in ("seed", "system")}
        knowledge = ["--corpus CORPUS", *(f"--{name} {name.upper()}" for name in ("csi", "sdg", "predicted")
                                          if name in of[0].get("inputs", {}))]  # fmt: skip
        given = f"--system {system} --csi-source {settings.get('csi_source')} {' '.join(knowledge)}"
        recipes.append(
            Recipe(
                name=label_of(system),
                commands=[
                    f"sclmkb-train jscc --config {system}.yaml {given} --seed {one['settings']['seed']} --out"
                    f" {one['folder']}"
                    for one in of
                ],
                file=f"{system}.yaml",
                settings=_yaml("jscc", settings),
            )
        )
    return recipes


def evaluation_recipe(config: Mapping[str, Any], folder: Path) -> Recipe:
    """Return how an evaluation is measured again."""
    names = [name for name in ("corpus", "csi", "predicted") if name in config.get("inputs", {})]
    command = "sclmkb-eval run --checkpoints CHECKPOINTS" + "".join(f" --{name} {name.upper()}" for name in names)
    return _recipe("every figure and table of retrieval", command, "run", dict(config["settings"]), folder)


def _recipe(name: str, command: str, section: str, settings: Mapping[str, Any], out: Path) -> Recipe:
    file = f"{section}.yaml"
    return Recipe(
        name=name,
        commands=[f"{command} --config {file} --out {out}"],
        file=file,
        settings=_yaml(section, settings),
    )


def _yaml(section: str, settings: Mapping[str, Any]) -> str:
    return yaml.safe_dump({section: dict(settings)}, sort_keys=False, allow_unicode=True, default_flow_style=None)
