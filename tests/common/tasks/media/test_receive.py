"""What rates are chosen by is set right by what the receiver really loses."""

import numpy as np
import pytest
import torch
from small_mtsc import SMALL_MTSC

from sclmkb.common.link.uses import UsesChannelSettings
from sclmkb.common.models.lam.build import build_mtsc
from sclmkb.common.models.lam.features import Features
from sclmkb.common.models.lam.texts import Words
from sclmkb.common.tasks.media.data import TaskData
from sclmkb.common.tasks.media.receive import evidence_of
from sclmkb.common.tasks.media.samples import TextSamples
from sclmkb.common.tasks.reconstruct import picture_loss


def test_the_bias_of_expected_losses_is_what_the_receiver_loses_beside_them() -> None:
    torch.manual_seed(0)
    settings = SMALL_MTSC.model_copy(update={"rate": "nested"})
    model = build_mtsc(settings, Words.of(["what color is it", "red green"]), {"pictures": (4, 12)}, 32).eval()
    ids, values = [str(i) for i in range(6)], np.random.default_rng(0).standard_normal((6, 4, 12))
    samples = TextSamples(
        item=torch.arange(6), prompts=["what color is it"] * 6, references=[["red"]] * 6, row_ids=ids, groups=ids
    )
    data = TaskData("pictures", Features(item_ids=ids, values=values.astype(np.float16)), samples, pictures=None)
    rows, far = torch.arange(6), 100.0
    found = evidence_of(model, UsesChannelSettings(), data, rows, "answer", far, torch.Generator().manual_seed(0))
    assert found.losses.shape == found.power.shape == (6, 4)
    fused = model.fuse(data.item(rows, model.language_model.vocabulary, 8))
    snr = torch.full((6,), far)
    uses = model.send(fused, snr, "answer")
    symbols = uses.symbols / uses.symbols.abs().square().mean(1, keepdim=True).sqrt()
    labels = model.language_model.vocabulary.numbers(["red"] * 6, 8)
    lost = model.text_loss(*model.receive(symbols, uses.sent, snr, "answer"), labels).mean().detach()
    assert float((found.losses.mean(0) + found.bias)[-1]) == pytest.approx(float(lost), abs=1e-3)
    assert found.bias.std() > 0, "each number of groups has its own"


def test_the_loss_of_a_picture_is_a_tenth_of_minus_its_psnr() -> None:
    pictures = torch.full((2, 3, 4, 4), 0.5)
    got = pictures + torch.tensor([0.1, 0.01])[:, None, None, None]
    assert picture_loss(got, pictures).tolist() == pytest.approx([-2.0, -4.0], abs=0.05)
