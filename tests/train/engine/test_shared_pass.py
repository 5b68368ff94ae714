from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sclmkb.train.engine.shared_pass import SharedPass
from sclmkb.train.semantic.trainer import JsccTraining

ALONE = SimpleNamespace(num_processes=1, process_index=0, gather=lambda x: x)


def loss_of(embeddings: torch.Tensor) -> torch.Tensor:
    return (embeddings @ embeddings.T).logsumexp(1).sum()  # of all pairs


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 20])
def test_pieces_give_the_gradient_of_the_whole(pieces: int) -> None:
    encoder = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.GELU(), torch.nn.Linear(8, 4)).double()
    x = torch.randn(7, 5, dtype=torch.float64)
    loss_of(encoder(x)).backward()
    expected = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
    encoder.zero_grad()
    shared = SharedPass(ALONE, encoder, lambda rows: encoder(x[rows]), 7, pieces)
    loss_of(shared.embeddings).backward()
    shared.backward()
    for parameter, gradient in zip(encoder.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_shares_of_processes_add_up_to_the_gradient_of_the_whole() -> None:
    encoder, x = torch.nn.Linear(5, 4).double(), torch.randn(7, 5, dtype=torch.float64)
    loss_of(encoder(x)).backward()
    assert encoder.weight.grad is not None
    expected = encoder.weight.grad.clone()
    encoder.zero_grad()
    padded = encoder(x[[0, 1, 2, 3, 4, 5, 6, 6, 6]]).detach()
    for index in range(3):  # each adds its share
        process = SimpleNamespace(num_processes=3, process_index=index, gather=lambda own: padded)
        shared = SharedPass(process, encoder, lambda rows: encoder(x[rows]), 7, 2)
        loss_of(shared.embeddings).backward()
        shared.backward()
    torch.testing.assert_close(encoder.weight.grad, expected)


def test_batch_statistics_count_once_however_often_a_piece_is_encoded() -> None:
    x = torch.randn(8, 3)
    layers = [torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)]
    for rows in torch.arange(8).chunk(2):
        layers[0](x[rows])
    shared = SharedPass(ALONE, layers[1], lambda rows: layers[1](x[rows]), 8, 2)
    loss_of(shared.embeddings).backward()
    shared.backward()
    assert torch.equal(layers[0].running_mean, layers[1].running_mean)  # type: ignore[arg-type]
    assert layers[1].num_batches_tracked == 2
    assert layers[1].track_running_stats


def test_accumulating_trains_as_the_whole_batch_does(
    make_task: Callable[..., JsccTraining], tiny_clip: Path, tiny_bert: Path
) -> None:
    """With encoders that have no batch normalisation, both of them tuned."""
    gradients: list[dict[str, torch.Tensor]] = []
    losses = []
    for pieces in (1, 3):
        task = make_task(
            text={"name": str(tiny_bert), "tune": "layers", "num_layers": 1},
            model={**MODEL, "media": {"kind": "clip-vision", "model": str(tiny_clip), "size": 16, "tune": "lora"}},
            accumulate=pieces,
            precision="float32",
            identity_weight=0.1,
        )
        losses.append([task.train_step(step)["loss"] for step in range(2)])
        gradients.append({name: p.grad for name, p in task.model.named_parameters() if p.grad is not None})
        task.train_step(2)
        losses[-1].append(task.train_step(2)["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][0] != losses[0][2]
    assert gradients[0].keys() == gradients[1].keys()
    assert {name.partition(".")[0] for name in gradients[0]} == {"text", "media", "encoder", "decoder"}
    for name, gradient in gradients[0].items():  # after a step of Adam, which makes much of rounding
        assert (gradients[1][name] - gradient).norm() <= 0.02 * gradient.norm() + 1e-6, name


MODEL = {"num_streams": 2, "num_uses": 4, "hidden_width": 32, "embedding_width": 16}
