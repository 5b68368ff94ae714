"""Cross-domain fusion coding (CDFC), equations (25) to (29).

Every domain is weighted by the importance of the *other* one::

    g_s = ∂L/∂F_s                       (25)
    g_g = ∂L/∂F_g                       (26)
    a   = mean(g)                       (27)
    [w_s, w_g] = softmax([a_s, a_g])    (28)
    F   = w_g ⊙ F_s + w_s ⊙ F_g         (29)

The mean of (27) is one number per sample and domain. :func:`pool_importance` says what can be pooled instead of g.

Training transmits the fused F (normalised to unit power again); inference transmits F_s alone.
"""

from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sclmkb.common.tasks.trained import Importance


class FusionWeights(NamedTuple):
    """The weights of (28), each ``[B]``, adding up to 1, without gradient."""

    source: Tensor
    generated: Tensor


def pool_importance(
    gradient: Complex[Tensor, "B k m"], feature: Complex[Tensor, "B k m"], importance: Importance
) -> Float[Tensor, "B"]:
    """Return the importance of each sample, (27): the mean over its real and imaginary parts.

    What is pooled: ``signed`` the gradient ∂L/∂F itself, as printed; ``abs`` its magnitude; ``grad_times_input`` the
    magnitude of gradient times feature.
    """
    g, f = torch.view_as_real(gradient.detach()), torch.view_as_real(feature.detach())
    if importance == "signed":
        pooled = g
    elif importance == "abs":
        pooled = g.abs()
    else:
        pooled = (g * f).abs()
    return pooled.mean(dim=(1, 2, 3))


def fusion_weights(
    source: Float[Tensor, "B"], generated: Float[Tensor, "B"], *, standardise: bool = True
) -> FusionWeights:
    """Return the weights of (28) from the pooled importances a_s and a_g.

    ``standardise`` divides by the deviation of a_s - a_g over the batch first. Gradients are tiny, so that the softmax
    of the plain values is 0.5 and 0.5 for every sample.
    """
    difference = (source - generated).detach()
    if standardise:
        difference = difference / difference.square().mean().sqrt().clamp(min=1e-20)
    weight = torch.sigmoid(difference)
    return FusionWeights(weight, 1 - weight)


def fuse(
    source: Complex[Tensor, "B k m"], generated: Complex[Tensor, "B k m"], weights: FusionWeights
) -> Complex[Tensor, "B k m"]:
    """Return F = w_g ⊙ F_s + w_s ⊙ F_g, (29); its power is not normalised."""
    w_s, w_g = (w.detach()[:, None, None] for w in weights)
    return w_g * source + w_s * generated
