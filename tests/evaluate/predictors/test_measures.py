import pytest
import torch

from sclmkb.common.metrics import nmse
from sclmkb.evaluate.predictors.measures import beam_measures, link_nmse, step_nmse

OPTIONS = {"num_streams": 2, "link_snr_db": 20.0, "max_subcarriers": 8}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def subspace(h: torch.Tensor, guess: torch.Tensor, num_streams: int) -> torch.Tensor:
    """Return the similarity of matrices ``[B, Nr, Nt]``."""
    options = {**OPTIONS, "num_streams": num_streams, "num_subcarriers": 1}
    return beam_measures(h[:, None], guess[:, None], **options)["subspace"]


def test_the_truth_has_no_error_and_every_share() -> None:
    h = draw(5, 3, 8, 6)
    assert step_nmse(h, h).max() == 0
    assert link_nmse(h, h, 4).max() == 0
    found = beam_measures(h, h, num_subcarriers=4, **OPTIONS)
    assert torch.allclose(found["subspace"], torch.ones(5), atol=1e-5)
    assert torch.equal(found["efficiency"], found["efficiency_perfect"])


def test_nmse_of_all_steps_is_the_weighted_mean_of_the_steps() -> None:
    h, guess = draw(4, 3, 2, 6), draw(4, 3, 2, 6, seed=1)
    power = h.abs().square().sum((2, 3))
    together = (step_nmse(h, guess) * power).sum(1) / power.sum(1)
    assert torch.allclose(together, nmse(h, guess), rtol=1e-5)


def test_nmse_of_links_counts_each_antenna_pair_alike() -> None:
    h = torch.ones(1, 1, 6, 2, dtype=torch.complex64)  # 3 subcarriers, 2 receive and 2 transmit antennas
    h[..., 0] = 100
    guess = h.clone()
    guess[..., 1] = 0  # the two pairs of a weak transmit antenna are lost
    assert link_nmse(h, guess, 3).item() == pytest.approx(0.5)
    assert nmse(h, guess).item() < 1e-3
    assert link_nmse(h, guess, 1).isnan().all()


def test_subspaces_ignore_scale_phase_and_order() -> None:
    h = draw(7, 4, 6)
    turned = h * 3 * torch.polar(torch.ones(7, 4, 1), torch.rand(7, 4, 1) * 0 + 1.0)
    assert torch.allclose(subspace(h, turned, 2), torch.ones(7), atol=1e-5)
    u, s, vh = torch.linalg.svd(h, full_matrices=False)
    swapped = u @ torch.diag_embed(s.flip(-1) ** 0.5).to(h.dtype) @ vh  # the same vectors, weakest first
    assert torch.allclose(subspace(h, swapped, 4), torch.ones(7), atol=1e-5)
    assert (subspace(h, swapped, 2) < 1e-5).all()


def test_a_random_subspace_overlaps_by_streams_over_antennas() -> None:
    found = subspace(draw(2000, 4, 8), draw(2000, 4, 8, seed=1), 2)
    assert found.mean().item() == pytest.approx(2 / 8, abs=0.01)


def test_efficiency_depends_on_neither_scale_nor_is_it_above_that_of_the_best_stream() -> None:
    h, guess = draw(30, 2, 4, 4), draw(30, 2, 4, 4, seed=1)
    options = OPTIONS | {"num_streams": 1, "num_subcarriers": 1}
    found = beam_measures(h, guess, **options)
    assert (found["efficiency"] <= found["efficiency_perfect"] + 1e-4).all()
    scaled = beam_measures(1e-4 * h, 7 * guess, **options)
    for name, values in found.items():
        assert torch.allclose(values, scaled[name], rtol=1e-3), name


def test_subcarriers_are_outermost_and_taken_evenly() -> None:
    h, guess = draw(3, 2, 12, 4), draw(3, 2, 12, 4, seed=1)
    whole = beam_measures(h, guess, num_subcarriers=6, **OPTIONS | {"max_subcarriers": 6})
    each = [slice(2 * i, 2 * i + 2) for i in range(6)]
    by_hand = torch.stack(
        [subspace(h[:, :, rows].flatten(0, 1), guess[:, :, rows].flatten(0, 1), 2).view(3, 2) for rows in each]
    )
    assert torch.allclose(whole["subspace"], by_hand.mean((0, 2)), atol=1e-5)
    few = beam_measures(h, guess, num_subcarriers=6, **OPTIONS | {"max_subcarriers": 2})
    ends = torch.stack([by_hand[0], by_hand[-1]])
    assert torch.allclose(few["subspace"], ends.mean((0, 2)), atol=1e-5)


def test_more_streams_than_antennas_become_as_many() -> None:
    h = draw(3, 2, 6, 4)  # 6 subcarriers of a terminal with one antenna
    found = beam_measures(h, h, num_subcarriers=6, **OPTIONS)
    assert found["subspace"].tolist() == pytest.approx([1.0] * 3, abs=1e-4)
