import pytest
import torch
from small_mtsc import SMALL_MTSC
from torch import Tensor

from sclmkb.common.link.uses import UsesChannelSettings, sample_draws
from sclmkb.common.models.lam.build import build_mtsc
from sclmkb.common.models.lam.system import Item, MtscModel
from sclmkb.common.models.lam.texts import Words
from sclmkb.common.tasks.media.receive import carry


@pytest.fixture(scope="module")
def model() -> MtscModel:
    torch.manual_seed(0)
    return build_mtsc(SMALL_MTSC, Words.of(["what color is it", "red green blue"]), {"pictures": (4, 12)}, 32).eval()


def items(model: MtscModel, count: int) -> Item:
    draw = torch.Generator().manual_seed(1)
    numbers, real = model.language_model.vocabulary.read(["what color is it", "red"] * (count // 2), 8)
    return Item("pictures", torch.randn(count, 4, 12, generator=draw), numbers, real)


def received(model: MtscModel, item: Item, channel: UsesChannelSettings) -> tuple[Tensor, Tensor]:
    snr_db = torch.linspace(-5, 15, len(item.features))
    uses = model.send(model.fuse(item), snr_db, "answer")
    arrived, sent = carry(uses, channel, snr_db, sample_draws(0, list(range(len(snr_db)))))
    return model.receive(arrived, sent, snr_db, "answer")[0], arrived


@pytest.mark.parametrize("kind", ["awgn", "rician"])
def test_a_sample_is_the_same_alone_and_in_a_batch(model: MtscModel, kind: str) -> None:
    """Power, centring and noise are of each sample: nothing leaks over a batch."""
    item, channel = items(model, 8), UsesChannelSettings(kind=kind)
    with torch.no_grad():
        whole, _ = received(model, item, channel)
        alone, _ = received(model, Item(item.modality, *(part[:2] for part in item[1:])), channel)
    snr_db = torch.linspace(-5, 15, 8)[:2]
    assert not torch.allclose(snr_db[0], snr_db[1])
    torch.testing.assert_close(whole[:1], alone[:1], atol=1e-4, rtol=1e-4)


def test_what_is_sent_has_power_one_per_use_and_sample(model: MtscModel) -> None:
    item = items(model, 6)
    with torch.no_grad():
        uses = model.send(model.fuse(item), torch.zeros(6), "answer")
        arrived, _ = carry(uses, UsesChannelSettings(), torch.full((6,), 200.0), torch.Generator().manual_seed(0))
        pictures = model.send_pictures(torch.rand(6, 3, 32, 32), model.fuse(item), torch.zeros(6))
        shown, _ = carry(pictures, UsesChannelSettings(), torch.full((6,), 200.0), torch.Generator().manual_seed(0))
    for symbols, count in ((arrived, 8), (shown, 128)):
        assert symbols.shape == (6, count)
        torch.testing.assert_close(symbols.abs().square().mean(1), torch.ones(6), atol=1e-3, rtol=0)


def test_tokens_that_were_not_sent_have_no_influence(model: MtscModel) -> None:
    item, sent = items(model, 4), torch.ones(4, 8, dtype=torch.bool)
    sent[:, 4:] = False
    with torch.no_grad():
        symbols = model.send(model.fuse(item), torch.zeros(4), "answer").symbols
        other = torch.where(sent, symbols, 7 * symbols + 3)
        got = []
        for values in (symbols, other):
            uses = type(model.send(model.fuse(item), torch.zeros(4), "answer"))(values, sent)
            arrived, there = carry(uses, UsesChannelSettings(), torch.zeros(4), torch.Generator().manual_seed(0))
            got.append(model.receive(arrived, there, torch.zeros(4), "answer")[0][:, :2])
    assert torch.equal(*got)


def test_prompt_and_medium_both_reach_the_receiver(model: MtscModel) -> None:
    item = items(model, 2)
    other = [
        item._replace(features=item.features.flip(0)),
        item._replace(prompt=item.prompt.flip(0), prompt_real=item.prompt_real.flip(0)),
    ]
    with torch.no_grad():
        base = model.send(model.fuse(item), torch.zeros(2), "answer").symbols
        for changed in other:
            assert not torch.allclose(base, model.send(model.fuse(changed), torch.zeros(2), "answer").symbols)


def test_tokens_say_different_things_from_the_start(model: MtscModel) -> None:
    """The queries begin near 0: with one map for all tokens, each would repeat the first one's use."""
    item = items(model, 64)
    with torch.no_grad():
        symbols = model.send(model.fuse(item), torch.zeros(64), "answer").symbols
    planes = torch.view_as_real(symbols.unflatten(1, (4, -1)))
    planes = planes - planes.mean(0)
    apart = (planes - planes.mean(1, keepdim=True)).square().sum() / planes.square().sum()
    assert float(apart) > 0.5


def test_the_question_only_control_sees_no_medium() -> None:
    settings = SMALL_MTSC.model_copy(update={"sees_media": False})
    torch.manual_seed(0)
    blind = build_mtsc(settings, Words.of(["what color is it", "red"]), {"pictures": (4, 12)}, None).eval()
    item = items(blind, 2)
    with torch.no_grad():
        own, other = (blind.fuse(one).tokens for one in (item, item._replace(features=item.features.flip(0))))
    assert torch.equal(own, other)
    assert not torch.equal(own[0], own[1])


def test_u_deepsc_encodes_each_modality_apart(model: MtscModel) -> None:
    torch.manual_seed(0)
    settings = SMALL_MTSC.model_copy(update={"architecture": "u-deepsc"})
    words = Words.of(["what color is it", "red green blue"])
    baseline = build_mtsc(settings, words, {"pictures": (4, 12)}, None).eval()
    item, snr_db = items(baseline, 2), torch.zeros(2)
    with torch.no_grad():
        base = baseline.send(baseline.fuse(item), snr_db, "answer").symbols
        seen = baseline.send(baseline.fuse(item._replace(features=item.features.flip(0))), snr_db, "answer").symbols
        other = item._replace(prompt=item.prompt.flip(0), prompt_real=item.prompt_real.flip(0))
        asked = baseline.send(baseline.fuse(other), snr_db, "answer").symbols
        captions = [baseline.send(baseline.fuse(one), snr_db, "caption").symbols for one in (item, other)]
    assert torch.equal(seen[:, 4:], base[:, 4:]), "tokens of the question do not see the medium"
    assert torch.equal(asked[:, :4], base[:, :4]), "tokens of the medium do not see the question"
    assert not torch.allclose(seen[:, :4], base[:, :4])
    assert not torch.allclose(asked[:, 4:], base[:, 4:])
    assert torch.equal(*captions), "a caption is sent by the medium alone"
    memory, there = baseline.receive(base, torch.ones(2, 8, dtype=torch.bool), snr_db, "answer")
    assert memory.shape[:2] == there.shape == (2, 5)
