"""Queries over the link, at many SNRs with both receivers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sclmkb.common.link.mimo import (
    Detected,
    amplitudes,
    complex_noise,
    detect_dmrs,
    detect_literal,
    noise_power,
    pilot_error,
    symbol_mse,
)
from sclmkb.common.link.sources import LinkCsi, LinkState
from sclmkb.common.models.transceiver import Receiver, Transceiver, TransceiverSettings
from sclmkb.common.seeds import make_generator


class Sent(NamedTuple):
    """What a sweep measured at one SNR with one receiver; Q queries.

    Attributes:
        receiver: which one.
        snr_db: of all queries.
        embeddings: retrieval embeddings ``[Q, d]``.
        symbol_mse: of each query, linear ``[Q]``.
    """

    receiver: Receiver
    snr_db: float
    embeddings: Tensor
    symbol_mse: Tensor


@dataclass(frozen=True, kw_only=True)
class QueryLink:
    """The link of Q queries. Drops, future steps and noise depend on the seed alone: the same for every system and SNR.

    What does not depend on the SNR is done once: drawing, and H V_k.

    Attributes:
        first: before an SNR is known; ``h`` is H V_k, since H itself, the largest of all, is not needed any more.
        noise: at the receive antennas ``[Q, Nr, m]``, of power 1.
        pilot_noise: the same in the pilots of receiver ``dmrs``, ``[Q, Nr, k]``.
        pilot_boost_db: pilot SNR of receiver ``dmrs`` less SNR.
    """

    first: LinkState
    noise: Tensor
    pilot_noise: Tensor
    pilot_boost_db: float

    @classmethod
    @torch.no_grad()
    def draw(
        cls,
        csi: LinkCsi,
        settings: TransceiverSettings,
        num_queries: int,
        *,
        steps: Sequence[int],
        seed: int,
        device: torch.device | str = "cpu",
    ) -> "QueryLink":
        """Draw the link of queries, each a caption of ``settings.num_uses`` channel uses.

        Args:
            csi: of the system that is measured; every CSI source has the same true channels.
            settings: channel uses, streams and pilots of the system.
            num_queries: Q.
            steps: future steps, from 0, that the queries take in turn.
            seed: what drops and noise follow from.
            device: where the link is computed.
        """
        draw = make_generator(seed, "queries")
        drop = torch.randint(csi.num_drops, (num_queries,), generator=draw)
        step = torch.tensor(list(steps))[torch.arange(num_queries) % len(steps)]
        first = csi.unallocated(drop, step).to(device)
        unit, num_rx = torch.ones(num_queries, device=device), first.h.shape[1]
        return cls(
            noise=complex_noise((num_queries, num_rx, settings.num_uses), unit, draw),
            pilot_noise=complex_noise((num_queries, num_rx, settings.num_streams), unit, draw),
            first=first._replace(h=first.h @ first.beams.v),
            pilot_boost_db=settings.dmrs_pilot_boost_db,
        )

    @torch.no_grad()
    def at(self, snr_db: float) -> LinkState:
        """Return the link at an SNR; its ``h`` is H V_k without the allocation of power."""
        return self.first.at(torch.full((len(self.noise),), snr_db, device=self.noise.device))

    def convey(
        self, f: Complex[Tensor, "Q k n"], link: LinkState, receivers: Sequence[Receiver]
    ) -> Iterator[tuple[Receiver, Detected]]:
        """Send F over the link and yield what each receiver makes of it; without a link F itself.

        F may be several side by side, ``[Q, k, n·m]``: all meet the same noise, and so do their pilots. What does not
        depend on the receiver is done once.
        """
        with torch.no_grad():  # on and off here, since a generator's caller goes on in between
            scaled = link.h * amplitudes(self.first.beams, link.snr_db, link.power)[:, None, :]
            noise = self.noise * noise_power(link.snr_db).sqrt()[:, None, None]
            y = scaled @ f
            y.view(*y.shape[:2], -1, noise.shape[2]).add_(noise[:, :, None])
        for receiver in receivers:
            with torch.no_grad():
                if link.bypass:
                    detected = Detected(f, link.stream_snr_db)
                elif receiver == "literal":
                    detected = detect_literal(y, link.beams, link.snr_db)
                else:
                    pilot_snr_db = link.snr_db + self.pilot_boost_db
                    effective = scaled + pilot_error(link.beams, self.pilot_noise, pilot_snr_db)
                    detected = detect_dmrs(y, effective, link.snr_db, pilot_snr_db)
            yield receiver, detected


def sweep_queries(
    model: Transceiver,
    text: Float[Tensor, "Q t"],
    csi: LinkCsi,
    *,
    snrs_db: Sequence[float],
    receivers: Sequence[Receiver],
    steps: Sequence[int],
    seed: int,
) -> Iterator[Sent]:
    """Send captions over the channels, and with the noise, of :class:`QueryLink`.

    The encoder's first layer does not depend on the SNR either, and is done once.

    Args:
        model: in evaluation mode.
        text: caption embeddings.
        csi: of the system that is measured.
        snrs_db: each of all queries.
        receivers: which ones, at every SNR.
        steps: future steps, from 0, that the queries take in turn.
        seed: what drops and noise follow from.

    Yields:
        One result an SNR and receiver, SNRs outermost.
    """
    device = next(model.parameters()).device
    queries = QueryLink.draw(csi, model.settings, len(text), steps=steps, seed=seed, device=device)
    with torch.no_grad():
        read = model.encoder.read(text.to(device))
    for snr_db in snrs_db:
        with torch.no_grad():
            link = queries.at(snr_db)
            f = model.encoder.features(read, link.snr_db, link.stream_snr_db)
            f = f if link.power == "equal" else model.limit_power(f, link)
        for receiver, detected in queries.convey(f, link, receivers):
            with torch.no_grad():
                embeddings, error = model.decode(detected, link).cpu(), symbol_mse(f, detected.symbols).cpu()
            yield Sent(receiver, snr_db, embeddings, error)
