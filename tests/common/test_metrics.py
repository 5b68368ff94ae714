import math

import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from sclmkb.common import metrics
from sclmkb.common.metrics import precision_of_ranks, ranks_in_gallery, ranks_of_relevant
from sclmkb.common.tasks.retrieval import RETRIEVAL, scores_of_ranks

nmse = jaxtyped(typechecker=beartype)(metrics.nmse)


def channels(seed: int = 0) -> torch.Tensor:
    return torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.complex64)


def test_truth_is_zero_and_no_prediction_is_zero_db() -> None:
    h = channels()
    assert torch.equal(nmse(h, h), torch.zeros(6))
    assert torch.allclose(nmse(h, torch.zeros_like(h)), torch.ones(6))
    assert metrics.mean_nmse_db(nmse(h, torch.zeros_like(h))) == pytest.approx(0, abs=1e-6)


def test_scale_and_phase_leave_it_as_it_is() -> None:
    h, predicted = channels(), channels(1)
    turn = 3 * torch.exp(torch.tensor(1.3j))
    assert torch.allclose(nmse(turn * h, turn * predicted), nmse(h, predicted), rtol=1e-4)


def test_decibels_are_of_the_mean_never_the_mean_of_decibels() -> None:
    ratios = torch.tensor([1.0, 0.01])
    assert metrics.mean_nmse_db(ratios) == pytest.approx(10 * math.log10(0.505), abs=1e-5)
    assert metrics.mean_nmse_db(ratios) != pytest.approx(-10, abs=0.1)


def test_bins_are_the_values_if_few_and_intervals_if_many() -> None:
    ratios = torch.tensor([0.1, 0.1, 0.01, 0.01])
    few = metrics.nmse_by_snr_db(ratios, torch.tensor([10.0, 10.0, 20.0, 20.0]))
    assert list(few) == ["10 dB", "20 dB"]
    assert few["20 dB"] == (2, pytest.approx(-20, abs=1e-4))
    many = metrics.nmse_by_snr_db(torch.full((30,), 0.1), torch.linspace(8, 21.9, 30))
    assert list(many) == ["5 to 10 dB", "10 to 15 dB", "15 to 20 dB", "20 to 25 dB"]
    assert sum(count for count, _ in many.values()) == 30


def retrieval(similarity: torch.Tensor, relevant: torch.Tensor) -> dict[str, float]:
    """Return the measures of queries that each rank the whole gallery."""
    return RETRIEVAL.summarise(scores_of_ranks(*ranks_of_relevant(similarity, relevant)))


def test_known_example() -> None:
    similarity = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5]])
    relevant = torch.tensor([[True, False, True, False, False], [True, True, False, False, False]])
    ap = precision_of_ranks(*ranks_of_relevant(similarity, relevant))
    torch.testing.assert_close(ap, torch.tensor([(1 / 1 + 2 / 3) / 2, (1 / 4 + 2 / 5) / 2]))
    measured = retrieval(similarity, relevant)
    assert measured == {"map": pytest.approx(float(ap.mean())), "rank1": 0.5, "rank5": 1.0, "rank10": 1.0}


def test_a_perfect_ranking_has_map_one() -> None:
    relevant = torch.rand(20, 50) < 0.2
    relevant[:, 0] = True
    assert retrieval(relevant.float(), relevant) == {"map": 1.0, "rank1": 1.0, "rank5": 1.0, "rank10": 1.0}


def test_a_constant_similarity_gains_nothing() -> None:
    relevant = torch.zeros(3, 40, dtype=torch.bool)
    relevant[:, 0] = True
    measured = retrieval(torch.zeros(3, 40), relevant)
    assert measured["map"] == pytest.approx(1 / 40)
    assert measured["rank10"] == 0


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_the_order_of_the_gallery_does_not_matter(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    similarity = (torch.rand(7, 30, generator=generator) * 8).round() / 8  # with ties
    relevant = torch.rand(7, 30, generator=generator) < 0.15
    relevant[:, 3] = True
    order = torch.randperm(30, generator=generator)
    assert retrieval(similarity, relevant) == retrieval(similarity[:, order], relevant[:, order])


def test_average_precision_equals_its_definition() -> None:
    similarity, relevant = torch.rand(5, 40), torch.rand(5, 40) < 0.2
    relevant[:, 0] = True
    found = precision_of_ranks(*ranks_of_relevant(similarity, relevant))
    for s, r, ap in zip(similarity, relevant, found, strict=True):
        hits = r[s.argsort(descending=True)]
        precision = hits.cumsum(0) / torch.arange(1, 41)
        torch.testing.assert_close(ap, precision[hits].mean())


def test_a_query_without_a_match_and_nan_are_errors() -> None:
    with pytest.raises(ValueError, match="relevant"):
        retrieval(torch.rand(1, 4), torch.zeros(1, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="NaN"):
        retrieval(torch.full((1, 4), torch.nan), torch.ones(1, 4, dtype=torch.bool))


def test_ranks_are_the_same_however_many_queries_are_ranked_at_a_time() -> None:
    queries, gallery = torch.randn(17, 4), torch.randn(23, 4)
    items = torch.cat([torch.arange(6), torch.randint(0, 6, (17,))])
    about = torch.arange(17) % 6
    expected = ranks_of_relevant(queries @ gallery.T, about[:, None] == items)
    for most in (1, 23 * 5, 10_000):
        ranks, present = ranks_in_gallery(queries, gallery, about, items, most)
        assert torch.equal(present, expected[1])
        assert torch.equal(ranks[present], expected[0][present])
        own, all_at_once = (RETRIEVAL.summarise(scores_of_ranks(*found)) for found in ((ranks, present), expected))
        assert own == all_at_once
