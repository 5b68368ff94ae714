"""Queries over the link, at many SNRs with both receivers."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sclmkb.common.link.link import QueryLink, Receiver
from sclmkb.common.link.mimo import symbol_mse
from sclmkb.common.link.sources import LinkCsi
from sclmkb.common.models.transceiver import Transceiver


class Sent(NamedTuple):
    """What a sweep measured at one SNR with one receiver; Q queries.

    Attributes:
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
    """Send captions over the channels, and with the noise, of :class:`~sclmkb.common.link.link.QueryLink`.

    The encoder's first layer does not depend on the SNR either, and is done once. The model is in evaluation mode.

    Yields:
        One result per SNR and receiver, SNRs outermost.
    """
    device = next(model.parameters()).device
    queries = QueryLink.draw(
        csi,
        len(text),
        model.settings.num_uses,
        steps=steps,
        seed=seed,
        pilot_boost_db=model.settings.dmrs_pilot_boost_db,
        device=device,
    )
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
