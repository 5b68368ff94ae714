import math

import pytest
import torch
from small_mtsc import SMALL_MTSC

from sclmkb.common.link.uses import UsesChannelSettings, sample_draws
from sclmkb.common.models.lam.build import build_mtsc
from sclmkb.common.models.lam.rate import LossPredictor, draw_groups, first_groups
from sclmkb.common.models.lam.system import Fused, MtscModel, Uses
from sclmkb.common.models.lam.texts import Words
from sclmkb.common.tasks.media.receive import carry


def built(rate: str) -> MtscModel:
    torch.manual_seed(0)
    settings = SMALL_MTSC.model_copy(update={"rate": rate})
    return build_mtsc(settings, Words.of(["what color is it", "red green blue"]), {"pictures": (4, 12)}, 32).eval()


def fused_of(count: int) -> Fused:
    """Return what a fusion center might give: the weights of this one do not matter here."""
    tokens = torch.randn(64, 6, 32, generator=torch.Generator().manual_seed(1))[:count]
    return Fused(tokens, torch.arange(6) < torch.tensor([6, 4] * 32)[:count, None], 4)


def sent(model: MtscModel, task: str, count: int, snr_db: float = 0.0) -> tuple[Uses, torch.Tensor | None]:
    """Return all uses of some samples, and what each is expected to lose with fewer."""
    fused, snr = fused_of(count), torch.full((count,), snr_db)
    pictures = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(2))[:count]
    uses = model.send(fused, snr, task) if task == "answer" else model.send_pictures(pictures, fused, snr)
    return uses, model.expected_losses(uses, fused, snr, task)


@pytest.fixture(scope="module")
def model() -> MtscModel:
    return built("nested")


def test_training_sends_first_groups_or_random_ones() -> None:
    draws = [draw_groups(kind, 4000, 8, torch.Generator().manual_seed(0)) for kind in ("fixed", "nested", "random")]
    assert draws[0].all()
    assert (draws[1].int().diff(dim=1) <= 0).all()
    for kept in draws[1:]:
        share = torch.bincount(kept.sum(1), minlength=9) / 4000
        assert share[0] == 0
        assert share[1] == pytest.approx(0.75 * math.log(2) / math.log(9), abs=0.03)
        assert share[8] == pytest.approx(0.25 + 0.75 * math.log(9 / 8) / math.log(9), abs=0.03)
    shares = draws[2].float().mean(0)
    assert shares.max() - shares.min() < 0.05


def test_more_groups_are_never_expected_to_lose_more() -> None:
    predictor = LossPredictor(6, 5)
    power, mean = torch.rand(9, 5, requires_grad=True), torch.randn(9, 6, requires_grad=True)
    losses = predictor(power, mean, torch.linspace(-12, 18, 9))
    assert (losses.diff(dim=1) <= 0).all()
    losses.sum().backward()
    assert power.grad is None
    assert mean.grad is None


@pytest.mark.parametrize("task", ["answer", "reconstruct"])
@torch.no_grad()
def test_groups_that_are_not_sent_have_no_influence(model: MtscModel, task: str) -> None:
    """Neither on the power of the others, nor on what the receiver makes of them, bit for bit."""
    groups = {"answer": 4, "reconstruct": 8}[task]
    whole, _ = sent(model, task, 4)
    kept = first_groups(torch.tensor([1, 2, 3, groups]), groups)
    uses, got = whole.only(kept), []
    assert uses.sent.sum(1).tolist() == [n * whole.symbols.shape[1] // groups for n in (1, 2, 3, groups)]
    for symbols in (uses.symbols, torch.where(uses.sent, uses.symbols, 7 * uses.symbols + 3)):
        draws = sample_draws(0, range(4))
        arrived, there = carry(Uses(symbols, uses.sent), UsesChannelSettings(), torch.zeros(4), draws)
        if task == "answer":
            memory, tokens = model.receive(arrived, there, torch.zeros(4), task)
            assert torch.equal(tokens, kept)
            got.append([memory[tokens], model.language_model.generate(memory, tokens, 3)])
        else:
            got.append([model.receive_pictures(arrived, torch.zeros(4))])
    assert all(torch.equal(a, b) for a, b in zip(*got, strict=True))


@pytest.mark.parametrize("task", ["answer", "reconstruct"])
@torch.no_grad()
def test_all_groups_are_the_fixed_rate_exactly(model: MtscModel, task: str) -> None:
    fixed, expected = sent(built("fixed"), task, 4)
    assert expected is None
    uses, expected = sent(model, task, 4)
    assert expected is not None
    uses = uses.only(torch.ones(expected.shape, dtype=torch.bool))
    assert torch.equal(fixed.symbols, uses.symbols)
    assert torch.equal(fixed.sent, uses.sent)
    draws = [
        carry(one, UsesChannelSettings(), torch.zeros(4), sample_draws(0, range(4))).symbols for one in (fixed, uses)
    ]
    assert torch.equal(*draws)


@pytest.mark.parametrize("task", ["answer", "reconstruct"])
@torch.no_grad()
def test_what_is_expected_of_a_sample_is_the_same_alone_and_in_a_batch(model: MtscModel, task: str) -> None:
    whole, alone = sent(model, task, 64)[1], sent(model, task, 1)[1]
    torch.testing.assert_close(whole[:1], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(whole[0], whole[1])
