import math

import pytest
import torch

from sclmkb.common.tasks.retrieval_losses import IdentityClassifier, contrastive_loss, similarity_distribution_loss


def unit(*size: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(size), dim=-1)


def test_several_positives_each_count_the_same_and_the_order_of_pictures_does_not_matter() -> None:
    text, pictures = unit(3, 8), unit(6, 8)
    positive = torch.arange(3)[:, None] == torch.arange(3).repeat(2)
    loss = contrastive_loss(text, pictures, positive, 0.1)
    log_p = (text @ pictures.T / 0.1).log_softmax(1)
    by_hand = -(log_p * positive).sum(1).div(2).mean()
    log_q = (pictures @ text.T / 0.1).log_softmax(1)
    by_hand = (by_hand - (log_q * positive.T).sum(1).mean()) / 2
    torch.testing.assert_close(loss, by_hand)
    order = torch.randperm(6)
    torch.testing.assert_close(contrastive_loss(text, pictures[order], positive[:, order], 0.1), loss)


def test_sdm_is_the_divergence_of_both_directions_by_hand() -> None:
    text, media = unit(5, 8), unit(4, 8)
    positive = torch.tensor([0, 1, 1, 2, 7])[:, None] == torch.tensor([0, 1, 2, 2])  # caption 4 has no match
    cosines = (text @ media.T).tolist()
    total = 0.0
    for rows, matches, kept in (
        (cosines, positive.tolist(), range(4)),
        (list(zip(*cosines, strict=True)), positive.T.tolist(), range(4)),
    ):
        for i in kept:
            weights = [math.exp(c / 0.1) for c in rows[i]]
            p = [w / sum(weights) for w in weights]
            q = [m / sum(matches[i]) for m in matches[i]]
            total += sum(a * math.log(a / (b + 1e-8)) for a, b in zip(p, q, strict=True)) / len(kept)
    assert similarity_distribution_loss(text, media, positive, 0.1).item() == pytest.approx(total, rel=1e-4)


def test_sdm_is_least_where_the_cosines_are_the_matches() -> None:
    text, eye = torch.eye(6), torch.eye(6, dtype=torch.bool)
    assert similarity_distribution_loss(text, text, eye, 0.02).item() == pytest.approx(0, abs=1e-4)
    assert similarity_distribution_loss(text, text.roll(1, 0), eye, 0.02) > 10


def test_hard_negatives_weigh_as_robinson_says_and_add_up_to_as_many() -> None:
    text, media, eye = unit(6, 8), unit(6, 8), torch.eye(6, dtype=torch.bool)
    cosines, beta = (text @ media.T / 0.2).double(), 0.7
    loss = 0.0
    for c in (cosines, cosines.T):
        for i in range(6):
            negatives = torch.cat([c[i, :i], c[i, i + 1 :]])
            weights = (beta * negatives).exp() / (beta * negatives).exp().mean()
            assert weights.sum().item() == pytest.approx(5)
            loss += -(c[i, i].exp() / (c[i, i].exp() + (weights * negatives.exp()).sum())).log().item() / 12
    assert contrastive_loss(text, media, eye, 0.2, beta).item() == pytest.approx(loss, rel=1e-5)
    assert contrastive_loss(text, media, eye, 0.2, beta) > contrastive_loss(text, media, eye, 0.2)


def test_a_row_without_negatives_has_finite_gradients() -> None:
    text = unit(3, 8).requires_grad_()
    contrastive_loss(text, unit(2, 8), torch.ones(3, 2, dtype=torch.bool), 0.1, 1.0).backward()
    assert text.grad is not None
    assert text.grad.isfinite().all()


def test_the_classifier_of_identities_pulls_both_sides_to_one_centre() -> None:
    classifier = IdentityClassifier(4, 8, 0.1)
    identity = torch.tensor([2, 0])
    centers = torch.nn.functional.normalize(classifier.centers.detach(), dim=1)
    assert classifier(centers[identity], identity) < classifier(centers[[0, 2]], identity)
    assert classifier(5 * centers[identity], identity).isfinite()
