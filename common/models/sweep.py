"""Queries over the link, at many SNRs with both receivers."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sclmkb.common.channel.link import LinkCsi
from sclmkb.common.channel.mimo import (
    Detected,
    amplitudes,
    complex_noise,
    detect_dmrs,
    detect_literal,
    noise_power,
    pilot_error,
    symbol_mse,
)
from sclmkb.common.models.transceiver import Receiver, Transceiver
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
    """Send captions over channels, and noise, that depend on the seed alone: the same for every system and SNR.

    What does not depend on the SNR is done once: drawing, H V_k, and the encoder's first layer. What does not depend on
    the receiver is done once an SNR.

    Args:
        model: in evaluation mode.
        text: caption embeddings.
        csi: of the system that is measured; every CSI source has the same true channels.
        snrs_db: each of all queries.
        receivers: which ones, at every SNR.
        steps: future steps, from 0, that the queries take in turn.
        seed: what drops and noise follow from.

    Yields:
        One result an SNR and receiver, SNRs outermost.
    """
    settings, device = model.settings, next(model.parameters()).device
    with torch.no_grad():  # on and off here, since a generator's caller goes on in between
        drop, step, draw = _places(len(text), csi, steps, seed)
        first = csi.unallocated(drop, step).to(device)
        unit, num_rx = torch.ones(len(text), device=device), first.h.shape[1]
        noise = complex_noise((len(text), num_rx, settings.num_uses), unit, draw)
        pilot_noise = complex_noise((len(text), num_rx, settings.num_streams), unit, draw)
        through, read = first.h @ first.beams.v, model.encoder.read(text.to(device))
        first = first._replace(h=through)  # H itself is not needed any more, and the largest of all
    for snr_db in snrs_db:
        with torch.no_grad():
            link = first.at(torch.full((len(text),), snr_db, device=device))
            f = model.encoder.features(read, link.snr_db, link.stream_snr_db)
            f = f if link.power == "equal" else model.limit_power(f, link)
            scaled = through * amplitudes(first.beams, link.snr_db, link.power)[:, None, :]
            y = scaled @ f + noise * noise_power(link.snr_db).sqrt()[:, None, None]
        for receiver in receivers:
            with torch.no_grad():
                if link.bypass:
                    detected = Detected(f, link.stream_snr_db)
                elif receiver == "literal":
                    detected = detect_literal(y, link.beams, link.snr_db)
                else:
                    pilot_snr_db = link.snr_db + settings.dmrs_pilot_boost_db
                    effective = scaled + pilot_error(link.beams, pilot_noise, pilot_snr_db)
                    detected = detect_dmrs(y, effective, link.snr_db, pilot_snr_db)
                embeddings, error = model.decode(detected, link).cpu(), symbol_mse(f, detected.symbols).cpu()
            yield Sent(receiver, snr_db, embeddings, error)


def _places(num: int, csi: LinkCsi, steps: Sequence[int], seed: int) -> tuple[Tensor, Tensor, torch.Generator]:
    """Return drop and future step of each query, and the generator that its noise is drawn from."""
    draw = make_generator(seed, "queries")
    drop = torch.randint(csi.num_drops, (num,), generator=draw)
    return drop, torch.tensor(list(steps))[torch.arange(num) % len(steps)], draw


def transmit_queries(
    model: Transceiver,
    text: Float[Tensor, "Q t"],
    csi: LinkCsi,
    *,
    snr_db: float,
    receiver: Receiver,
    steps: Sequence[int],
    seed: int,
) -> tuple[Float[Tensor, "Q d"], Float[Tensor, "Q"]]:
    """Return retrieval embeddings and symbol MSEs (linear) of queries at one SNR; see :func:`sweep_queries`."""
    (sent,) = sweep_queries(model, text, csi, snrs_db=(snr_db,), receivers=(receiver,), steps=steps, seed=seed)
    return sent.embeddings, sent.symbol_mse
