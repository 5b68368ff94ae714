import torch
from hypothesis import given
from hypothesis import strategies as st

from sclmkb.common.seeds import derive_seed, make_generator

PARTS = st.lists(st.one_of(st.integers(), st.text()), max_size=4)


@given(PARTS)
def test_seeds_fit_in_63_bits(parts: list[int | str]) -> None:
    assert 0 <= derive_seed(*parts) < 2**63


@given(PARTS, PARTS)
def test_different_parts_give_different_seeds(a: list[int | str], b: list[int | str]) -> None:
    assert (derive_seed(*a) == derive_seed(*b)) == (a == b) or any("\x1f" in str(p) for p in (*a, *b))


def test_neighbours_share_no_sample_seeds() -> None:
    seeds = {derive_seed(0, row, attempt, sample) for row in range(50) for attempt in range(3) for sample in range(4)}
    assert len(seeds) == 600
    assert not seeds & {seed + 1 for seed in seeds}


def test_generators_repeat() -> None:
    draws = [torch.rand(3, generator=make_generator(1, "noise")) for _ in range(2)]
    torch.testing.assert_close(draws[0], draws[1], rtol=0, atol=0)
