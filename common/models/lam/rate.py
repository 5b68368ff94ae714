"""Variable rate: which groups of a sample's uses are sent, and what the transmitter expects a sample to lose by it.

::

    uses [B, n] = G groups of n / G ─► the first k of them ─► power 1 over what is sent ─► channel

A group is a token of a text task, or some channels of the codec of pictures. Training keeps a random number of first
groups, so that the first ones come to matter most (Rippel, Gelbart and Adams, 2014: nested dropout). A small network
beside it learns what each sample loses at every k. Source: "Multi-Task Semantic Communications via Large Models",
Fig. 4b, which draws importance and SNR as its inputs and states no layer.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sclmkb.common.models.lam.settings import RateTraining

_HIDDEN = 128
_SHARE_OF_ALL = 0.25
"""Share of the samples of a training that send all groups."""
_SNR_SCALE_DB = 10.0
_LEAST_POWER = 1e-3


def first_groups(counts: Int[Tensor, " B"], groups: int) -> Bool[Tensor, "B G"]:
    """Return a mask of the first groups of each sample."""
    return torch.arange(groups, device=counts.device) < counts[:, None]


def draw_groups(kind: RateTraining, num: int, groups: int, generator: torch.Generator) -> Bool[Tensor, "B G"]:
    """Return which groups each sample of a training step sends; at least one.

    The logarithm of their number is uniform, for a quarter of the samples it is all of them. Of ``random`` they are
    any, otherwise the first ones.
    """
    if kind == "fixed":
        return torch.ones(num, groups, dtype=torch.bool)
    counts = ((groups + 1.0) ** torch.rand(num, generator=generator)).long().clamp(1, groups)
    counts[torch.rand(num, generator=generator) < _SHARE_OF_ALL] = groups
    kept = first_groups(counts, groups)
    if kind == "random":
        kept = kept.gather(1, torch.rand(num, groups, generator=generator).argsort(1))
    return kept


class LossPredictor(nn.Module):
    """Predicts at the transmitter what a sample loses if its first k groups are sent: floor + span · exp(-rate · k).

    Floor, span ≥ 0 and rate > 0 are functions of the power of each group, the mean of what the fusion center gives, and
    the SNR; no gradient goes back into these. So more groups are never expected to lose more.

    Args:
        width: of what the fusion center gives; 0: nothing is read of it.
        groups: G.

    Attributes:
        learning_rate: peak rate of AdamW.
    """

    learning_rate = 3e-3

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False) if width else None
        self.net = nn.Sequential(
            nn.Linear(1 + groups + width, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, _HIDDEN), nn.GELU(),
            nn.Linear(_HIDDEN, 3),
        )  # fmt: skip

    def forward(
        self, power: Float[Tensor, "B G"], mean: Float[Tensor, "B d"] | None, snr_db: Float[Tensor, " B"]
    ) -> Float[Tensor, "B G"]:
        """Return the expected loss at k = 1 … G.

        Args:
            power: mean power of each group, not normalised.
            mean: over the fused tokens of each sample; of a width of 0 it is left out.
            snr_db: of each sample.
        """
        known = [snr_db[:, None] / _SNR_SCALE_DB, (power.detach().float() + _LEAST_POWER).log()]
        if self.norm is not None:
            assert mean is not None
            known.append(self.norm(mean.detach().float()))
        floor, span, rate = self.net(torch.cat(known, dim=1)).split(1, dim=1)
        counts = torch.arange(1, power.shape[1] + 1, device=power.device)
        losses: Tensor = floor + nn.functional.softplus(span) * (-(rate - 1).exp() * counts).exp()
        return losses
