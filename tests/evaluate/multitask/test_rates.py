import itertools
import math

import pytest
import torch

from sclmkb.common.errors import UserError
from sclmkb.common.models.lam.system import Uses
from sclmkb.common.tasks.media.receive import RateEvidence
from sclmkb.evaluate.multitask.rates import MaskCode, Rates, capacity, strongest

GROUPS, USES, SAMPLES = 8, 32, 400
SNRS = (-15.0, 0.0, 20.0)


def evidence(snr_db: float) -> RateEvidence:
    """Every other sample needs one group only; the others lose less the more they send, and less at high SNR."""
    k = torch.arange(1, GROUPS + 1.0)
    hard = 2 * torch.exp(-k * (0.15 + 0.02 * (snr_db + 15)))
    losses = torch.where(torch.arange(SAMPLES)[:, None] % 2 == 0, torch.zeros(GROUPS), hard)
    power = torch.rand(SAMPLES, GROUPS, generator=torch.Generator().manual_seed(0)) + torch.linspace(1, 0, GROUPS)
    return RateEvidence(losses, power, torch.zeros(GROUPS))


def rates() -> Rates:
    return Rates(USES, GROUPS, SNRS, evidence)


def spent(name: str, share: float, snr_db: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mask of every sample and its total uses."""
    losses, power, _ = evidence(snr_db)
    symbols = power.sqrt().repeat_interleave(USES // GROUPS, dim=1).to(torch.complex64)
    uses = Uses(symbols, torch.ones(symbols.shape, dtype=torch.bool))
    kept, beside = rates().rate(name, share, snr_db, [str(i) for i in range(SAMPLES)])(
        uses, losses, torch.arange(SAMPLES)
    )
    return kept, uses.only(kept).sent.sum(1) + beside


@pytest.mark.parametrize("name", ["fixed", "random", "norm", "snr", "learned"])
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_every_rate_keeps_its_budget(name: str, share: float) -> None:
    """Of val itself, over all SNRs; those that both ends draw meet it up to chance."""
    total = sum(float(spent(name, share, snr_db)[1].mean()) for snr_db in SNRS) / len(SNRS)
    assert total <= share * USES * (1.001 if name in ("snr", "learned") else 1.04)
    assert total > share * USES * (0.7 if name == "snr" else 0.9)


def test_a_codeword_is_counted_and_left_out_where_it_is_dear() -> None:
    kept, total = spent("learned", 0.3, 20.0)
    counts = kept.sum(1)
    assert (kept.int().diff(dim=1) <= 0).all()
    assert counts[0] == 1 < counts[1]  # the sample that needs less gets less
    often = torch.bincount(counts) / SAMPLES
    beside = total - counts * USES / GROUPS
    torch.testing.assert_close(beside, -often[counts].log2() / capacity(20.0))
    kept, total = spent("learned", 0.3, -15.0)
    assert len(kept.sum(1).unique()) == 1
    assert torch.equal(total, kept.sum(1) * USES / GROUPS)


def test_learned_loses_less_than_the_others_at_its_budget() -> None:
    lost = {}
    for name in ("fixed", "snr", "learned"):
        masks = {snr_db: spent(name, 0.3, snr_db)[0].sum(1) for snr_db in SNRS}
        lost[name] = sum(float(evidence(s).losses.gather(1, k[:, None] - 1).mean()) for s, k in masks.items())
    assert lost["learned"] < lost["snr"] < lost["fixed"]


@pytest.mark.parametrize("name", ["snr", "learned"])
def test_what_is_expected_wrongly_of_all_samples_alike_does_no_harm(name: str) -> None:
    """A predictor that is wrong by the same for all samples is set right by val."""
    wrong = torch.linspace(3, 0, GROUPS)

    def biased(snr_db: float) -> RateEvidence:
        losses, power, _ = evidence(snr_db)
        return RateEvidence(losses + (snr_db + 20) / 10 * wrong, power, -(snr_db + 20) / 10 * wrong)

    for snr_db in SNRS:
        counts = []
        for of in (evidence, biased):
            losses, power, _ = of(snr_db)
            uses = Uses(power.repeat_interleave(USES // GROUPS, 1).to(torch.complex64), torch.ones(SAMPLES, USES) > 0)
            rate = Rates(USES, GROUPS, SNRS, of).rate(name, 0.4, snr_db, [str(i) for i in range(SAMPLES)])
            counts.append(rate(uses, losses, torch.arange(SAMPLES))[0].sum(1))
        assert torch.equal(*counts)


def test_choices_do_not_depend_on_the_samples_beside_them() -> None:
    whole, total = spent("random", 0.3, 0.0)
    again, _ = spent("random", 0.3, 0.0)
    assert torch.equal(whole, again)
    symbols = torch.ones(1, USES, dtype=torch.complex64)
    rate = rates().rate("random", 0.3, 0.0, ["7"])
    kept, _ = rate(Uses(symbols, torch.ones(1, USES, dtype=torch.bool)), torch.zeros(1, GROUPS), torch.arange(1))
    assert torch.equal(kept[0], whole[7])
    assert set(total.tolist()) == {8, 12}


def test_masks_have_a_whole_code_that_no_source_beats() -> None:
    """All masks of 3 among 6 fill the code, and the masks that it fits are no shorter than their entropy."""
    masks = strongest(
        torch.rand(500, 6, generator=torch.Generator().manual_seed(1)) + torch.linspace(2, 0, 6), torch.full((500,), 3)
    )
    code = MaskCode.fit(masks)
    every = torch.zeros(20, 6, dtype=torch.bool)
    for row, chosen in enumerate(itertools.combinations(range(6), 3)):
        every[row, list(chosen)] = True
    assert float((2 ** -code.bits(every).double()).sum()) == pytest.approx(1, abs=1e-5)
    often = masks.unique(dim=0, return_counts=True)[1] / 500
    mean = float(code.bits(masks).mean())
    assert float(-(often * often.log2()).sum()) <= mean < math.log2(math.comb(6, 3))


def test_a_share_without_a_group_is_refused() -> None:
    with pytest.raises(UserError, match="shares"):
        rates().rate("fixed", 0.1, 0.0, ["a"])
