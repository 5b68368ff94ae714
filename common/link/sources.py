"""The CSI that each end of the link uses, with every SVD computed once.

::

    CSI shards ──────┐                 ┌─ perfect: the true future channel
    AWGN, Rayleigh, ─┴─► true channel ─┼─ stale: the last sample of the history, with pilot noise
    Rician (fading)      and history   ├─ feedback: a sample of the history, with pilot noise, through B bits
                                       └─ predicted: what a predictor makes of the history
                                                └─► SVD, once per drop and step ─► power allocation ─► LinkState
"""

from functools import lru_cache
from pathlib import Path
from typing import Literal

from jaxtyping import Complex
from pydantic import Field, PositiveInt
from torch import Tensor

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.config import Settings
from sclmkb.common.csi.feedback import FeedbackCodebook, check_report
from sclmkb.common.csi.sets import CsiSet, load_csi, load_predicted
from sclmkb.common.errors import UserError
from sclmkb.common.link.fading import FadingSettings, draw_drops
from sclmkb.common.link.mimo import Power
from sclmkb.common.link.state import CsiSource, LinkCsi, LinkState

__all__ = ["Channel", "CsiSource", "LinkCsi", "LinkSettings", "LinkState", "load_link_csi"]

Channel = Literal["shards", "awgn", "rayleigh", "rician", "none"]

MAX_SNAPSHOTS = 20_000
"""Most channels that a code book of feedback is fitted to."""


class LinkSettings(Settings):
    """What lies between JSCC encoder and decoder, beside its size, CSI source and receiver.

    ``channel: none`` hands the encoder's features to the decoder unchanged: the same model without a link.
    """

    channel: Channel = Field(
        default="shards",
        description="shards: the channels of a CSI artifact; awgn, rayleigh, rician: drawn; none: no link at all",
    )
    power: Power = Field(default="equal", description="how the power is divided among the streams")
    feedback_bits: PositiveInt = Field(
        default=512, description="bits B of one report of a whole channel matrix, for the CSI source feedback"
    )
    feedback_delay: PositiveInt = Field(
        default=1,
        description="age of the fed-back sample at the first future step, in steps; 1: the last sample of the history",
    )
    fading: FadingSettings = Field(default=FadingSettings(), description="the drawn channels awgn, rayleigh and rician")

    @property
    def needs_csi(self) -> bool:
        """Whether a CSI artifact is needed."""
        return self.channel == "shards"


def load_link_csi(
    csi: Path | None, predicted: Path | None, split: str, source: CsiSource, num_streams: int, settings: LinkSettings
) -> LinkCsi:
    """Return the channels of a split, and the transmitter's CSI.

    Args:
        csi: CSI artifact, for channel ``shards``.
        predicted: predictions for its drops, joined by drop id, for source ``predicted``.
        split: which one; of drawn channels, what their seed depends on.
        source: which CSI the transmitter has. A code book of feedback is fitted to the split ``train`` alone.
        num_streams: k.
        settings: of the link.

    Raises:
        UserError: as :func:`load_csi` and :meth:`LinkCsi.build`; if the CSI is missing or wideband; if predictions are
            needed and missing, lack a drop or have another shape; if feedback cannot take its bits.
    """
    channel, bits, delay = settings.channel, settings.feedback_bits, settings.feedback_delay
    if channel == "none":
        return LinkCsi.without_link(num_streams)
    joined = codebook = None
    if channel == "shards":
        if csi is None:
            raise UserError("channel 'shards' needs a CSI artifact: name it with --csi (sclmkb-gen csi makes it)")
        drops = load_csi(csi, split)
        if drops.num_subcarriers > 1:
            raise UserError(
                f"{csi} is wideband ({drops.num_subcarriers} subcarriers), the transceiver needs narrowband CSI: make"
                " it with num_subcarriers=1"
            )
        history, future = drops.history, drops.future
        if source == "feedback":
            codebook = _shards_codebook(csi, Artifact.open(csi, "csi", verify=False).fingerprint, bits)
        elif source == "predicted":
            joined = _join_predicted(drops, csi, predicted, split)
    else:
        if channel == "awgn":  # both ends know it, nothing of it is to be estimated
            source = "perfect"
        if source == "predicted":
            raise UserError(
                f"CSI source 'predicted' is for CSI shards: channel '{channel}' takes perfect, stale and feedback"
            )
        history, future = draw_drops(channel, settings.fading, num_streams, delay, split)
        if source == "feedback":
            trained, _ = draw_drops(channel, settings.fading, num_streams, delay, "train")
            codebook = _fit(trained.flatten(0, 1), bits, f"channel '{channel}'")
    return LinkCsi.build(
        source, num_streams, history, future, joined, codebook=codebook, delay=delay, power=settings.power
    )


@lru_cache(maxsize=4)
def _shards_codebook(csi: Path, fingerprint: str, num_bits: int) -> FeedbackCodebook:
    """Fit a code book to the training split of an artifact; ``fingerprint`` tells apart what the folder held."""
    return _fit(load_csi(csi, "train").history.flatten(0, 1), num_bits, str(csi))


def _fit(samples: Complex[Tensor, "M Nr Nt"], num_bits: int, where: str) -> FeedbackCodebook:
    check_report(samples.shape[1] * samples.shape[2], num_bits, where)
    return FeedbackCodebook.fit(samples[:: max(1, len(samples) // MAX_SNAPSHOTS)], num_bits)


def _join_predicted(drops: CsiSet, csi: Path, predicted: Path | None, split: str) -> Tensor:
    """Return the predictions for the drops, in their order."""
    if predicted is None:
        raise UserError(
            "CSI source 'predicted' needs predicted CSI: name it with --predicted (sclmkb-gen cdg makes it)"
        )
    made_for, made = load_predicted(predicted, split)
    row = {drop_id: i for i, drop_id in enumerate(made_for)}
    missing = [drop_id for drop_id in drops.drop_ids if drop_id not in row]
    if missing:
        raise UserError(
            f"{predicted} lacks predictions for {len(missing)} of {len(drops.drop_ids)} '{split}' drops of {csi}, first"
            f" {missing[0]}: make them from this CSI (sclmkb-gen cdg)"
        )
    joined = made[[row[drop_id] for drop_id in drops.drop_ids]]
    if joined.shape != drops.future.shape:
        raise UserError(
            f"{predicted} holds predictions of shape {list(joined.shape[1:])}, the CSI at {csi} has"
            f" {list(drops.future.shape[1:])}: make them from this CSI (sclmkb-gen cdg)"
        )
    return joined
