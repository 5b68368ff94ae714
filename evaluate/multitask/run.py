"""``sclmkb-eval mtsc``: every test sample of every task, over SNR and channels, with its output.

::

    DIR/config.json     settings, fingerprints of the corpora, settings of every checkpoint
    DIR/work/...        one checkpoint, task, channel and SNR: what is not measured again
    DIR/items.parquet   one row per system, seed, task, channel, SNR, rate, inputs, sample and measure

Inputs are ``own``, or ``shuffled``: the medium of another sample takes the place of a sample's own. A system that does
no better with its own looks at nothing. All systems meet the same gains and noise.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact, open_all
from sclmkb.common.config import Settings, speed_only
from sclmkb.common.console import limit_threads
from sclmkb.common.errors import UserError
from sclmkb.common.link.mimo_uses import UsesChannel, open_uses_channel
from sclmkb.common.link.uses import UsesChannelSettings, sample_draws
from sclmkb.common.models.lam.frozen import frozen_encoder
from sclmkb.common.models.lam.system import MtscModel, groups_of, uses_of
from sclmkb.common.seeds import make_generator
from sclmkb.common.tasks.media.data import TaskData, corpus_for, load_task
from sclmkb.common.tasks.media.receive import Kept, RateEvidence, Received, evidence_of, outputs_of
from sclmkb.common.tasks.media.trained import KIND, MEDIA_TASKS, TrainedMtsc
from sclmkb.evaluate.measure.run import by_work_name, measure_missing, open_run
from sclmkb.evaluate.measure.systems import finished_runs
from sclmkb.evaluate.multitask.baselines.base import BaselineRun, BaselineSetup, Receive, runs_of
from sclmkb.evaluate.multitask.baselines.known import baselines_named
from sclmkb.evaluate.multitask.items import ITEMS, sample_rows
from sclmkb.evaluate.multitask.rates import RateName, Rates

FULL_RATE = "full"
"""The rate at which a sample sends all of its uses."""
Inputs = Literal["own", "shuffled"]


class MtscEvalSettings(Settings):
    """Settings of ``sclmkb-eval mtsc``."""

    snrs_db: tuple[float, ...] = Field(
        default=(-12.0, -6.0, 0.0, 6.0, 12.0, 18.0), min_length=1, description="SNRs per complex use [dB]"
    )
    channels: tuple[UsesChannelSettings, ...] = Field(
        default=(UsesChannelSettings(),), min_length=1, description="channels to measure on"
    )
    inputs: tuple[Inputs, ...] = Field(
        default=("own", "shuffled"), min_length=1, description="own; shuffled: the medium of another sample (control)"
    )
    rates: tuple[RateName, ...] = Field(
        default=(),
        description="variable rates beside all uses, of models trained for one: fixed, random, norm, snr and learned "
        "(docs/mtsc.md)",
    )
    shares: tuple[float, ...] = Field(
        default=(0.25, 0.5), description="mean total uses of each of them over rate_snrs_db, as shares of all uses"
    )
    rate_snrs_db: tuple[float, ...] = Field(
        default=(-12.0, -6.0, 0.0, 6.0, 12.0, 18.0), min_length=1, description="SNRs that share a budget of uses [dB]"
    )
    split: Literal["val", "test"] = Field(default="test", description="split that is measured; val: for choices")
    max_samples: PositiveInt = Field(default=1000, description="most samples per task, spread evenly over the split")
    max_pictures: int = Field(default=16, ge=0, description="samples per part whose pictures are kept as they arrive")
    baselines: tuple[str, ...] = Field(
        default=("digital", "digital-packed", "digital-text", "majority", "constant", "nearest", "consensus-5"),
        description="systems without training that are measured beside the checkpoints",
    )
    trained: bool = Field(default=True, description="measure the checkpoints; false: the baselines beside them alone")
    main_system: str = Field(
        default="mtsc", description="system whose model is part of the baselines that need one; else the first one"
    )
    seed: int = Field(default=0, description="seed of gains, noise and shuffling")
    threads: int | None = speed_only(None, description="CPU threads; default: all cores")


def measure_mtsc(
    settings: MtscEvalSettings,
    checkpoints: Path,
    corpora: Sequence[Path],
    out: Path,
    *,
    csi: Path | None = None,
    predicted: Path | None = None,
    new_run: bool = False,
) -> Path:
    """Measure all checkpoints below a folder, or go on with the measurement in ``out``; return ``out``.

    Raises:
        UserError: if there is no finished checkpoint, a corpus is missing, a baseline is unknown, or ``out`` was
            measured otherwise, or there is nothing to measure.
    """
    limit_threads(settings.threads)
    baselines = baselines_named(settings.baselines)
    found = [TrainedMtsc.load(folder) for folder in finished_runs(checkpoints, KIND)]
    sources = open_all(corpora, "corpus")
    inputs = {f"corpus{i or ''}": source.fingerprint for i, source in enumerate(sources)}
    open_run(
        "mtsc-eval",
        settings.fingerprint_fields(),
        inputs,
        found,
        out,
        new_run,
        free=("snrs_db", "channels", "rates", "shares", "baselines", "trained", "main_system"),
    )
    inputs |= {
        name: Artifact.open(root, name).fingerprint for name, root in (("csi", csi), ("predicted", predicted)) if root
    }
    channels = [open_uses_channel(channel, csi, predicted, settings.split) for channel in settings.channels]
    bench = _Bench(settings, sources, dict(zip(settings.channels, channels, strict=True)))
    tasks = sorted({name for trained in found for name in trained.settings.tasks})
    beside = runs_of(baselines, tasks, found, settings.main_system)
    systems: dict[str, TrainedMtsc | BaselineRun] = {one.work_name: one for one in beside}
    if settings.trained:
        systems = {**by_work_name(found), **systems}
    if not systems:
        raise UserError("nothing is measured: with trained=false, name a baseline of these tasks: baselines=[...]")
    measure_missing(bench.measure, systems, dict.fromkeys(bench.parts(tasks), ("items",)), {"items": ITEMS}, out)
    return out


@dataclass
class _Bench:
    """What all systems are measured with."""

    settings: MtscEvalSettings
    corpora: Sequence[Artifact]
    channels: Mapping[UsesChannelSettings, UsesChannel]
    _data: dict[tuple[str, str, str], TaskData] = field(default_factory=dict)
    _rates: dict[tuple[Path, str], Rates] = field(default_factory=dict)

    def parts(self, tasks: Sequence[str]) -> dict[str, "_Part"]:
        """Return each part by its name."""
        rates = [(FULL_RATE, 1.0), *product(self.settings.rates, self.settings.shares)]
        parts = [_Part(*one) for one in product(tasks, self.settings.channels, self.settings.snrs_db, rates)]
        return {f"{p.task}+{p.channel.name}+{p.snr_db:g}dB+{p.rate_name}": p for p in parts}

    def measure(
        self, system: TrainedMtsc | BaselineRun, wanted: Sequence[str], tick: Callable[[], None]
    ) -> Iterator[tuple[str, Mapping[str, pa.Table]]]:
        """Yield the table of each part of a system; of what it is not for, an empty one."""
        parts = self.parts(sorted(MEDIA_TASKS))
        rows_of = self._of_baseline(system) if isinstance(system, BaselineRun) else self._of_model(system)
        for name in wanted:
            yield name, {"items": pa.Table.from_pylist(rows_of(parts[name]), schema=ITEMS)}
            tick()

    def _of_model(self, trained: TrainedMtsc) -> "_RowsOf":
        model, kept = trained.model(), defaultdict[tuple[str, str], Kept](dict)

        def rows_of(part: _Part) -> list[dict[str, Any]]:
            has_rate = part.rate_name == FULL_RATE or trained.settings.model.rate != "fixed"
            return self._rows(trained, model, part, kept) if part.task in trained.settings.tasks and has_rate else []

        return rows_of

    def _rows(
        self, trained: TrainedMtsc, model: MtscModel, part: "_Part", kept: Mapping[tuple[str, str], Kept]
    ) -> list[dict[str, Any]]:
        name, snr_db = part.task, part.snr_db
        data = self._task_data(trained, name, self.settings.split)
        rows = data.some(self.settings.max_samples)
        ids = data.row_ids(rows)
        found: list[dict[str, Any]] = []
        rate = None
        if part.rate_name != FULL_RATE:
            rate = self._rates_of(trained, model, name).rate(*part.rate, snr_db, ids)
        for inputs in self.settings.inputs:
            draws = sample_draws(self.settings.seed, ids)
            media = (
                None if inputs == "own" else shuffled(rows, data, make_generator(self.settings.seed, "shuffle", name))
            )
            channel = self.channels[part.channel]
            before = kept[name, inputs]
            got = outputs_of(model, channel, data, rows, name, snr_db, draws, media=media, rate=rate, kept=before)
            got = got._replace(uses=got.uses / part.channel.symbols_per_use)
            same = {**part.columns, "system": trained.settings.system, "seed": trained.settings.seed, "inputs": inputs}
            found += sample_rows(same, data, rows, got, self.settings.max_pictures)
        return found

    def _of_baseline(self, run: BaselineRun) -> "_RowsOf":
        """Return what measures a baseline: its samples have their own inputs, and all of their uses."""
        ready: dict[str, Receive] = {}
        data = self._task_data(run.beside, run.task, self.settings.split)
        rows = data.some(self.settings.max_samples)

        def rows_of(part: _Part) -> list[dict[str, Any]]:
            fits = part.task == run.task and part.channel.kind in run.baseline.channels
            if not fits or part.rate_name != FULL_RATE or "own" not in self.settings.inputs:
                return []
            channel = part.channel.name
            if channel not in ready:
                ready[channel] = run.baseline.prepare(self._setup(run, part.channel, rows))
            uses = torch.full((len(rows),), float(run.uses))
            same = {**part.columns, "system": run.system, "seed": run.seed, "inputs": "own"}
            got = Received(ready[channel](part.snr_db), uses)
            return sample_rows(same, data, rows, got, self.settings.max_pictures)

        return rows_of

    def _setup(self, run: BaselineRun, channel: UsesChannelSettings, rows: Tensor) -> BaselineSetup:
        return BaselineSetup(
            task=run.task,
            channel=channel,
            seed=self.settings.seed,
            beside=run.beside,
            corpus=corpus_for(run.task, self.corpora),
            split=self.settings.split,
            rows=rows,
            load=lambda split: self._task_data(run.beside, run.task, split),
        )

    def _task_data(self, trained: TrainedMtsc, name: str, split: str) -> TaskData:
        sizes = trained.settings.model
        key = (name, split, frozen_encoder(sizes, MEDIA_TASKS[name].modality).key)
        if key not in self._data:
            self._data[key] = load_task(sizes, corpus_for(name, self.corpora), name, split)
        return self._data[key]

    def _rates_of(self, trained: TrainedMtsc, model: MtscModel, name: str) -> Rates:
        """Return the rates of a task, calibrated on its validation split over AWGN."""
        if (trained.root, name) not in self._rates:
            data = self._task_data(trained, name, "val")
            rows = data.some(self.settings.max_samples)
            uses, groups = (of(trained.settings.model)[name] for of in (uses_of, groups_of))
            kept: Kept = {}

            @lru_cache
            def evidence(snr_db: float) -> RateEvidence:
                draws = make_generator(self.settings.seed, "evidence", name, str(snr_db))
                return evidence_of(model, UsesChannelSettings(), data, rows, name, snr_db, draws, kept)

            self._rates[trained.root, name] = Rates(
                uses, groups, self.settings.rate_snrs_db, evidence, self.settings.seed
            )
        return self._rates[trained.root, name]


class _Part(NamedTuple):
    """What is measured at once; its rate has a name and a share."""

    task: str
    channel: UsesChannelSettings
    snr_db: float
    rate: tuple[Any, float]

    @property
    def rate_name(self) -> str:
        name, share = self.rate
        return FULL_RATE if name == FULL_RATE else f"{name}-{share:g}"

    @property
    def columns(self) -> dict[str, Any]:
        channel = self.channel.name
        return {"task": self.task, "channel": channel, "snr_db": self.snr_db, "rate": self.rate_name}


_RowsOf = Callable[[_Part], list[dict[str, Any]]]
"""Returns the rows of a part."""


def shuffled(rows: Tensor, data: TaskData, generator: torch.Generator) -> Tensor:
    """Return the same rows in another order, in which none stands in the place of one about the same medium.

    Rows go round by a random number of places; where a sample meets its own medium, it takes the next other one.
    """
    groups = data.groups(rows)
    start = int(torch.randint(1, max(len(rows), 2), (1,), generator=generator))
    taken = []
    for i in range(len(rows)):
        others = ((i + start + step) % len(rows) for step in range(len(rows)))
        taken.append(next((j for j in others if groups[j] != groups[i]), i))
    return rows[taken]
