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
from pathlib import Path
from typing import Literal

import pyarrow as pa
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.config import Settings, speed_only
from sclmkb.common.console import limit_threads
from sclmkb.common.link.uses import UsesChannelSettings, sample_draws
from sclmkb.common.models.lam.frozen import frozen_encoder
from sclmkb.common.models.lam.system import RECONSTRUCT, MtscModel, uses_of
from sclmkb.common.seeds import make_generator
from sclmkb.common.tasks.media.data import TaskData, corpus_for, load_task
from sclmkb.common.tasks.media.receive import outputs_of
from sclmkb.common.tasks.media.trained import KIND, MEDIA_TASKS, TrainedMtsc
from sclmkb.evaluate.measure.run import measure_missing, open_run
from sclmkb.evaluate.measure.systems import finished_runs

ITEMS = pa.schema(
    [
        ("system", pa.string()),
        ("seed", pa.int64()),
        ("task", pa.string()),
        ("channel", pa.string()),
        ("snr_db", pa.float64()),  # per complex use
        ("inputs", pa.string()),  # "own", or "shuffled": the medium of another sample
        ("uses", pa.int64()),  # complex channel uses of the sample
        ("row_id", pa.string()),
        ("group", pa.string()),  # samples about one medium; intervals are clustered by it
        ("output", pa.string()),  # the text that the receiver wrote; empty for pictures
        ("measure", pa.string()),
        ("value", pa.float64()),
    ]
)

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
    seed: int = Field(default=0, description="seed of gains, noise and shuffling")
    threads: int | None = speed_only(None, description="CPU threads; default: all cores")


def measure_mtsc(
    settings: MtscEvalSettings, checkpoints: Path, corpora: Sequence[Path], out: Path, *, new_run: bool = False
) -> Path:
    """Measure all checkpoints below a folder, or go on with the measurement in ``out``; return ``out``.

    Raises:
        UserError: if there is no finished checkpoint, a corpus is missing, or ``out`` was measured otherwise.
    """
    limit_threads(settings.threads)
    found = [TrainedMtsc.load(folder) for folder in finished_runs(checkpoints, KIND)]
    sources = [Artifact.open(root, "corpus") for root in corpora]
    inputs = {f"corpus{i or ''}": source.fingerprint for i, source in enumerate(sources)}
    open_run("mtsc-eval", settings.fingerprint_fields(), inputs, found, out, new_run, free=("snrs_db", "channels"))
    bench = _Bench(settings, sources)
    tasks = sorted({name for trained in found for name in trained.settings.tasks})
    parts = dict.fromkeys(bench.parts(tasks), ("items",))
    measure_missing(bench.measure, found, parts, {"items": ITEMS}, out)
    return out


@dataclass
class _Bench:
    """What all checkpoints are measured with."""

    settings: MtscEvalSettings
    corpora: Sequence[Artifact]
    _data: dict[tuple[str, str], TaskData] = field(default_factory=dict)

    def parts(self, tasks: Sequence[str]) -> dict[str, tuple[str, UsesChannelSettings, float]]:
        """Return task, channel and SNR of each part by its name."""
        return {
            f"{task}+{channel_name(channel)}+{snr_db:g}dB": (task, channel, snr_db)
            for task in tasks
            for channel in self.settings.channels
            for snr_db in self.settings.snrs_db
        }

    def measure(
        self, trained: TrainedMtsc, wanted: Sequence[str], tick: Callable[[], None]
    ) -> Iterator[tuple[str, Mapping[str, pa.Table]]]:
        """Yield the table of each part of a checkpoint; of a task that it was not trained for, an empty one."""
        model, parts = trained.model(), self.parts(sorted(MEDIA_TASKS))
        for part in wanted:
            name, channel, snr_db = parts[part]
            rows = [] if name not in trained.settings.tasks else self._rows(trained, model, name, channel, snr_db)
            yield part, {"items": pa.Table.from_pylist(rows, schema=ITEMS)}
            tick()

    def _rows(
        self, trained: TrainedMtsc, model: MtscModel, name: str, channel: UsesChannelSettings, snr_db: float
    ) -> list[dict[str, object]]:
        data = self._task_data(trained, name)
        rows = data.some(self.settings.max_samples)
        ids = data.row_ids(rows)
        of = {"system": trained.settings.system, "seed": trained.settings.seed, "task": name}
        of |= {"channel": channel_name(channel), "snr_db": snr_db, "uses": uses_of(trained.settings.model)[name]}
        found: list[dict[str, object]] = []
        for inputs in self.settings.inputs:
            draws = sample_draws(self.settings.seed, ids)
            media = (
                None if inputs == "own" else shuffled(rows, data, make_generator(self.settings.seed, "shuffle", name))
            )
            outputs = outputs_of(model, channel, data, rows, name, snr_db, draws, media=media)
            scores = MEDIA_TASKS[name].score(outputs, data.references(rows))
            texts = outputs if name != RECONSTRUCT else [""] * len(rows)
            for measure, values in scores.items():
                for row_id, group, text, value in zip(ids, data.groups(rows), texts, values, strict=True):
                    found.append(
                        {**of, "inputs": inputs, "row_id": row_id, "group": group, "output": text}
                        | {"measure": measure, "value": float(value)}
                    )
        return found

    def _task_data(self, trained: TrainedMtsc, name: str) -> TaskData:
        sizes = trained.settings.model
        key = (name, frozen_encoder(sizes, MEDIA_TASKS[name].modality).key)
        if key not in self._data:
            self._data[key] = load_task(sizes, corpus_for(name, self.corpora), name, self.settings.split)
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
