"""Samples of a task over the channel: what the receiver gives."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sclmkb.common.link.uses import Draws, UsesChannelSettings, draw_gains, normalise_uses, transmit
from sclmkb.common.models.lam.system import RECONSTRUCT, MtscModel, Uses
from sclmkb.common.tasks.media.data import TaskData
from sclmkb.common.tasks.reconstruct import to_bytes

_BATCH = 128


def carry(uses: Uses, channel: UsesChannelSettings, snr_db: Float[Tensor, " B"], draws: Draws) -> Uses:
    """Send uses over the channel, at power 1 per use and sample; what was not sent arrives as 0."""
    gains = draw_gains(channel, len(uses.symbols), draws).to(uses.symbols.device)
    symbols = normalise_uses(uses.symbols, uses.sent)
    return Uses(transmit(symbols, uses.sent, gains, snr_db, draws), uses.sent)


@torch.no_grad()
def outputs_of(
    model: MtscModel,
    channel: UsesChannelSettings,
    data: TaskData,
    rows: Int[Tensor, " B"],
    name: str,
    snr_db: float,
    draws: Draws,
    *,
    media: Int[Tensor, " B"] | None = None,
) -> Sequence[Any]:
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
    """
    device, given = next(model.parameters()).device, rows if media is None else media
    outputs: list[Any] = []
    for at in torch.split(torch.arange(len(rows)), _BATCH):
        item = data.item(rows[at], model.language_model.vocabulary, model.settings.max_prompt_tokens, given[at]).to(
            device
        )
        snr = torch.full((len(at),), snr_db, device=device)
        chosen = draws if isinstance(draws, torch.Generator) else [draws[i] for i in at.tolist()]
        if name == RECONSTRUCT:
            pictures = data.picture_values(given[at]).to(device)
            fused = model.fuse(item) if model.settings.codec.context else None
            arrived, _ = carry(model.send_pictures(pictures, fused, snr), channel, snr, chosen)
            outputs += list(to_bytes(model.receive_pictures(arrived, snr)).cpu())
        else:
            arrived, sent = carry(model.send(model.fuse(item), snr, name), channel, snr, chosen)
            outputs += model.write(*model.receive(arrived, sent, snr, name))
    return outputs
