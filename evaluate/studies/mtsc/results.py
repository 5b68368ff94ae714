"""What a study measured, read from the items of its evaluations: the same samples and SNRs of all systems.

A claim weighs several SNRs: "at low SNR more than at high" is the mean over some less the mean over others. A sample's
value is then the weighted sum of its values, so that intervals are paired and clustered as everywhere.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sclmkb.common.artifacts.files import read_json
from sclmkb.common.tasks.media.trained import MEDIA_TASKS
from sclmkb.evaluate.intervals import Array, Condition, Interval
from sclmkb.evaluate.multitask.run import FULL_RATE

SHUFFLED = " (shuffled)"
"""Ends the name of a system that is given the media of other samples."""
_NUMBERS = ("seed", "snr_db", "uses", "value")


@dataclass(frozen=True, kw_only=True)
class TaskResults:
    """One measure of one task over one channel, of every system.

    Attributes:
        task: by name.
        channel: as in the items.
        measure: by name.
        snrs_db: that all systems were measured at.
        values: of each system and seed, ``[S, M]`` for S SNRs and M samples.
        groups: of each sample: intervals are clustered by it.
        uses: complex channel uses per sample, the mean over samples and SNRs, of each system.
        trained: systems whose seeds are trainings.
    """

    task: str
    channel: str
    measure: str
    snrs_db: tuple[float, ...]
    values: Mapping[str, Mapping[int, Array]]
    groups: Sequence[str]
    uses: Mapping[str, float]
    trained: frozenset[str]

    @property
    def label(self) -> str:
        """The measure as it is written."""
        return MEDIA_TASKS[self.task].measures[self.measure]

    @property
    def digits(self) -> int:
        """Digits after the point of a value in tables."""
        return 2 if self.label.endswith("[dB]") else 3

    @property
    def is_main(self) -> bool:
        """Whether it is the measure that is drawn and judged."""
        return self.measure == MEDIA_TASKS[self.task].main

    @cached_property
    def systems(self) -> list[str]:
        """The systems, without those that are given other samples' media."""
        return [name for name in self.values if not name.endswith(SHUFFLED)]

    def weighted(self, weights: Mapping[float, float]) -> Condition:
        """Return the sum of each sample's values, weighted by SNR."""
        row = np.array([weights.get(snr_db, 0.0) for snr_db in self.snrs_db])
        values = {name: {seed: row @ of for seed, of in seeds.items()} for name, seeds in self.values.items()}
        return Condition(values, {name: self._kind(name) for name in values}, clusters=self.groups)

    def mean(self, snrs_db: Sequence[float]) -> Condition:
        """Return the mean over some SNRs."""
        return self.weighted({snr_db: 1 / len(snrs_db) for snr_db in snrs_db})

    @cached_property
    def at(self) -> Mapping[float, Condition]:
        """What was measured at each SNR."""
        return {snr_db: self.weighted({snr_db: 1.0}) for snr_db in self.snrs_db}

    def curve(self, system: str) -> list[Interval]:
        """Return the values of a system over SNR."""
        return [at.mean(system) for at in self.at.values()]

    def differences(self, system: str, reference: str) -> dict[float, Interval]:
        """Return how much a system is above another, by SNR."""
        return {snr_db: at.difference(system, reference) for snr_db, at in self.at.items()}

    def _kind(self, name: str) -> str:
        """Return which systems share the deviation between seeds: those that are trained."""
        if name.removesuffix(SHUFFLED) not in self.trained:
            return name
        return "shuffled" if name.endswith(SHUFFLED) else "trained"


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the trainings of a system took.

    Attributes:
        steps: of the optimiser.
        seconds: of one training, the mean over seeds.
        seeds: how many trainings.
        tasks: that it was trained for.
    """

    steps: int
    seconds: float
    seeds: int
    tasks: tuple[str, ...]


def read_trainings(folders: Mapping[str, Path]) -> dict[str, Training]:
    """Return what the trainings of each system took, from the folders of its checkpoints."""
    found = {}
    for name, folder in folders.items():
        saved = [read_json(path) for path in sorted(folder.glob("seed-*/config.json")) if ".old-" not in str(path)]
        settings = saved[0]["settings"]
        seconds = float(np.mean([one["measured"]["seconds"] for one in saved]))
        found[name] = Training(
            steps=settings["num_steps"], seconds=seconds, seeds=len(saved), tasks=tuple(settings["tasks"])
        )
    return found


@dataclass(frozen=True, kw_only=True)
class MtscResults:
    """What the evaluations of a study have in common, by task, channel and measure.

    Attributes:
        full: every system, where all uses are sent.
        rates: the main measures of one model at several rates, which stand in the place of systems; the first is all
            uses. Empty: no rate was measured.
    """

    full: Sequence[TaskResults]
    rates: Sequence[TaskResults]


def read_results(roots: Sequence[Path], trained: Sequence[str]) -> MtscResults:
    """Return what was measured in some folders.

    Args:
        roots: folders of ``sclmkb-eval mtsc``.
        trained: names of the systems that were trained.
    """
    items = pa.concat_tables([_items(root) for root in roots]).unify_dictionaries()
    is_full = pc.equal(items["rate"], FULL_RATE)
    full = list(_all_results(items.filter(is_full), frozenset(trained)))
    of_rates = items.filter(pc.and_(pc.invert(is_full), pc.equal(items["inputs"], "own")))
    models = of_rates["system"].unique().to_pylist()
    if not models:
        return MtscResults(full=full, rates=())
    own = items.filter(pc.and_(pc.equal(items["system"], models[0]), pc.equal(items["inputs"], "own")))
    named = own.set_column(own.column_names.index("system"), "system", own["rate"])
    rates = set(named["system"].unique().to_pylist())
    return MtscResults(full=full, rates=[of for of in _all_results(named, frozenset(rates)) if of.is_main])


def _items(root: Path) -> pa.Table:
    names = ["system", "task", "channel", "inputs", "rate", "row_id", "group", "measure"]
    return pq.read_table(root / "items.parquet", columns=[*names, *_NUMBERS], read_dictionary=names)


def _all_results(items: pa.Table, trained: frozenset[str]) -> Iterator[TaskResults]:
    for task, of_task in MEDIA_TASKS.items():
        for channel in _sorted(items.filter(pc.equal(items["task"], task))["channel"]):
            for measure in of_task.measures:
                mask = pc.and_(pc.equal(items["task"], task), pc.equal(items["measure"], measure))
                rows = items.filter(pc.and_(mask, pc.equal(items["channel"], channel)))
                yield _results(task, channel, measure, rows, trained)


def _sorted(column: pa.ChunkedArray) -> list[str]:
    """Return the names in a column; AWGN first."""
    return sorted(column.unique().to_pylist(), key=lambda name: (name != "awgn", name))


def _results(task: str, channel: str, measure: str, rows: pa.Table, trained: frozenset[str]) -> TaskResults:
    parts: dict[tuple[str, int, float], dict[str, float]] = {}
    groups: dict[str, str] = {}
    uses: dict[str, list[float]] = defaultdict(list)
    for (system, seed, snr_db, inputs), part in _parts(rows):
        name = system if inputs == "own" else system + SHUFFLED
        ids = part["row_id"].to_pylist()
        parts[name, seed, snr_db] = dict(zip(ids, part["value"].to_pylist(), strict=True))
        groups |= zip(ids, part["group"].to_pylist(), strict=True)
        uses[name].append(float(pc.mean(part["uses"]).as_py()))
    ids = sorted(set.intersection(*(set(part) for part in parts.values())))
    snrs_of: dict[tuple[str, int], set[float]] = defaultdict(set)
    for name, seed, snr_db in parts:
        snrs_of[name, seed].add(snr_db)
    snrs_db = sorted(set.intersection(*snrs_of.values()))
    values: dict[str, dict[int, Array]] = defaultdict(dict)
    for name, seed in snrs_of:
        values[name][seed] = np.array([[parts[name, seed, snr_db][i] for i in ids] for snr_db in snrs_db])
    return TaskResults(
        task=task,
        channel=channel,
        measure=measure,
        snrs_db=tuple(snrs_db),
        values=dict(values),
        groups=[groups[i] for i in ids],
        uses={name: float(np.mean(of)) for name, of in uses.items()},
        trained=trained,
    )


def _parts(rows: pa.Table) -> Iterator[tuple[tuple[str, int, float, str], pa.Table]]:
    """Yield the samples of each system, seed, SNR and inputs."""
    keys = rows.group_by(["system", "seed", "snr_db", "inputs"], use_threads=False).aggregate([]).to_pylist()
    for key in keys:
        mask = pc.and_(pc.equal(rows["system"], key["system"]), pc.equal(rows["seed"], key["seed"]))
        mask = pc.and_(mask, pc.equal(rows["snr_db"], key["snr_db"]))
        mask = pc.and_(mask, pc.equal(rows["inputs"], key["inputs"]))
        yield (key["system"], key["seed"], key["snr_db"], key["inputs"]), rows.filter(mask)
