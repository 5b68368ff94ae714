"""The sections of the report on what it took, and on what exactly was used: seconds, tokens, and hashes."""

from collections.abc import Mapping, Sequence
from typing import Any

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.files import read_json, sha256_file
from sclmkb.common.tasks.trained import Trained
from sclmkb.evaluate.drawing.styles import label_of
from sclmkb.evaluate.measure.record import Measurement
from sclmkb.evaluate.measure.systems import the_task
from sclmkb.evaluate.tables import Table

NAMES = {"corpus": "corpus", "sdg": "generated captions", "csi": "CSI", "predicted": "predicted CSI"}
"""Kinds of artifacts, as they are called in the page."""
_UNKNOWN = "not recorded"


def costs_table(artifacts: Mapping[str, Artifact], trainings: Sequence[Trained]) -> Table:
    """Return the time of every step, and the tokens of those that generate; ``artifacts`` by kind."""
    rows = []
    for kind, artifact in artifacts.items():
        figures = [manifest.get("figures", {}) for manifest in artifact.manifests]
        seconds = _sum([manifest.get("seconds") for manifest in artifact.manifests])
        tokens = _sum([figure.get("tokens") for figure in figures]) if any("tokens" in f for f in figures) else None
        rows.append((NAMES[kind], f"{sum(artifact.counts().values())} rows", seconds, tokens))
        if kind == "predicted" and (fitted := predictor_of(artifact)):
            rows.append(("CSI predictor, training", f"{fitted['steps']} steps", fitted.get("seconds"), None))
    for system in dict.fromkeys(one.settings.system for one in trainings):
        of = [one for one in trainings if one.settings.system == system]
        steps = ", ".join(sorted({str(one.settings.num_steps) for one in of}))
        seconds = _sum([one.notes.get("seconds", one.notes.get("measured", {}).get("seconds")) for one in of])
        seeds = f"{len(of)} seed{'s' * (len(of) > 1)} of {steps} steps"
        rows.append((f"{label_of(system)}, training", seeds, seconds, None))
    return Table(
        title="Time and tokens",
        columns=["step", "how much", "seconds", "tokens", "tokens/s"],
        rows=[
            [
                name,
                amount,
                _UNKNOWN if seconds is None else f"{seconds:.0f}",
                "–" if tokens is None else f"{tokens:.0f}",
                "–" if tokens is None or not seconds else f"{tokens / seconds:.0f}",
            ]
            for name, amount, seconds, tokens in rows
        ],
        note=(
            "Seconds are the sum over the shards of an artifact, as its manifests record them, without the start of the"
            " command; of shards that were made side by side that is more than the time that passed. Tokens are those"
            " that the language model generated. These commands record no peak memory."
        ),
    )


def artifacts_table(artifacts: Mapping[str, Artifact], measured: Measurement | None) -> Table:
    """Return the hashes of the artifacts, and whether those are what was trained and measured on."""
    used = [measured.inputs, *(one.inputs for one in measured.systems)] if measured else []
    rows = []
    for kind, artifact in artifacts.items():
        known = {inputs[kind] for inputs in used if kind in inputs}
        verdict = "–" if not known else "yes" if known == {artifact.fingerprint} else f"no: {', '.join(sorted(known))}"
        versions = ", ".join(f"{of} {version}" for of, version in artifact.plan.versions.items())
        rows.append(
            [NAMES[kind], str(artifact.root), artifact.fingerprint, artifact.plan.fingerprint, verdict, versions]
        )
    return Table(
        title="Artifacts",
        columns=["artifact", "folder", "contents", "plan", "is what was used below", "made with"],
        rows=rows,
        note="Hashes: 'contents' of all files, 'plan' of settings and inputs (first 16 hex digits of the sha256).",
    )


def checkpoints_table(measured: Measurement) -> Table:
    """Return the hashes of the checkpoints that were measured, and of what each was trained on."""
    trainings, weights, task = measured.systems, _weights_measured(measured), the_task(measured.systems)
    names = list(dict.fromkeys(name for one in trainings for name in one.inputs))
    used = {name: [str(one.inputs.get(name, "–")) for one in trainings] for name in names}
    same = [name for name in names if len(set(used[name])) == 1]
    others = [name for name in names if name not in same]
    rows = []
    for i, one in enumerate(trainings):
        system, seed, found = one.settings.system, one.settings.seed, one.notes.get("measured", {})
        best = f"{found[task.selects]:.3f}" if task.selects in found else "–"
        known = [weights.get((system, seed), "–"), best, str(found.get("step", "–"))]
        rows.append([label_of(system), str(seed), *known, *(used[name][i] for name in others)])
    note = "'Weights': first 12 hex digits of the sha256 of model.safetensors."
    if same:
        note += f" All were trained on {', '.join(f'{name} {used[name][0]}' for name in same)}."
    return Table(
        title="Checkpoints",
        columns=["system", "seed", "weights", f"validation {task.measures[task.main]}", "at step"]
        + [f"trained on: {name}" for name in others],
        rows=rows,
        note=note,
    )


def _weights_measured(measured: Measurement) -> dict[tuple[str, int], str]:
    """Return the hashes of the weights of a measurement, from the names of its parts: SYSTEM-SEED-HASH."""
    found = {}
    for path in (measured.folder / "work").glob("*-*-*"):
        system, seed, digest = path.name.rsplit("-", 2)
        if seed.isdecimal():
            found[system, int(seed)] = digest
    return found


def predictor_of(predicted: Artifact) -> dict[str, Any] | None:
    """Return what the checkpoint of predicted CSI says of itself, if it lies beside it and is the same."""
    folder = predicted.root.parent / "cdg"
    weights, config = folder / "model.safetensors", folder / "config.json"
    if not (weights.exists() and config.exists()):
        return None
    same = sha256_file(weights) == predicted.plan.inputs.get("checkpoint")
    return read_json(config) if same else None


def _sum(values: Sequence[float | None]) -> float | None:
    """Return the sum, or nothing if a value is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
