"""The pooling modes by hand, their limits, and their gradients."""

import math

import pytest
import torch

from tai_kernels.scoring.pooling import POOLING_MODES, check_pooling, pool, pooling_gradient


def column(*numbers):
    """One item, one class."""
    return torch.tensor(numbers, dtype=torch.float64).view(1, -1, 1)


def test_softmax_by_hand():
    # softmax(ln 3 · (1, 0)) = (3/4, 1/4), so the score is 3/4 · 1 + 1/4 · 0.
    values, log_sum = pool(column(1.0, 0.0), "softmax", math.log(3))
    assert values.item() == pytest.approx(0.75)
    assert log_sum.item() == pytest.approx(math.log(4))


def test_max_by_hand_keeps_the_first_of_equal_rows():
    values, first = pool(column(-0.5, 0.25, 0.25), "max", 1.0)
    assert values.item() == 0.25
    assert first.item() == 1


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_one_row_is_its_own_score(mode):
    assert pool(column(-0.3), mode, 50.0).values.item() == pytest.approx(-0.3)


def test_softmax_at_temperature_zero_is_the_mean():
    assert pool(column(1.0, 0.0, -0.4), "softmax", 0.0).values.item() == pytest.approx(0.2)


def test_softmax_tends_to_max():
    similarities = torch.randn(3, 9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(
        pool(similarities, "softmax", 1e5).values, pool(similarities, "max", 1.0).values, rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_masked_rows_do_not_count_even_when_they_are_larger(mode):
    similarities = column(-0.9, -0.8, 0.0)
    mask = torch.tensor([[True, True, False]])
    expected = pool(column(-0.9, -0.8), mode, 50.0)
    got = pool(similarities, mode, 50.0, mask)
    assert got.values.item() == pytest.approx(expected.values.item())
    assert got.state.item() == pytest.approx(expected.state.item())


@pytest.mark.parametrize("mode", POOLING_MODES)
@pytest.mark.parametrize("masked", [False, True])
def test_gradient_equals_autograd(mode, masked):
    generator = torch.Generator().manual_seed(1)
    similarities = torch.randn(4, 6, 3, generator=generator, dtype=torch.float64).requires_grad_()
    mask = torch.rand(4, 6, generator=generator) < 0.6 if masked else None
    if mask is not None:
        mask[:, 2] = True
    pooled = pool(similarities, mode, 7.0, mask)
    (expected,) = torch.autograd.grad(pooled.values.sum(), similarities)
    got = pooling_gradient(similarities.detach(), mode, 7.0, pooled, mask)
    torch.testing.assert_close(got.detach(), expected)


def test_gradcheck_of_softmax():
    similarities = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: pool(s, "softmax", 5.0).values, similarities.requires_grad_())


def test_unknown_mode_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"Unknown pooling 'maximum'.*'softmax', 'max'"):
        check_pooling("maximum")
    with pytest.raises(ValueError, match="did you mean 'softmax'"):
        pool(column(1.0), "soft_max", 1.0)
