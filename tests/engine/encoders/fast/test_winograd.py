import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tai_engine.encoders.fast import winograd
from tai_engine.encoders.fast.winograd import convolve_relu, transform_filters


def direct(x, weight, bias):
    return F.conv2d(x.double(), weight.double(), bias.double(), padding=1).relu()


def test_filters_by_hand():
    # The middle tap alone: the points are the products of the middle column of the transform with itself.
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    weight[0, 0, 1, 1] = 36.0
    column = torch.tensor([0, -1 / 6, 1 / 6, 1 / 12, -1 / 12, 0], dtype=torch.float64)
    torch.testing.assert_close(transform_filters(weight).view(6, 6), 36 * column[:, None] * column)


def test_all_ones_count_their_neighbours():
    x, weight = torch.ones(1, 1, 3, 4), torch.ones(1, 1, 3, 3)
    found = convolve_relu(x, transform_filters(weight), torch.tensor([-5.0]))
    expected = torch.tensor([[0.0, 1, 1, 0], [1, 4, 4, 1], [0, 1, 1, 0]])  # 4, 6 or 9 neighbours less 5, not below 0
    torch.testing.assert_close(found[0, 0], expected, atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    images=st.integers(0, 3),
    channels=st.integers(1, 5),
    outputs=st.integers(1, 5),
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    seed=st.integers(0, 99),
)
def test_it_is_the_convolution(images, channels, outputs, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, channels, height, width, generator=generator)
    weight = torch.randn(outputs, channels, 3, 3, generator=generator)
    bias = torch.randn(outputs, generator=generator)
    found = convolve_relu(x, transform_filters(weight.double()).float(), bias)
    torch.testing.assert_close(found.double(), direct(x, weight, bias), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("side", [8, 7])
def test_blocks_of_images_give_the_same(monkeypatch, side):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 16, side, side, generator=generator).contiguous(memory_format=torch.channels_last)
    filters, bias = transform_filters(torch.randn(8, 16, 3, 3, generator=generator)), torch.zeros(8)
    whole = convolve_relu(x, filters, bias)
    assert whole.is_contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(winograd, "_BLOCK_BYTES", 2 * 36 * 4 * 16 * 4)  # two images
    seen = []
    real = winograd._convolve_relu
    monkeypatch.setattr(winograd, "_convolve_relu", lambda x, *rest: seen.append(len(x)) or real(x, *rest))
    torch.testing.assert_close(convolve_relu(x, filters, bias), whole, atol=1e-5, rtol=1e-5)
    assert seen == [2, 2, 1]
    monkeypatch.setattr(winograd, "_BLOCK_BYTES", 1)  # never less than one image
    torch.testing.assert_close(convolve_relu(x, filters, bias), whole, atol=1e-5, rtol=1e-5)
