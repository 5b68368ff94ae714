"""The CSI that each end of the link uses, with every SVD computed once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from jaxtyping import Complex, Float, Int
from torch import Tensor

from sclmkb.common.channel.csi import load_csi, load_predicted
from sclmkb.common.channel.mimo import Beams, leading_beams
from sclmkb.common.errors import UserError

CsiSource = Literal["perfect", "stale", "predicted"]


class LinkState(NamedTuple):
    """One channel realisation a sample.

    Attributes:
        h: the true channel ``[B, Nr, Nt]``.
        beams: SVD of the CSI that the transmitter has.
        snr_db: SNR in dB, ``[B]``.
    """

    h: Tensor
    beams: Beams
    snr_db: Tensor

    def part(self, samples: slice) -> "LinkState":
        """Return the link of some samples."""
        return LinkState(self.h[samples], Beams(*(x[samples] for x in self.beams)), self.snr_db[samples])


@dataclass(frozen=True, kw_only=True)
class LinkCsi:
    """True channels and the transmitter's beams for N drops and P future steps.

    Attributes:
        source: which CSI the transmitter has: ``perfect`` the true future channel, ``stale`` the last noisy sample of
            the history, ``predicted`` a predictor's future channel.
        h: true channels ``[N, P, Nr, Nt]``.
        beams: SVDs of the transmitter's CSI, leading dimensions ``[N, P]``.
    """

    source: CsiSource
    h: Tensor
    beams: Beams

    @classmethod
    def build(
        cls,
        source: CsiSource,
        num_streams: int,
        history: Complex[Tensor, "N T Nr Nt"],
        future: Complex[Tensor, "N P Nr Nt"],
        predicted: Complex[Tensor, "N P Nr Nt"] | None = None,
    ) -> "LinkCsi":
        """Compute the beams of the source.

        Args:
            source: which CSI the transmitter has.
            num_streams: k.
            history: noisy samples up to now.
            future: true channels of the steps after now.
            predicted: predictions of ``future``, needed for source ``predicted``.

        Raises:
            ValueError: if ``predicted`` is needed and missing.
        """
        if source == "perfect":
            beams = leading_beams(future, num_streams)
        elif source == "stale":
            u, s, v = leading_beams(history[:, -1], num_streams)
            steps = future.shape[1]
            beams = Beams(*(x[:, None].expand(-1, steps, *x.shape[1:]) for x in (u, s, v)))
        elif predicted is None:
            raise ValueError("source 'predicted' needs predicted CSI")
        else:
            beams = leading_beams(predicted, num_streams)
        return cls(source=source, h=future, beams=beams)

    @property
    def num_drops(self) -> int:
        """N."""
        return self.h.shape[0]

    @property
    def num_steps(self) -> int:
        """P."""
        return self.h.shape[1]

    def state(self, drop: Int[Tensor, "B"], step: Int[Tensor, "B"], snr_db: Float[Tensor, "B"]) -> LinkState:
        """Return the link of a batch: which drop, which future step (from 0) and which SNR each sample has."""
        return LinkState(self.h[drop, step], self.beams.take(drop, step), snr_db)


def load_link_csi(csi: Path, predicted: Path | None, split: str, source: CsiSource, num_streams: int) -> LinkCsi:
    """Read a split of a CSI artifact, and predictions for its drops, joined by drop id, if the source needs them.

    Raises:
        UserError: as :func:`load_csi`; if the CSI is wideband; if predictions are needed and missing, lack a drop or
            have another shape.
    """
    drops = load_csi(csi, split)
    if drops.num_subcarriers > 1:
        raise UserError(
            f"{csi} is wideband ({drops.num_subcarriers} subcarriers), the transceiver needs narrowband CSI: make it"
            " with num_subcarriers=1"
        )
    if source != "predicted":
        return LinkCsi.build(source, num_streams, drops.history, drops.future)
    if predicted is None:
        raise UserError(
            "CSI source 'predicted' needs predicted CSI: name it with --predicted (sclmkb-gen cdg makes it)"
        )
    made = load_predicted(predicted, split)
    row = {drop_id: i for i, drop_id in enumerate(made.drop_ids)}
    missing = [drop_id for drop_id in drops.drop_ids if drop_id not in row]
    if missing:
        raise UserError(
            f"{predicted} lacks predictions for {len(missing)} of {len(drops.drop_ids)} '{split}' drops of {csi}, first"
            f" {missing[0]}: make them from this CSI (sclmkb-gen cdg)"
        )
    joined = made.predicted[[row[drop_id] for drop_id in drops.drop_ids]]
    if joined.shape != drops.future.shape:
        raise UserError(
            f"{predicted} holds predictions of shape {list(joined.shape[1:])}, the CSI at {csi} has"
            f" {list(drops.future.shape[1:])}: make them from this CSI (sclmkb-gen cdg)"
        )
    return LinkCsi.build(source, num_streams, drops.history, drops.future, joined)
