"""The loss of a training step: features, their fusion, the link, and what is compared at its end.

::

    source caption [B, t] ─► E_α ─► F_s ─┐
                                         ├─ fusion (25)-(29) ─► channel ─► D_β ─► t^ ─┐
    generated captions [B, g, t] ► E_α ► F_g (mean of g) ┘                            ├─ loss over all pairs
    media embeddings [P, d] ──────────────────────────────────────────────────────────┘
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sclmkb.common.link.link import RECEIVERS, Receiver
from sclmkb.common.link.sources import LinkState
from sclmkb.common.models.transceiver import Transceiver
from sclmkb.common.tasks.base import Wanted
from sclmkb.common.tasks.trained import JsccSettings
from sclmkb.train.semantic.fusion import FusionWeights, fuse, fusion_weights, pool_importance


class Pairs(NamedTuple):
    """What a step compares; B captions, P media.

    Attributes:
        source: embeddings of the source captions ``[B, t]``.
        generated: embeddings of generated captions of each, the source's where there is none, ``[B, g, t]``.
        has_generated: which of them there are ``[B, g]``.
        num_generated: how many each caption has to choose from ``[B]``.
        identity: what each caption describes ``[B]``.
        media: embeddings of the media ``[P, d]``.
        media_identity: what each of them shows ``[P]``.
    """

    source: Tensor
    generated: Tensor
    has_generated: Tensor
    num_generated: Tensor
    identity: Tensor
    media: Tensor
    media_identity: Tensor


class Objective:
    """Computes the loss of a batch; the accelerator says at which precision the networks run."""

    def __init__(self, settings: JsccSettings, model: Transceiver, criterion: nn.Module, accelerator: Any) -> None:
        self.settings, self.model, self.criterion, self.accelerator = settings, model, criterion, accelerator

    def loss(self, pairs: Pairs, link: LinkState, draw: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the loss, and what else to log: with fusion of two features the mean of |w - 0.5|.

        The link has one channel per caption. Noise and choices follow from ``draw``.
        """
        settings, batch_size = self.settings, len(pairs.source)
        fusion = settings.fusion if bool(pairs.has_generated.any()) else "none"
        if fusion in ("none", "extra_samples"):
            text = pairs.source
            if fusion == "extra_samples":
                chance = torch.rand(batch_size, generator=draw).to(text.device)
                swap = chance * (1 + pairs.num_generated) >= 1
                text = torch.where(swap[:, None], pairs.generated[:, 0], text)
            return self.task_losses([self.encode(text, link)], link, pairs, draw)[0], {}
        f_s, f_g = self.features(pairs, link)
        half = pairs.source.new_full((batch_size,), 0.5)
        weights = FusionWeights(half, half)
        if fusion != "average":
            weights = self.cdfc_weights(f_s, f_g, link, pairs, draw)
        there = pairs.has_generated.any(1)
        measured = {"weight_spread": float((weights.source - 0.5).abs()[there].mean())}
        fused = torch.where(there[:, None, None], self.model.limit_power(fuse(f_s, f_g, weights), link), f_s)
        if fusion == "mixed":
            alone, loss = self.task_losses([f_s, fused], link, pairs, draw)
            return (1 - settings.mixed_share) * alone + settings.mixed_share * loss, measured
        return self.task_losses([fused], link, pairs, draw)[0], measured

    def features(self, pairs: Pairs, link: LinkState) -> tuple[Tensor, Tensor]:
        """Return F_s (22) and F_g (23) of every caption, ``[B, k, m]``; F_g is the mean of several, of unit power."""
        batch_size, width = pairs.has_generated.shape
        texts = torch.cat([pairs.source, pairs.generated.transpose(0, 1).flatten(0, 1)])
        f_s, *rest = torch.split(self.encode(texts, link), batch_size)
        if width == 1:
            return f_s, rest[0]
        share = pairs.has_generated / pairs.has_generated.sum(1, keepdim=True).clamp(min=1)
        mean = torch.stack(rest, dim=1) * share[:, :, None, None]
        f_g = torch.where(pairs.has_generated.any(1)[:, None, None], mean.sum(1), f_s)
        return f_s, self.model.limit_power(f_g, link)

    def cdfc_weights(
        self, f_s: Tensor, f_g: Tensor, link: LinkState, pairs: Pairs, draw: torch.Generator
    ) -> FusionWeights:
        """Return the weights (28) from the gradients of :meth:`cdfc_gradients`."""
        importance = self.settings.importance
        found = zip(self.cdfc_gradients(f_s, f_g, link, pairs, draw), (f_s, f_g), strict=True)
        source, generated = (pool_importance(g, f, importance) for g, f in found)
        return fusion_weights(source, generated, standardise=importance != "signed")

    def cdfc_gradients(
        self, f_s: Tensor, f_g: Tensor, link: LinkState, pairs: Pairs, draw: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients (25) and (26) of the loss with either feature transmitted alone."""
        leaves = [f.detach().requires_grad_() for f in (f_s, f_g)]
        losses = self.task_losses(leaves, link, pairs._replace(media=pairs.media.detach()), draw)
        g_s, g_g = torch.autograd.grad(losses[0] + losses[1], leaves)
        return g_s, g_g

    def task_losses(self, features: list[Tensor], link: LinkState, pairs: Pairs, draw: torch.Generator) -> list[Tensor]:
        """Return the loss of each way to encode the batch, each transmitted over the same link.

        With receiver ``both``, the two receivers detect the samples in turn. So captions with a medium, which come
        first in a batch, go through both.
        """
        receivers: tuple[Receiver, ...] = RECEIVERS
        if self.settings.receiver != "both":
            receivers = (self.settings.receiver,)
        parts = []
        for i, receiver in enumerate(receivers):
            samples = slice(i, None, len(receivers))
            part = link.part(samples)
            sent = torch.cat([f[samples] for f in features], dim=2)  # one after the other over the same channel
            detected = self.model.convey(sent, part, receiver, draw)
            with self.accelerator.autocast():
                text = self.model.decode(detected, part)
            parts.append(text.reshape(len(features), -1, text.shape[1]))
        places = torch.arange(len(features[0]))
        order = torch.cat([places[i :: len(receivers)] for i in range(len(receivers))]).argsort()
        texts: Tensor = torch.cat(parts, dim=1)[:, order]
        wanted = Wanted(pairs.identity, pairs.media, pairs.media_identity)
        return [self.criterion(text, wanted) for text in texts]

    def encode(self, text: Tensor, link: LinkState) -> Tensor:
        """Return F = E_α(s), (1); channel, detection and loss stay in 32 bits, the networks need not."""
        with self.accelerator.autocast():
            return self.model.encode(text, link)
