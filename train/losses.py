"""Losses of the semantic transceiver."""

from jaxtyping import Bool, Float
from torch import Tensor, nn


def contrastive_loss(
    text: Float[Tensor, "B d"],
    pictures: Float[Tensor, "N d"],
    positive: Bool[Tensor, "B N"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Return the symmetric contrastive loss with several positives, L in (7) and (8).

    Each caption's target is the uniform distribution over the pictures of its identity, and each picture's over the
    captions of its identity; the loss is the mean cross-entropy of both directions.

    Args:
        text: unit-length embeddings of transmitted captions.
        pictures: unit-length embeddings of pictures.
        positive: which pairs show the same identity; every picture needs one, and a caption without one only serves
            as contrast.
        temperature: divides the cosines.

    Source: Khosla et al., Supervised contrastive learning, 2020 (positives outside the logarithm).
    """
    logits = text @ pictures.T / temperature
    target = positive.to(logits.dtype)
    pictured = positive.any(1)
    rows = target[pictured]
    forward = nn.functional.cross_entropy(logits[pictured], rows / rows.sum(1, keepdim=True))
    backward = nn.functional.cross_entropy(logits.T, target.T / target.T.sum(1, keepdim=True))
    return (forward + backward) / 2
