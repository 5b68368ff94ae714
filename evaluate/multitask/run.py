"""``sclmkb-eval mtsc``: every test sample of every task, over SNR and channels, with its output.

::

    DIR/config.json     settings, fingerprints of the corpora, settings of every checkpoint
    DIR/work/...        one checkpoint, task, channel and SNR: what is not measured again
    DIR/items.parquet   one row per system, seed, task, channel, SNR, inputs, sample and measure

Inputs are ``own``, or ``shuffled``: the medium of another sample takes the place of a sample's own. A system that does
no better with its own looks at nothing. All systems meet the same gains and noise.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.config import Settings, speed_only
from sclmkb.common.console import limit_threads
from sclmkb.common.link.uses import UsesChannelSettings, sample_draws
from sclmkb.common.models.lam.frozen import frozen_encoder
from sclmkb.common.models.lam.system import MtscModel, uses_of
from sclmkb.common.seeds import make_generator
from sclmkb.common.tasks.media.data import TaskData, corpus_for, load_task
from sclmkb.common.tasks.media.receive import outputs_of
from sclmkb.common.tasks.media.trained import KIND, MEDIA_TASKS, TrainedMtsc
from sclmkb.evaluate.measure.run import by_work_name, measure_missing, open_run
from sclmkb.evaluate.measure.systems import finished_runs
from sclmkb.evaluate.multitask.baselines.base import BaselineRun, BaselineSetup, runs_of
from sclmkb.evaluate.multitask.baselines.known import baselines_named
from sclmkb.evaluate.multitask.items import ITEMS, Way

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
    split: Literal["val", "test"] = Field(default="test", description="split that is measured; val: for choices")
    max_samples: PositiveInt = Field(default=1000, description="most samples per task, spread evenly over the split")
    max_pictures: int = Field(default=16, ge=0, description="samples per part whose pictures are kept as they arrive")
    baselines: tuple[str, ...] = Field(
        default=("digital", "digital-packed", "digital-text"),
        description="systems without training that are measured beside the checkpoints",
    )
    main_system: str = Field(
        default="mtsc", description="system whose model is part of the baselines that need one; else the first one"
    )
    seed: int = Field(default=0, description="seed of gains, noise and shuffling")
    threads: int | None = speed_only(None, description="CPU threads; default: all cores")


def measure_mtsc(
    settings: MtscEvalSettings, checkpoints: Path, corpora: Sequence[Path], out: Path, *, new_run: bool = False
) -> Path:
    """Measure all checkpoints below a folder, or go on with the measurement in ``out``; return ``out``.

    Raises:
        UserError: if there is no finished checkpoint, a corpus is missing, a baseline is unknown, or ``out`` was
            measured otherwise.
    """
    limit_threads(settings.threads)
    baselines = baselines_named(settings.baselines)
    found = [TrainedMtsc.load(folder) for folder in finished_runs(checkpoints, KIND)]
    sources = [Artifact.open(root, "corpus") for root in corpora]
    inputs = {f"corpus{i or ''}": source.fingerprint for i, source in enumerate(sources)}
    free = ("snrs_db", "channels", "baselines", "main_system")  # they choose what is measured, and change no number
    open_run("mtsc-eval", settings.fingerprint_fields(), inputs, found, out, new_run, free=free)
    tasks = sorted({name for trained in found for name in trained.settings.tasks})
    beside = runs_of(baselines, tasks, found, settings.main_system)
    systems: dict[str, TrainedMtsc | BaselineRun] = {one.work_name: one for one in beside}
    systems = {**by_work_name(found), **systems}
    bench = _Bench(settings, sources)
    measure_missing(bench.measure, systems, dict.fromkeys(bench.parts(tasks), ("items",)), {"items": ITEMS}, out)
    return out


@dataclass
class _Bench:
    """What all systems are measured with."""

    settings: MtscEvalSettings
    corpora: Sequence[Artifact]
    _data: dict[tuple[str, str, str], TaskData] = field(default_factory=dict)

    def parts(self, tasks: Sequence[str]) -> dict[str, tuple[str, UsesChannelSettings, float]]:
        """Return task, channel and SNR of each part by its name."""
        return {
            f"{task}+{channel_name(channel)}+{snr_db:g}dB": (task, channel, snr_db)
            for task in tasks
            for channel in self.settings.channels
            for snr_db in self.settings.snrs_db
        }

    def measure(
        self, system: TrainedMtsc | BaselineRun, wanted: Sequence[str], tick: Callable[[], None]
    ) -> Iterator[tuple[str, Mapping[str, pa.Table]]]:
        """Yield the table of each part of a system; of a task or channel that it is not for, an empty one."""
        parts = self.parts(sorted(MEDIA_TASKS))
        ways: Callable[[str, UsesChannelSettings], list[Way]]
        if isinstance(system, BaselineRun):
            ways = partial(self._of_baseline, system)
        else:
            ways = partial(self._of_model, system, system.model())
        ready: dict[tuple[str, str], Sequence[Way]] = {}
        for part in wanted:
            task, channel, snr_db = parts[part]
            key = (task, channel_name(channel))
            if key not in ready:
                ready[key] = ways(task, channel)
            rows = [row for way in ready[key] for row in way.items(snr_db)]
            yield part, {"items": pa.Table.from_pylist(rows, schema=ITEMS)}
            tick()

    def _of_model(self, trained: TrainedMtsc, model: MtscModel, task: str, channel: UsesChannelSettings) -> list[Way]:
        """Return how a trained model is measured: once for each kind of inputs."""
        if task not in trained.settings.tasks:
            return []
        data, seed = self._task_data(trained, task, self.settings.split), self.settings.seed
        rows = data.some(self.settings.max_samples)
        names = data.row_ids(rows)
        media = {"own": None, "shuffled": shuffled(rows, data, make_generator(seed, "shuffle", task))}

        def receive(inputs: Inputs, snr_db: float) -> Sequence[Any]:
            draws = sample_draws(seed, names)
            return outputs_of(model, channel, data, rows, task, snr_db, draws, media=media[inputs])

        return [
            Way(
                system=trained.settings.system,
                seed=trained.settings.seed,
                task=task,
                channel=channel_name(channel),
                inputs=inputs,
                uses=uses_of(trained.settings.model)[task],
                data=data,
                rows=rows,
                receive=partial(receive, inputs),
                max_pictures=self.settings.max_pictures,
            )
            for inputs in self.settings.inputs
        ]

    def _of_baseline(self, run: BaselineRun, task: str, channel: UsesChannelSettings) -> list[Way]:
        """Return how a baseline is measured: with the samples' own inputs."""
        if task != run.task or channel.kind not in run.baseline.channels or "own" not in self.settings.inputs:
            return []
        setup = self._setup(run, channel)
        return [
            Way(
                system=run.system,
                seed=run.seed,
                task=task,
                channel=channel_name(channel),
                inputs="own",
                uses=setup.uses if run.baseline.counts_uses else 0,
                data=setup.data,
                rows=setup.rows,
                receive=run.baseline.prepare(setup),
                max_pictures=self.settings.max_pictures,
            )
        ]

    def _setup(self, run: BaselineRun, channel: UsesChannelSettings) -> BaselineSetup:
        split = self.settings.split
        return BaselineSetup(
            task=run.task,
            channel=channel,
            seed=self.settings.seed,
            beside=run.beside,
            corpus=corpus_for(run.task, self.corpora),
            split=split,
            rows=self._task_data(run.beside, run.task, split).some(self.settings.max_samples),
            load=lambda name: self._task_data(run.beside, run.task, name),
        )

    def _task_data(self, trained: TrainedMtsc, task: str, split: str) -> TaskData:
        sizes = trained.settings.model
        key = (task, split, frozen_encoder(sizes, MEDIA_TASKS[task].modality).key)
        if key not in self._data:
            self._data[key] = load_task(sizes, corpus_for(task, self.corpora), task, split)
        return self._data[key]


def channel_name(channel: UsesChannelSettings) -> str:
    """Return how a channel is written in tables: ``awgn``, or ``rician-4``."""
    return channel.kind if channel.kind == "awgn" else f"{channel.kind}-{channel.k_factor:g}"


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
