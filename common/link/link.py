"""The link of the system model, equations (2) to (5): precode, channel, detect. Every transmission goes this way.

::

    H  = U Σ V^H                        (2)
    X  = V_k F                          (3)
    Y  = H X + N                        (4)
    F~ = U_k^H Y = Σ_k F + U_k^H N      (5)

    F [B, k, m] ─► X = V_k F (3) ─► Y = H X + N (4) ─► receiver (5) ─► F~ [B, k, m]

V_k holds the k strongest right singular vectors of the CSI that the transmitter has. The second form of (5) holds if
that is the true channel H. N is the noise at the receive antennas.

Training and search send each sample once, see :func:`convey`. A sweep sends the same samples at many SNRs to both
receivers: :class:`QueryLink` draws channels and noise once, and puts H V_k in the place of H.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sclmkb.common.csi.tensors import noise_power
from sclmkb.common.link.mimo import Detected, detect_dmrs, detect_literal
from sclmkb.common.link.state import LinkCsi, LinkState
from sclmkb.common.seeds import make_generator

Receiver = Literal["literal", "dmrs"]
RECEIVERS: tuple[Receiver, ...] = ("literal", "dmrs")


class Noise(NamedTuple):
    """The noise of transmissions, of power 1.

    Attributes:
        antennas: at the receive antennas ``[B, Nr, m]``.
        pilots: in the demodulation pilots of receiver ``dmrs`` ``[B, Nr, k]``; without it, none.
    """

    antennas: Tensor
    pilots: Tensor | None = None

    @classmethod
    def draw(
        cls, link: LinkState, num_uses: int, generator: torch.Generator | None = None, *, pilots: bool = True
    ) -> "Noise":
        """Draw the noise of transmissions of m channel uses, on the device of the link."""
        num, num_rx = link.h.shape[:2]
        antennas = white_noise((num, num_rx, num_uses), link.h.device, generator)
        size = (num, num_rx, link.beams.s.shape[-1])
        return cls(antennas, white_noise(size, link.h.device, generator) if pilots else None)


def white_noise(
    size: tuple[int, ...], device: torch.device, generator: torch.Generator | None
) -> Complex[Tensor, "..."]:
    """Return circular complex Gaussian noise of variance 1; it is drawn where the generator is, whatever the device."""
    drawn_on = device if generator is None else generator.device
    return torch.randn(size, dtype=torch.complex64, generator=generator, device=drawn_on).to(device)


def transmit(
    link: LinkState, f: Complex[Tensor, "B k n"], noise: Complex[Tensor, "B Nr m"]
) -> Complex[Tensor, "B Nr n"]:
    """Return Y = H V_k F + N, (3) and (4), with N from noise of power 1.

    F may be several batches side by side, n a multiple of m. All meet the same channel and the same noise.
    """
    y = link.h @ (f if link.is_precoded else link.beams.v @ f)
    scaled = noise * noise_power(link.snr_db).sqrt()[:, None, None]
    y.view(*y.shape[:2], -1, noise.shape[2]).add_(scaled[:, :, None])
    return y


def detect(
    link: LinkState, y: Complex[Tensor, "B Nr n"], receiver: Receiver, noise: Noise, pilot_boost_db: float = 0.0
) -> Detected:
    """Return what a receiver makes of Y, (5): ``literal`` knows the transmitter's CSI, ``dmrs`` has pilots.

    ``pilot_boost_db`` is their SNR less that of the link.

    Raises:
        ValueError: if receiver ``dmrs`` has no pilot noise.
    """
    if receiver == "literal":
        return detect_literal(y, link.beams, link.snr_db)
    if noise.pilots is None:
        raise ValueError("receiver 'dmrs' needs the noise of its pilots")
    pilot_snr_db = link.snr_db + pilot_boost_db
    effective = estimate_effective_channel(link, noise.pilots, pilot_snr_db)
    return detect_dmrs(y, effective, link.snr_db, pilot_snr_db)


def estimate_effective_channel(
    link: LinkState, noise: Complex[Tensor, "B Nr k"], pilot_snr_db: Float[Tensor, "B"]
) -> Complex[Tensor, "B Nr k"]:
    """Return the least-squares estimate of H V_k from k orthogonal demodulation pilots of total power 1 per use.

    The error of each entry is circular Gaussian with variance 1 / pilot SNR. Silent streams send no pilots, and the
    receiver knows it: their columns are zero.
    """
    deviation = noise_power(pilot_snr_db).sqrt()[:, None] * (link.beams.s > 0)
    effective = link.h if link.is_precoded else link.h @ link.beams.v
    return effective + noise * deviation[:, None, :]


def convey(
    link: LinkState,
    f: Complex[Tensor, "B k m"],
    receiver: Receiver,
    generator: torch.Generator | None = None,
    pilot_boost_db: float = 0.0,
) -> Detected:
    """Return what a receiver makes of F, with noise from a generator; without a link, F itself."""
    if link.bypass:
        return Detected(f, link.stream_snr_db)
    noise = Noise.draw(link, f.shape[2], generator, pilots=receiver == "dmrs")
    return detect(link, transmit(link, f, noise.antennas), receiver, noise, pilot_boost_db)


@dataclass(frozen=True, kw_only=True)
class QueryLink:
    """The link of Q queries. Drops, future steps and noise depend on the seed alone: the same for every system and SNR.

    What does not depend on the SNR is done once: drawing, and H V_k.

    Attributes:
        first: the link before an SNR is known; ``h`` is H V_k. H itself, the largest tensor, is not needed any more.
        noise: of each query.
        pilot_boost_db: pilot SNR of receiver ``dmrs`` less SNR.
    """

    first: LinkState
    noise: Noise
    pilot_boost_db: float

    @classmethod
    @torch.no_grad()
    def draw(
        cls,
        csi: LinkCsi,
        num_queries: int,
        num_uses: int,
        *,
        steps: Sequence[int],
        seed: int,
        pilot_boost_db: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> "QueryLink":
        """Draw the link of queries.

        Args:
            csi: of the system that is measured; every CSI source has the same true channels.
            num_queries: Q.
            num_uses: m of each query.
            steps: future steps, from 0, that the queries take in turn.
            seed: what drops and noise follow from.
            pilot_boost_db: pilot SNR of receiver ``dmrs`` less SNR.
            device: where the link is computed.
        """
        draw = make_generator(seed, "queries")
        drop = torch.randint(csi.num_drops, (num_queries,), generator=draw)
        step = torch.tensor(list(steps))[torch.arange(num_queries) % len(steps)]
        first = csi.unallocated(drop, step).to(device)
        noise = Noise.draw(first, num_uses, draw)
        return cls(first=first.precoded(), noise=noise, pilot_boost_db=pilot_boost_db)

    @torch.no_grad()
    def at(self, snr_db: float) -> LinkState:
        """Return the link at an SNR."""
        return self.first.at(torch.full((len(self.first.h),), snr_db, device=self.first.h.device))

    def convey(
        self, f: Complex[Tensor, "Q k n"], link: LinkState, receivers: Sequence[Receiver]
    ) -> Iterator[tuple[Receiver, Detected]]:
        """Send F over the link and yield what each receiver makes of it; without a link F itself.

        F may be several batches side by side, ``[Q, k, n·m]``. All meet the same noise, and so do their pilots. What
        does not depend on the receiver is done once.
        """
        with torch.no_grad():  # on and off here, since a generator's caller goes on in between
            y = f if link.bypass else transmit(link, f, self.noise.antennas)
        for receiver in receivers:
            with torch.no_grad():
                if link.bypass:
                    detected = Detected(f, link.stream_snr_db)
                else:
                    detected = detect(link, y, receiver, self.noise, self.pilot_boost_db)
            yield receiver, detected
