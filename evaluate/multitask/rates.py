"""Rates: how many groups of uses each sample sends, and which, at a mean number of total uses.

All but ``full`` spend a share of all uses, with all that is sent beside them. Budgets are means over samples and SNRs,
calibrated on the validation split.

======= ============================================ =======================================================
rate    groups of a sample                           what the receiver is told
======= ============================================ =======================================================
full    all                                          nothing
fixed   the first k, k the same at every SNR         nothing; both ends draw alike who sends one group more
random  k random ones                                nothing; both ends draw alike which
norm    the k of most power                          the mask, in a code of the k of G that val fixes
snr     the first k, k by the SNR                    nothing: the SNR is known
learned the first k, k by the sample and the SNR     k, in a code that val fixes
======= ============================================ =======================================================

The last two choose the k of least expected loss + price · total uses, and one price holds at every SNR. Of the expected
losses val sets the mean of every k right at every SNR, so that ``snr`` knows what is lost on average. Code and choice
depend on each other as in entropy-constrained quantisation (Chou, Lookabaugh and Gray, 1989). Lengths of codes are
ideal, as over many samples, and are sent at the capacity of an AWGN channel of the same SNR.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sclmkb.common.errors import UserError
from sclmkb.common.models.lam.rate import first_groups
from sclmkb.common.models.lam.system import Uses
from sclmkb.common.seeds import make_generator
from sclmkb.common.tasks.media.receive import Rate, RateEvidence

RateName = Literal["fixed", "random", "norm", "snr", "learned"]

_ROUNDS = 10
_HALVINGS = 50
_MOST_PRICE = 1e4


def capacity(snr_db: float) -> float:
    """Return the bits that a complex use of an AWGN channel carries."""
    return math.log2(1 + 10 ** (snr_db / 10))


@dataclass
class Rates:
    """The rates of one task of one checkpoint.

    Args:
        uses: of a sample that sends everything.
        groups: G of them.
        snrs_db: over which a budget is a mean.
        evidence: of val at an SNR.
        seed: of what both ends draw alike.
    """

    uses: int
    groups: int
    snrs_db: Sequence[float]
    evidence: Callable[[float], RateEvidence]
    seed: int = 0
    _prices: dict[tuple[RateName, float], float] = field(default_factory=dict)

    def rate(self, name: RateName, share: float, snr_db: float, samples: Sequence[str]) -> Rate:
        """Return what chooses the groups of some samples at an SNR.

        Raises:
            UserError: if the share is less than one group, or above 1.
        """
        if not 1 / self.groups <= share <= 1:
            raise UserError(f"shares of the uses go from one of {self.groups} groups to 1, not {share:g}: set shares")
        if name == "fixed" or name == "random":
            return self._drawn(share * self.groups, samples, random=name == "random")
        if name == "norm":
            return self._by_norm(share, snr_db, samples)
        price = self._price(name, share)
        return self._priced(price, self._bits(name, price, snr_db), snr_db)

    @property
    def _size(self) -> float:
        return self.uses / self.groups

    def _drawn(self, count: float, samples: Sequence[str], *, random: bool) -> "_Drawn":
        draws = [torch.rand(1 + self.groups, generator=make_generator(self.seed, "rate", one)) for one in samples]
        drawn = torch.stack(draws)
        return _Drawn(count, drawn[:, 0], drawn[:, 1:].argsort(1) if random else None)

    def _by_norm(self, share: float, snr_db: float, samples: Sequence[str]) -> Rate:
        """Return the most groups that the budget allows at this SNR with their mask; without one where none fits."""
        power = self.evidence(snr_db).power
        codes = {k: MaskCode.fit(strongest(power, torch.full((len(power),), k))) for k in range(1, self.groups + 1)}
        bits = {k: float(code.bits(strongest(power, torch.full((len(power),), k))).mean()) for k, code in codes.items()}
        cost = {k: k * self._size + bits[k] / capacity(snr_db) for k in codes}
        budget = share * self.uses
        fitting = [k for k in codes if cost[k] <= budget]
        if not fitting:
            return self._drawn(share * self.groups, samples, random=False)
        k = fitting[-1]
        more = (budget - cost[k]) / (cost[k + 1] - cost[k]) if k < self.groups else 0.0
        return _ByNorm(self._drawn(k + more, samples, random=False), codes, capacity(snr_db))

    def _price(self, name: RateName, share: float) -> float:
        """Return the price of a use at which the budget is spent: the least one that does not exceed it."""
        if (name, share) not in self._prices:
            low, high = math.log(1 / _MOST_PRICE**2), math.log(_MOST_PRICE)
            for _ in range(_HALVINGS):
                middle = (low + high) / 2
                exceeds = self._mean_uses(name, math.exp(middle)) > share * self.uses
                low, high = (middle, high) if exceeds else (low, middle)
            self._prices[name, share] = math.exp(high)
        return self._prices[name, share]

    def _mean_uses(self, name: RateName, price: float) -> float:
        total = 0.0
        for snr_db in self.snrs_db:
            rate = self._priced(price, self._bits(name, price, snr_db), snr_db)
            total += float(rate.totals(self.evidence(snr_db).losses).mean())
        return total / len(self.snrs_db)

    def _bits(self, name: RateName, price: float, snr_db: float) -> Float[Tensor, " G"]:
        """Return the lengths of the codewords of k = 1 … G; what never occurs is infinitely long."""
        losses, _, bias = self.evidence(snr_db)
        best = ((losses + bias).mean(0) + price * self._size * torch.arange(1, self.groups + 1)).argmin()
        alone = torch.full((self.groups,), math.inf)
        alone[best] = 0
        if name == "snr":
            return alone
        bits = torch.zeros(self.groups)
        for _ in range(_ROUNDS):
            chosen = self._priced(price, bits, snr_db).counts(losses)
            often = torch.bincount(chosen - 1, minlength=self.groups) / len(losses)
            bits = -often.log2()
        costs = [self._priced(price, each, snr_db).cost(losses) for each in (bits, alone)]
        return bits if costs[0] < costs[1] else alone

    def _priced(self, price: float, bits: Float[Tensor, " G"], snr_db: float) -> "_Priced":
        return _Priced(self._size, price, bits, capacity(snr_db), self.evidence(snr_db).bias)


@dataclass
class _Drawn:
    """A number of groups between two whole ones, for some samples the lower and for the others the upper one."""

    count: float
    coins: Float[Tensor, " N"]
    order: Int[Tensor, "N G"] | None

    def counts(self, at: Tensor) -> Int[Tensor, " B"]:
        whole = math.floor(self.count + 1e-9)
        return whole + (self.coins[at] < self.count - whole).long()

    def __call__(self, uses: Uses, losses: Tensor | None, at: Tensor) -> tuple[Tensor, Tensor]:
        assert losses is not None
        kept = first_groups(self.counts(at), losses.shape[1])
        return kept if self.order is None else kept.gather(1, self.order[at]), torch.zeros(len(at))


@dataclass
class _ByNorm:
    """The groups of most power, with their mask."""

    drawn: _Drawn
    codes: "dict[int, MaskCode]"
    bits_per_use: float

    def __call__(self, uses: Uses, losses: Tensor | None, at: Tensor) -> tuple[Tensor, Tensor]:
        assert losses is not None
        counts = self.drawn.counts(at)
        kept = strongest(uses.power(losses.shape[1]).cpu(), counts)
        bits = torch.stack([self.codes[int(k)].bits(mask[None])[0] for k, mask in zip(counts, kept, strict=True)])
        return kept, bits / self.bits_per_use


@dataclass
class _Priced:
    """The number of first groups whose expected loss and price are least."""

    size: float
    price: float
    bits: Float[Tensor, " G"]
    bits_per_use: float
    bias: Float[Tensor, " G"]

    @property
    def total(self) -> Float[Tensor, " G"]:
        """Uses of each number of groups, with its codeword."""
        return self.size * torch.arange(1, len(self.bits) + 1) + self.bits / self.bits_per_use

    def counts(self, losses: Float[Tensor, "B G"]) -> Int[Tensor, " B"]:
        return (losses + self.bias + self.price * self.total).argmin(1) + 1

    def totals(self, losses: Float[Tensor, "B G"]) -> Float[Tensor, " B"]:
        return self.total[self.counts(losses) - 1]

    def cost(self, losses: Float[Tensor, "B G"]) -> float:
        return float((losses + self.bias + self.price * self.total).amin(1).mean())

    def __call__(self, uses: Uses, losses: Tensor | None, at: Tensor) -> tuple[Tensor, Tensor]:
        assert losses is not None
        counts = self.counts(losses.cpu())
        return first_groups(counts, len(self.bits)), self.bits[counts - 1] / self.bits_per_use


def strongest(power: Float[Tensor, "B G"], counts: Int[Tensor, " B"]) -> Bool[Tensor, "B G"]:
    """Return a mask of the groups of most power of each sample."""
    rank = power.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return rank < counts[:, None]


@dataclass(frozen=True)
class MaskCode:
    """An ideal code of masks of k among G: the likelier a group, the shorter the masks that hold it.

    A mask has the probability ∏ w_j / e_k(w) over its groups j, with the odds w of each group and the elementary
    symmetric polynomial e_k, so that the probabilities of all masks of k add to 1.

    Attributes:
        bits_of: -log2 w of each group ``[G]``.
        normaliser: log2 e_k(w).
    """

    bits_of: Tensor
    normaliser: float

    @classmethod
    def fit(cls, masks: Bool[Tensor, "N G"]) -> "MaskCode":
        """Return the code that fits masks, all with the same number of groups."""
        often = (masks.double().sum(0) + 0.5) / (len(masks) + 1)
        odds = often / (1 - often)
        count = int(masks[0].sum())
        sums = torch.zeros(count + 1, dtype=torch.double)
        sums[0] = 1
        for one in odds:
            sums[1:] = sums[1:] + one * sums[:-1].clone()
        return cls(-odds.log2(), float(sums[count].log2()))

    def bits(self, masks: Bool[Tensor, "N G"]) -> Float[Tensor, " N"]:
        """Return the length of each mask's codeword."""
        return ((masks * self.bits_of).sum(1) + self.normaliser).clamp(min=0).float()
