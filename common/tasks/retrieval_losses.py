"""Losses of the semantic transceiver: what pulls a transmitted caption and its media together."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def contrastive_loss(
    text: Float[Tensor, "B d"],
    media: Float[Tensor, "N d"],
    positive: Bool[Tensor, "B N"],
    temperature: float,
    hard_negatives: float = 0.0,
) -> Float[Tensor, ""]:
    """Return the symmetric contrastive loss with several positives, L in (7) and (8).

    Each caption's target is the uniform distribution over the media of its identity. Each medium's target is that over
    the captions of its identity. The loss is the mean cross-entropy of both directions.

    Args:
        text: unit-length embeddings of transmitted captions.
        media: unit-length embeddings of pictures, motions or sounds.
        positive: which pairs show the same identity; every medium needs one, and a caption without one only serves
            as contrast.
        temperature: divides the cosines.
        hard_negatives: β ≥ 0; a negative weighs exp(β · cosine / temperature), divided by the mean of that over the
            negatives of its row. 0: all weigh the same.

    Source: Khosla et al., Supervised contrastive learning, 2020 (positives outside the logarithm); Robinson et al.,
    Contrastive learning with hard negative samples, 2021 (the weights).
    """
    logits = text @ media.T / temperature
    target = positive.to(logits.dtype)
    pictured = positive.any(1)
    rows = target[pictured]
    forward = nn.functional.cross_entropy(
        _weighted(logits[pictured], positive[pictured], hard_negatives), rows / rows.sum(1, keepdim=True)
    )
    backward = nn.functional.cross_entropy(
        _weighted(logits.T, positive.T, hard_negatives), target.T / target.T.sum(1, keepdim=True)
    )
    return (forward + backward) / 2


def _weighted(logits: Tensor, positive: Tensor, beta: float) -> Tensor:
    """Add the logarithm of each negative's weight to its logit."""
    if not beta:
        return logits
    negatives = (beta * logits).masked_fill(positive, -1e9)  # finite, for a row without negatives
    count = (~positive).sum(1, keepdim=True).clamp(min=1)
    mean = negatives.logsumexp(1, keepdim=True) - count.log()
    return logits + torch.where(positive, 0.0, beta * logits - mean)


def similarity_distribution_loss(
    text: Float[Tensor, "B d"],
    media: Float[Tensor, "N d"],
    positive: Bool[Tensor, "B N"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Return similarity distribution matching (SDM): KL divergence of predicted from true matches, both directions.

    p is the softmax of the cosines over the temperature. q is the uniform distribution over the matches of a row. Each
    direction is the mean over rows of Σ p log(p / (q + ε)); the loss is their sum. Captions without a match are
    contrast for the media, but no rows of their own.

    Args as for :func:`contrastive_loss`. ε = 1e-8 keeps the logarithm finite where q is zero.

    Source: Jiang and Ye, Cross-modal implicit relation reasoning and aligning for text-to-image person retrieval
    (IRRA), CVPR 2023.
    """
    logits = text @ media.T / temperature
    pictured = positive.any(1)
    return _divergence(logits[pictured], positive[pictured]) + _divergence(logits.T, positive.T)


def _divergence(logits: Tensor, positive: Tensor) -> Tensor:
    target = positive.to(logits.dtype)
    target = target / target.sum(1, keepdim=True)
    log_p = logits.log_softmax(1)
    return (log_p.exp() * (log_p - (target + 1e-8).log())).sum(1).mean()


class IdentityClassifier(nn.Module):
    """One classifier of training identities for transmitted captions and media: it pulls both to one centre each.

    ::

        unit-length embedding [B, d] ─► cosines to I centres / temperature ─► cross-entropy with the identity

    It helps training and is no part of a checkpoint.

    Source: Zheng et al., Dual-path convolutional image-text embeddings with instance loss, 2020 (one classifier for
    both sides); Wang et al., NormFace, 2017 (cosines).
    """

    def __init__(self, num_identities: int, embedding_width: int, temperature: float) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.randn(num_identities, embedding_width) * embedding_width**-0.5)
        self.temperature = temperature

    def forward(self, embeddings: Float[Tensor, "B d"], identity: Int[Tensor, "B"]) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of the identities."""
        logits = embeddings @ nn.functional.normalize(self.centers, dim=1).T / self.temperature
        return nn.functional.cross_entropy(logits, identity)
