import torch

from sclmkb.train.losses import contrastive_loss


def unit(*size: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(size), dim=-1)


def test_without_several_positives_it_is_the_usual_symmetric_loss() -> None:
    text, pictures = unit(6, 8), unit(6, 8)
    logits = text @ pictures.T / 0.1
    target = torch.arange(6)
    expected = (
        torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
    ) / 2
    torch.testing.assert_close(contrastive_loss(text, pictures, torch.eye(6, dtype=torch.bool), 0.1), expected)


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


def test_matching_embeddings_have_a_lower_loss_than_others() -> None:
    text = unit(8, 16)
    eye = torch.eye(8, dtype=torch.bool)
    assert contrastive_loss(text, text, eye, 0.1) < contrastive_loss(text, text.roll(1, 0), eye, 0.1)
