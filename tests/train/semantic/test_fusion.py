import pytest
import torch
from beartype import beartype
from jaxtyping import jaxtyped

from sclmkb.train.semantic import fusion

B, K, M = 12, 4, 8


def checked(function):
    return jaxtyped(typechecker=beartype)(function)


def feature(seed: int) -> torch.Tensor:
    return torch.randn(B, K, M, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def test_weights_add_up_to_one_are_detached_and_grow_with_importance() -> None:
    a_s, a_g = torch.rand(B).requires_grad_(), torch.rand(B)
    w_s, w_g = checked(fusion.fusion_weights)(a_s, a_g)
    torch.testing.assert_close(w_s + w_g, torch.ones(B))
    assert not w_s.requires_grad
    assert ((w_s > w_g) == (a_s > a_g)).all()


def test_each_domain_is_weighted_by_the_importance_of_the_other() -> None:
    f_s, f_g = feature(0), feature(1)
    weights = fusion.FusionWeights(torch.full((B,), 0.9), torch.full((B,), 0.1))  # the source matters more
    torch.testing.assert_close(checked(fusion.fuse)(f_s, f_g, weights), 0.1 * f_s + 0.9 * f_g)


def test_gradients_flow_through_the_features_not_through_the_weights() -> None:
    f_s, f_g = feature(0).requires_grad_(), feature(1).requires_grad_()
    a_s = (f_s.abs() * 3).mean((1, 2))
    weights = fusion.fusion_weights(a_s, f_g.abs().mean((1, 2)))
    torch.view_as_real(fusion.fuse(f_s, f_g, weights)).sum().backward()
    expected = weights.generated[:, None, None].expand(B, K, M)
    torch.testing.assert_close(f_s.grad.real, expected)


def test_tiny_gradients_still_give_weights_that_differ_only_if_standardised() -> None:
    a_s, a_g = torch.rand(B) * 1e-6, torch.rand(B) * 1e-6
    plain = fusion.fusion_weights(a_s, a_g, standardise=False).source
    torch.testing.assert_close(plain, torch.full((B,), 0.5), atol=1e-5, rtol=0)
    assert (fusion.fusion_weights(a_s, a_g).source - 0.5).abs().mean() > 0.1


@pytest.mark.parametrize(("importance", "expected"), [("signed", -0.5), ("abs", 1.5), ("grad_times_input", 3.0)])
def test_pooling(importance: fusion.Importance, expected: float) -> None:
    gradient = torch.complex(torch.full((B, K, M), -2.0), torch.full((B, K, M), 1.0))
    values = torch.complex(torch.full((B, K, M), 2.0), torch.full((B, K, M), -2.0))
    pooled = checked(fusion.pool_importance)(gradient, values, importance)
    torch.testing.assert_close(pooled, torch.full((B,), expected))
