"""The channels and the transmitter's CSI of many drops, and of the samples of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from sclmkb.common.csi.feedback import FeedbackCodebook
from sclmkb.common.csi.tensors import noise_power
from sclmkb.common.errors import UserError
from sclmkb.common.link.mimo import (
    Beams,
    Power,
    allocate_power,
    bounded_db,
    leading_beams,
    stream_amplitudes,
)

CsiSource = Literal["perfect", "stale", "feedback", "predicted"]


class LinkState(NamedTuple):
    """One channel realisation per sample.

    Attributes:
        h: the true channel ``[B, Nr, Nt]``.
        beams: SVD of the CSI that the transmitter has, with its power allocation on them.
        snr_db: SNR in dB, ``[B]``.
        power: the allocation.
        bypass: there is no link: what is sent is what is received.
        is_precoded: ``h`` is H V_k ``[B, Nr, k]``, computed once for many transmissions.
    """

    h: Tensor
    beams: Beams
    snr_db: Tensor
    power: Power = "equal"
    bypass: bool = False
    is_precoded: bool = False

    def part(self, samples: slice) -> "LinkState":
        """Return the link of some samples."""
        beams = self.beams.map(lambda x: x[samples])
        return self._replace(h=self.h[samples], beams=beams, snr_db=self.snr_db[samples])

    def to(self, device: torch.device | str) -> "LinkState":
        """Return the same on another device."""
        beams = self.beams.map(lambda x: x.to(device))
        return self._replace(h=self.h.to(device), beams=beams, snr_db=self.snr_db.to(device))

    def at(self, snr_db: Float[Tensor, "B"]) -> "LinkState":
        """Return the link at an SNR, with power allocated; there is none yet (:meth:`LinkCsi.unallocated`)."""
        if self.bypass:
            snr_db = torch.full_like(snr_db, torch.inf)
        if self.power == "equal":
            return self._replace(snr_db=snr_db)
        amplitudes = stream_amplitudes(self.beams, snr_db)
        h = self.h * amplitudes[:, None, :] if self.is_precoded else self.h
        return self._replace(h=h, beams=self.beams.scaled(amplitudes), snr_db=snr_db)

    def precoded(self) -> "LinkState":
        """Return the same link with H V_k in the place of H, which many transmissions then need not compute."""
        return self._replace(h=self.h @ self.beams.v, is_precoded=True)

    @property
    def stream_snr_db(self) -> Float[Tensor, "B k"]:
        """SNR in dB of each stream, as the transmitter believes."""
        noise = noise_power(self.snr_db).clamp(min=1e-20)[:, None]
        return bounded_db(self.beams.s.square() / (self.beams.s.shape[-1] * noise))


@dataclass(frozen=True, kw_only=True)
class LinkCsi:
    """True channels and the transmitter's beams for N drops and P future steps.

    Attributes:
        source: which CSI the transmitter has: ``perfect`` the true future channel, ``stale`` the last noisy sample of
            the history, ``feedback`` a noisy sample of the history as B bits describe it, ``predicted`` a predictor's
            future channel.
        h: true channels ``[N, P, Nr, Nt]``.
        beams: SVDs of the transmitter's CSI, leading dimensions ``[N, P]``.
        power: how power is divided among the streams.
        bypass: there is no link.
    """

    source: CsiSource
    h: Tensor
    beams: Beams
    power: Power = "equal"
    bypass: bool = False

    @classmethod
    def build(
        cls,
        source: CsiSource,
        num_streams: int,
        history: Complex[Tensor, "N T Nr Nt"],
        future: Complex[Tensor, "N P Nr Nt"],
        predicted: Complex[Tensor, "N P Nr Nt"] | None = None,
        *,
        codebook: FeedbackCodebook | None = None,
        delay: int = 1,
        power: Power = "equal",
    ) -> "LinkCsi":
        """Compute the beams of the source.

        Args:
            source: which CSI the transmitter has.
            num_streams: k.
            history: noisy samples up to now.
            future: true channels of the steps after now.
            predicted: predictions of ``future``, needed for source ``predicted``.
            codebook: quantiser of the reports, needed for source ``feedback``.
            delay: age of the report at the first future step; 1: the last sample of the history.
            power: how power is divided among the streams.

        Raises:
            UserError: if there are more streams than the rank of a channel, or the history is too short for the delay.
            ValueError: if ``predicted`` or ``codebook`` is needed and missing.
        """
        if source == "perfect":
            known = future
        elif source == "stale":
            known = history[:, -1:]
        elif source == "feedback":
            if codebook is None:
                raise ValueError("source 'feedback' needs a code book")
            if delay > history.shape[1]:
                raise UserError(
                    f"feedback_delay = {delay} steps: the history has {history.shape[1]} samples; set a smaller delay"
                )
            known = codebook.quantise(history[:, history.shape[1] - delay, None])
        elif predicted is None:
            raise ValueError("source 'predicted' needs predicted CSI")
        else:
            known = predicted
        beams = leading_beams(known, num_streams)
        _check_rank(source, beams)
        beams = beams.map(lambda x: x.expand(-1, future.shape[1], *x.shape[2:]))
        return cls(source=source, h=future, beams=beams, power=power)

    @classmethod
    def without_link(cls, num_streams: int) -> "LinkCsi":
        """Return a placeholder for no link: one drop, which is never used."""
        eye = num_streams**0.5 * torch.eye(num_streams, dtype=torch.complex64)[None, None]
        return cls(source="perfect", h=eye, beams=leading_beams(eye, num_streams), bypass=True)

    def to(self, device: torch.device | str) -> "LinkCsi":
        """Return the same on another device."""
        return replace(self, h=self.h.to(device), beams=self.beams.map(lambda x: x.to(device)))

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
        return self.unallocated(drop, step).at(snr_db)

    def unallocated(self, drop: Int[Tensor, "B"], step: Int[Tensor, "B"]) -> LinkState:
        """Return the link of a batch before an SNR is known, to be used with :meth:`LinkState.at`."""
        beams = self.beams.map(lambda x: x[drop, step])
        nowhere = torch.full(drop.shape, torch.nan, device=self.h.device)
        return LinkState(self.h[drop, step], beams, nowhere, self.power, self.bypass)

    def spectral_efficiency(self, steps: Sequence[int], snr_db: float) -> float:
        """Return the mean of log2 det(I + ρ/k V^H H^H H V) over drops and steps in bit per channel use.

        V are the transmitter's beams with their power; NaN without a link.
        """
        if self.bypass:
            return float("nan")
        steps = list(steps)
        rho = 10 ** (snr_db / 10) / self.beams.s.shape[-1]
        if self.power == "equal":
            gains = self._equal_gains[:, steps]
        else:
            h, beams = self.h[:, steps], self.beams.map(lambda x: x[:, steps])
            beams = allocate_power(beams, torch.full(h.shape[:2], snr_db, device=h.device), self.power)
            gains = _gains(h @ beams.v)
        return float(torch.log2(1 + rho * gains.double().clamp(min=0)).sum(-1).mean())

    @cached_property
    def _equal_gains(self) -> Float[Tensor, "N P k"]:
        """Gains with equal power, the same at every SNR."""
        return _gains(self.h @ self.beams.v)


def _gains(effective: Complex[Tensor, "N P Nr k"]) -> Float[Tensor, "N P k"]:
    gains: Tensor = torch.linalg.eigvalsh(effective.mH @ effective)
    return gains


def _check_rank(source: CsiSource, beams: Beams) -> None:
    """Refuse more streams than the numerical rank of a channel; what CSI with quantisation loses is no error."""
    if source == "feedback":
        return
    full = beams.s[..., -1] > 1e-5 * beams.s[..., 0]
    if not full.all():
        least = int((beams.s > 1e-5 * beams.s[..., :1]).sum(-1).min())
        raise UserError(
            f"num_streams = {beams.s.shape[-1]} is more than the rank of {int((~full).sum())} of {full.numel()}"
            f" channels of CSI '{source}': set at most {least}, or leave these drops out"
        )
