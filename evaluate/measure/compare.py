"""``sclmkb-eval compare``: two measurements side by side, whether they are of equal conditions or not."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sclmkb.common.config import flatten
from sclmkb.common.errors import UserError
from sclmkb.common.tasks.trained import JsccSettings
from sclmkb.evaluate.intervals import Array, Condition
from sclmkb.evaluate.measure.fairness import as_text
from sclmkb.evaluate.measure.record import Measurement
from sclmkb.evaluate.measure.retrieval import MeasuredRetrieval, Measurements
from sclmkb.evaluate.tables import Table

_MISSING = "–"
_NOTE = (
    "Mean over seeds and queries ± half a 95 % interval over queries (bootstrap, those of an identity drawn together)"
    " and over seeds, if there are several (deviation pooled over systems of the run whose CSI is old, and over the"
    " others). The difference is paired: of the same queries and of the seeds that both have."
)


def compare_runs(first: Path, second: Path, snr_db: float) -> str:
    """Return, in Markdown, in what two measurements differ, and the measures of the systems that both have.

    Raises:
        UserError: if a folder holds no measurement or none at the SNR, or they have no system, receiver or wording in
            common.
    """
    folders = (first, second)
    at = [Measurements(folder).at(snr_db) for folder in folders]
    records = [measured.measurements.records[0] for measured in at]
    pairs = _pairs(at, folders)
    receivers = [name for name in at[0].receivers if name in at[1].receivers]
    wordings = [w for w in ("same", "changed") if all(w in measured.wordings for measured in at)]
    if not receivers or not wordings:
        what = "receiver" if not receivers else "wording"
        raise UserError(f"{first} and {second} have no {what} in common: nothing to compare")
    parts = [f"First: {first}\n\nSecond: {second}\n", _differences(records, pairs)]
    parts += [_measures(at, pairs, receiver, wording).to_markdown() for receiver in receivers for wording in wordings]
    text = "\n".join(parts)
    for folder, measured, paired in zip(folders, at, zip(*pairs, strict=True), strict=True):
        if alone := [name for name in measured.systems if name not in paired]:
            text += f"\nOnly in {folder}: {', '.join(alone)}\n"
    return text


def _pairs(at: Sequence[MeasuredRetrieval], folders: Sequence[Path]) -> list[tuple[str, str]]:
    """Return the systems of one name, or the only ones."""
    pairs = [(name, name) for name in at[0].systems if name in at[1].systems]
    if not pairs and all(len(measured.systems) == 1 for measured in at):
        pairs = [(at[0].systems[0], at[1].systems[0])]
    if not pairs:
        named = " and ".join(f"{f} has {', '.join(m.systems)}" for f, m in zip(folders, at, strict=True))
        raise UserError(f"no system in common: {named}")
    return pairs


def _differences(records: Sequence[Measurement], pairs: Sequence[tuple[str, str]]) -> str:
    rows = []
    for groups, prefix in (([of.settings for of in records], ""), ([of.inputs for of in records], "input: ")):
        rows += [[f"{prefix}{name}", *values] for name, *values in _other(*groups)]
    of_training: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for pair in pairs:
        for found in _other(*(_trained(record, name) for record, name in zip(records, pair, strict=True))):
            of_training[found].append(_label(pair))
    for (name, *values), systems in of_training.items():
        of_some = f" ({', '.join(systems)})" if len(systems) < len(pairs) else ""
        rows.append([f"training: {name}{of_some}", *values])
    title = "What differs"
    if not rows:
        return f"### {title}\n\nNothing: settings, inputs and trainings are the same.\n"
    return Table(title=title, columns=["", "first", "second"], rows=rows).to_markdown()


def _trained(record: Measurement, system: str) -> dict[str, Any]:
    """Return settings and inputs of a system's training, and its seeds; of SSCC those of the model that retrieves."""
    own = [one for one in record.systems if record.kind == "sscc" or one.settings.system == system]
    if not own:
        return {}
    left_out = {"system", "seed", *JsccSettings.marked("speed_only")}
    inputs = {f"input {name}": value for name, value in own[0].inputs.items()}
    settings = own[0].settings.model_dump(mode="json", exclude=left_out, exclude_unset=True)
    return {**settings, **inputs, "seeds": [one.settings.seed for one in own]}


def _label(pair: tuple[str, str]) -> str:
    return pair[0] if pair[0] == pair[1] else " / ".join(pair)


def _other(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return names and both values of what differs."""
    a, b = ({name: as_text(value) for name, value in flatten(of).items()} for of in (first, second))
    named = ((name, a.get(name, _MISSING), b.get(name, _MISSING)) for name in dict.fromkeys([*a, *b]))
    return [found for found in named if found[1] != found[2]]


def _measures(at: Sequence[MeasuredRetrieval], pairs: Sequence[tuple[str, str]], receiver: str, wording: str) -> Table:
    task = at[0].task
    found = [measured.found(receiver, wording) for measured in at]
    captions = [next(queries for of in own.values() for queries in of.values()).caption for own in found]
    rows: dict[tuple[str, str], list[str]] = {(pair[0], name): [] for pair in pairs for name in task.measures}
    for measure, label in task.measures.items():
        alone = [measured.condition(receiver, wording, measure) for measured in at]
        less = _less(at, alone, pairs) if np.array_equal(captions[0], captions[1]) else None
        for pair in pairs:
            levels = [one.mean(name) for one, name in zip(alone, pair, strict=True)]
            plain = f"{levels[1].mean - levels[0].mean:+.3f}"
            named = _label(pair) if measure == task.main else ""
            rows[pair[0], measure] = [
                *(named, label, *(level.text(3) for level in levels)),
                f"{plain} (other queries: no interval)"
                if less is None
                else less.get(pair) or f"{plain} (other seeds: no interval)",
            ]
    counts = " and ".join(dict.fromkeys(str(len(of)) for of in captions))
    return Table(
        title=f"{at[0].snr_db:g} dB, receiver {receiver}, wording {wording}, {counts} queries",
        columns=["system", "measure", "first", "second", "second less first"],
        rows=list(rows.values()),
        note=_NOTE,
    )


def _less(
    at: Sequence[MeasuredRetrieval], alone: Sequence[Condition], pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    """Return the second less the first, query by query and seed by seed, of systems that have a seed in common."""
    first, second = alone
    values: dict[str, dict[int, Array]] = {}
    for one, other in pairs:
        seeds = sorted(set(first.values[one]) & set(second.values[other]))
        if seeds:
            values[one] = {seed: second.values[other][seed] - first.values[one][seed] for seed in seeds}
    kinds = {one: f"{at[0].kind(one)} {at[1].kind(other)}" for one, other in pairs if one in values}
    differences = Condition(values, kinds, clusters=first.clusters)
    found = {}
    for pair in pairs:
        if pair[0] in values:
            mean = differences.mean(pair[0])
            lacking = differences.lacks_seeds(pair[0])
            found[pair] = f"{mean.mean:+.3f} (one seed: no interval)" if lacking else mean.text(3, signed=True)
    return found
