"""Samples of a task over the channel: what the receiver gives."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sclmkb.common.link.mimo_uses import UsesChannel
from sclmkb.common.link.uses import Draws, normalise_uses
from sclmkb.common.models.lam.rate import first_groups
from sclmkb.common.models.lam.system import RECONSTRUCT, Fused, MtscModel, Uses
from sclmkb.common.tasks.media.data import TaskData
from sclmkb.common.tasks.reconstruct import picture_loss, to_bytes

_BATCH = 128


class Received(NamedTuple):
    """What the receiver gives of B samples, and their complex uses, with what is sent beside them ``[B]``."""

    outputs: Sequence[Any]
    uses: Tensor


Rate = Callable[[Uses, Tensor | None, Tensor], tuple[Tensor, Tensor]]
"""Chooses the groups that B samples send: ``[B, G]``, and the complex uses that tell the receiver so ``[B]``.

It is given uses of samples that send everything, what the transmitter expects each to lose with the first 1 … G groups
``[B, G]`` (None at fixed rate), and their places among the samples of the measurement ``[B]``.
"""


Kept = dict[int, tuple[Fused, Tensor | None]]
"""What the fusion center gave of the same samples at another SNR, and what tokens of a text task read of it, by the
first place of each batch."""


def carry(uses: Uses, channel: UsesChannel, snr_db: Float[Tensor, " B"], draws: Draws) -> Uses:
    """Send uses over the channel, at power 1 per use and sample; what was not sent arrives as 0."""
    symbols = normalise_uses(uses.symbols, uses.sent)
    return Uses(channel.convey(symbols, uses.sent, snr_db, draws), uses.sent)


@torch.no_grad()
def outputs_of(
    model: MtscModel,
    channel: UsesChannel,
    data: TaskData,
    rows: Int[Tensor, " B"],
    name: str,
    snr_db: float,
    draws: Draws,
    *,
    media: Int[Tensor, " B"] | None = None,
    rate: Rate | None = None,
    kept: Kept | None = None,
) -> Received:
    """Return what the receiver gives of samples at one SNR: texts, or pictures of 8 bits ``[3, S, S]``.

    Args:
        model: in evaluation mode.
        channel: which.
        data: of the task.
        rows: of the samples.
        name: the task.
        snr_db: per complex use.
        draws: what gains and noise come from; of one generator per sample, the size of a batch does not matter.
        media: rows of other samples whose media take the place of their own: the control of shuffled inputs.
        rate: chooses what is sent; None: everything.
        kept: saves the fusion center's work where the same samples are sent at several SNRs.
    """
    outputs: list[Any] = []
    counted: list[Tensor] = []
    for at, uses, losses in _sent(model, data, rows, rows if media is None else media, name, snr_db, kept):
        snr = torch.full((len(at),), snr_db, device=uses.symbols.device)
        chosen = draws if isinstance(draws, torch.Generator) else [draws[i] for i in at.tolist()]
        beside = torch.zeros(len(at))
        if rate is not None:
            groups, beside = rate(uses, losses, at)
            uses = uses.only(groups)
        counted.append(uses.sent.sum(1).cpu() + beside)
        arrived, sent = carry(uses, channel, snr, chosen)
        if name == RECONSTRUCT:
            outputs += list(to_bytes(model.receive_pictures(arrived, snr)).cpu())
        else:
            outputs += model.write(*model.receive(arrived, sent, snr, name))
    return Received(outputs, torch.cat(counted))


class RateEvidence(NamedTuple):
    """What rates are chosen by, of B samples at one SNR.

    Attributes:
        losses: that the transmitter expects with the first 1 … G groups ``[B, G]``.
        power: of every group ``[B, G]``.
        bias: by how much the receiver's losses exceed those that were expected, means over the samples ``[G]``.
    """

    losses: Tensor
    power: Tensor
    bias: Tensor


@torch.no_grad()
def evidence_of(
    model: MtscModel,
    channel: UsesChannel,
    data: TaskData,
    rows: Int[Tensor, " B"],
    name: str,
    snr_db: float,
    draws: torch.Generator,
    kept: Kept | None = None,
) -> RateEvidence:
    """Return what rates are chosen by.

    Args:
        model: in evaluation mode; it was not trained at fixed rate.
        channel: which.
        data: of the task.
        rows: of the samples.
        name: the task.
        snr_db: per complex use.
        draws: what gains and noise come from.
        kept: see :func:`outputs_of`.
    """
    found = []
    for at, uses, losses in _sent(model, data, rows, rows, name, snr_db, kept):
        assert losses is not None
        snr, groups = torch.full((len(at),), snr_db, device=losses.device), losses.shape[1]
        lost = []
        for count in range(1, groups + 1):
            arrived = carry(uses.only(first_groups(torch.full((len(at),), count), groups)), channel, snr, draws)
            lost.append(_loss(model, data, rows[at], name, arrived, snr).cpu())
        found.append((losses.cpu(), uses.power(groups).cpu(), torch.stack(lost, dim=1)))
    losses, power, lost_of = (torch.cat(parts) for parts in zip(*found, strict=True))
    return RateEvidence(losses, power, (lost_of - losses).mean(0))


def _loss(model: MtscModel, data: TaskData, rows: Tensor, name: str, arrived: Uses, snr_db: Tensor) -> Tensor:
    """Return the loss that the receiver has with what arrived of samples, as training counts it."""
    if name == RECONSTRUCT:
        got = model.receive_pictures(arrived.symbols, snr_db)
        return picture_loss(got, data.picture_values(rows).to(got.device))
    texts = [of[0] for of in data.references(rows)]
    labels = model.language_model.vocabulary.numbers(texts, model.settings.max_text_tokens).to(snr_db.device)
    return model.text_loss(*model.receive(arrived.symbols, arrived.sent, snr_db, name), labels)


def _sent(
    model: MtscModel, data: TaskData, rows: Tensor, media: Tensor, name: str, snr_db: float, kept: Kept | None
) -> Iterator[tuple[Tensor, Uses, Tensor | None]]:
    """Yield places in ``rows``, all uses, and what is expected to be lost with fewer of them, batch by batch."""
    device = next(model.parameters()).device
    kept = {} if kept is None else kept
    for at in torch.split(torch.arange(len(rows)), _BATCH):
        place = int(at[0])
        snr = torch.full((len(at),), snr_db, device=device)
        if place not in kept and (model.settings.codec.takes_context or name != RECONSTRUCT):
            vocabulary, most = model.language_model.vocabulary, model.settings.max_prompt_tokens
            found = model.fuse(data.item(rows[at], vocabulary, most, media[at]).to(device))
            kept[place] = found, None if name == RECONSTRUCT else model.read(found, name)
        fused, read = kept.get(place, (None, None))
        if name == RECONSTRUCT:
            uses = model.send_pictures(data.picture_values(media[at]).to(device), fused, snr)
        else:
            assert fused is not None
            uses = model.send(fused, snr, name, read)
        yield at, uses, model.expected_losses(uses, fused, snr, name)
