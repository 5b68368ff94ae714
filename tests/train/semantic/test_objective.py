"""The loss of a step, and the gradients that CDFC weighs features by."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sclmkb.common.link.mimo import Beams
from sclmkb.train.semantic.fusion import fuse, fusion_weights, pool_importance
from sclmkb.train.semantic.objective import Objective, Pairs
from sclmkb.train.semantic.trainer import JsccTraining


def batch(task: JsccTraining, monkeypatch: pytest.MonkeyPatch) -> tuple[Objective, Pairs, Any]:
    """Return objective, pairs and link of a step, all in 64 bits, also what is rounded to 32."""
    torch.manual_seed(0)
    task.model.double().eval()
    task.criterion.double()
    rows = task.data.draw(0, 8, 6)
    text, _ = task._embed_texts(rows)
    media = torch.nn.functional.normalize(torch.randn(6, task.settings.model.embedding_width).double(), dim=1)
    pairs = task._pairs(rows, text.double(), media, torch.Generator().manual_seed(1))
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    link = task._draw_link(8, torch.Generator().manual_seed(2))
    beams = Beams(*(x.to(torch.complex128 if x.is_complex() else torch.float64) for x in link.beams))
    return task.objective, pairs, link._replace(h=link.h.to(torch.complex128), beams=beams, snr_db=link.snr_db.double())


@pytest.mark.parametrize("receiver", ["literal", "dmrs", "both"])
@pytest.mark.parametrize("options", [{}, {"loss": "sdm"}, {"identity_weight": 0.5, "hard_negatives": 0.5}])
def test_cdfc_gradients_are_those_of_finite_differences(
    make_task: Callable[..., JsccTraining], monkeypatch: pytest.MonkeyPatch, receiver: str, options: dict[str, Any]
) -> None:
    task = make_task(receiver=receiver, fusion="cdfc", **options)
    objective, pairs, link = batch(task, monkeypatch)

    def draw() -> torch.Generator:
        return torch.Generator().manual_seed(5)

    with torch.no_grad():
        f_s, f_g = objective.features(pairs, link)
    gradients = objective.cdfc_gradients(f_s, f_g, link, pairs, draw())

    def loss(source: torch.Tensor, generated: torch.Tensor) -> float:
        with torch.no_grad():
            return float(sum(objective.task_losses([source, generated], link, pairs, draw())))

    step = 1e-6
    choose = torch.Generator().manual_seed(7)
    for which, gradient in enumerate(gradients):
        assert gradient.abs().max() > 0
        for _ in range(4):
            at = tuple(int(torch.randint(n, (), generator=choose)) for n in f_s.shape)
            for unit in (1.0, 1.0j):
                moved = []
                for sign in (1, -1):
                    features = [f_s.clone(), f_g.clone()]
                    features[which][at] += sign * step * unit
                    moved.append(loss(*features))
                found = gradient[at].real if unit == 1.0 else gradient[at].imag
                assert float(found) == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=1e-3, abs=1e-7)


def test_each_domain_is_weighted_by_the_importance_of_the_other(
    make_task: Callable[..., JsccTraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(fusion="cdfc", receiver="literal")
    objective, pairs, link = batch(task, monkeypatch)
    seen: list[torch.Tensor] = []
    losses = objective.task_losses
    monkeypatch.setattr(objective, "task_losses", lambda f, *rest: seen.append(f[0]) or losses(f, *rest))
    objective.loss(pairs, link, torch.Generator().manual_seed(5))
    f_s, f_g = objective.features(pairs, link)
    gradients = objective.cdfc_gradients(f_s, f_g, link, pairs, torch.Generator().manual_seed(5))
    pooled = [pool_importance(g, f, "grad_times_input") for g, f in zip(gradients, (f_s, f_g), strict=True)]
    expected = task.model.limit_power(fuse(f_s, f_g, fusion_weights(*pooled)), link)
    there = pairs.has_generated.any(1)
    assert there.any()
    assert not there.all()
    torch.testing.assert_close(seen[1][there], expected[there], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(seen[1][~there], f_s[~there])


def test_several_generated_captions_give_the_mean_of_their_features(
    make_task: Callable[..., JsccTraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(generated_per_caption=2)
    objective, pairs, link = batch(task, monkeypatch)
    f_s, f_g = objective.features(pairs, link)
    torch.testing.assert_close(f_g.abs().square().sum(1).mean(1), torch.ones(8).double(), rtol=1e-5, atol=0)
    counts = pairs.has_generated.sum(1).tolist()
    assert set(counts) == {0, 1, 2}
    for i, count in enumerate(counts):
        alone = [objective.encode(pairs.generated[i : i + 1, j], link.part(slice(i, i + 1))) for j in range(count)]
        expected = torch.cat(alone).mean(0, keepdim=True) if count else f_s[i : i + 1]
        torch.testing.assert_close(f_g[i : i + 1], task.model.limit_power(expected, link), rtol=1e-4, atol=1e-6)


def test_mixed_is_the_loss_of_the_source_alone_and_of_fused_features_by_share(
    make_task: Callable[..., JsccTraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for share in (0.0, 1.0, 0.25):
        with monkeypatch.context() as patch:
            task = make_task(fusion="mixed", mixed_share=share, receiver="literal")
            objective, pairs, link = batch(task, patch)
            found.append(objective.loss(pairs, link, torch.Generator().manual_seed(5))[0].item())
    assert found[2] == pytest.approx(0.75 * found[0] + 0.25 * found[1], rel=1e-6)
    assert found[0] != pytest.approx(found[1], rel=1e-3)
