"""CSI feedback: the artifact again, with every sample of every history as its base station knows it from B bits.

::

    training histories ─► KLT, bits, Lloyd-Max ─► code book
    every noisy history ─► code book ─► quantised history;  clean history and future stay as they are

The code book is fitted to the *noisy training* histories alone: those are what a terminal reports.
"""

import functools
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.plan import Plan, Shard
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import csi_schema
from sclmkb.common.config import Settings, speed_only
from sclmkb.common.console import limit_threads
from sclmkb.common.csi.feedback import FeedbackCodebook, check_report
from sclmkb.common.csi.sets import csi_shard, csi_to_table, iter_csi
from sclmkb.common.errors import UserError
from sclmkb.common.executors.stage import Made, Session, Work

_MAX_SNAPSHOTS = 32_000
"""Training samples that the code book is fitted to, evenly spread over the split."""


class FeedbackSettings(Settings):
    """Settings of ``sclmkb-gen csi-feedback``."""

    feedback_bits: int = Field(
        default=256, ge=1, description="bits per report of one whole channel matrix, real and imaginary parts together"
    )
    threads: int | None = speed_only(None, description="CPU threads; default: all cores")


def plan_feedback(
    settings: FeedbackSettings,
    csi: Path,
    out: Path,
    *,
    fit: Path | None = None,
    new_run: bool = False,
    join: bool = False,
) -> Work:
    """Freeze the plan of a CSI artifact with quantised histories; see :meth:`Run.open`.

    The code book is fitted to the training split of ``fit``, by default that of ``csi``.

    Raises:
        UserError: on bad CSI, matrices that are too large, more bits than they take, another run in ``out``, or none
            to join.
    """
    limit_threads(settings.threads)
    source = Artifact.open(csi, "csi")
    trained = source if fit is None else Artifact.open(fit, "csi", verify=False)
    shape, other = (csi_shard(artifact).shape for artifact in (source, trained))
    if other.num_rx * other.num_tx != shape.num_rx * shape.num_tx:
        raise UserError(f"the CSI in {fit} has another matrix than that in {csi}: fit the code book to CSI of its size")
    check_report(shape.num_rx * shape.num_tx, settings.feedback_bits, str(csi))
    if "train" not in trained.splits:
        raise UserError(f"{trained.root} has no split 'train' to fit the code book to: name another with --fit")
    plan = Plan(
        kind="csi",
        tables={"csi": csi_schema(shape.num_history, shape.num_future, shape.num_rx, shape.num_tx)},
        settings={**settings.fingerprint_fields(), "source": source.plan.settings},
        shards=source.plan.shards,
        inputs={"csi": source.fingerprint, "fit": trained.fingerprint},
        versions=("torch",),
    )
    run = Run.open(out, plan, new_run=new_run, join=join)

    fitted = functools.cache(lambda: FeedbackCodebook.fit(_training_snapshots(trained), settings.feedback_bits))

    def produce(pending: Sequence[Shard], session: Session) -> Generator[Made, None, None]:
        book = fitted()
        for shard in pending:
            drops = csi_shard(source, shard.name)
            table = csi_to_table(replace(drops, history=book.quantise(drops.history)), shard.split)
            yield Made(shard=shard, tables={"csi": table})

    card = (
        "Channel state information after feedback",
        f"Every sample of a history went through {settings.feedback_bits} bits; clean histories and futures did not.",
    )
    return Work(name="csi-feedback", run=run, produce=produce, finish=lambda: run.finish(*card), unit="drops")


def _training_snapshots(trained: Artifact) -> Tensor:
    """Return noisy samples ``[M, Nr, Nt]`` of the training split, every k-th."""
    num_drops = sum(len(shard.row_ids) for shard in trained.plan.shards if shard.split == "train")
    parts, seen = [], 0
    for _, drops in iter_csi(trained.root, "train"):
        samples = drops.history.flatten(0, 1)
        step = max(1, num_drops * drops.history.shape[1] // _MAX_SNAPSHOTS)
        parts.append(samples[-seen % step :: step].clone())
        seen += len(samples)
    return torch.cat(parts)
