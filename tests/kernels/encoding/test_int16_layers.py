"""int16 layers against fp64: exact sums, no overflow, every number of rows and channels, the same bits however run."""

import ctypes
import subprocess

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tai_kernels import native_build
from tai_kernels.encoding import int16_layers, int16_library
from tai_kernels.encoding.int16_layers import Convolution, Linear, Rows, mean_pool, packed_weights
from tai_kernels.native_build import UnavailableError

pytestmark = pytest.mark.skipif(bool(int16_layers.why_not()), reason=str(int16_layers.why_not()))

LARGEST = 4095
# The transform of a 3x3 filter's taps to six points along a line, as in Lavin and Gray.
FILTER_TRANSFORM = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)

# Those of six inputs to six points and of six points to four outputs.
INPUT_TRANSFORM = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
OUTPUT_TRANSFORM = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64
)
CHANCE = 7  # standard deviations: one number in 4e11 lies farther off


def generator(seed):
    return torch.Generator().manual_seed(seed)


def quantised(x):
    """Rows of fp32 numbers, rounded as the layers do it."""
    scales = x.abs().amax(-1) / LARGEST
    values = torch.where(scales[..., None] > 0, x / scales[..., None], torch.zeros(())).round().to(torch.int16)
    return Rows(values.contiguous(), scales.contiguous())


def unpacked(weights, scales, outputs):
    """[(P,) K, O] in fp64: what the packed weights stand for."""
    whole = weights.double() * scales.double()[..., None, :, None]  # [panels, (P,) K / 2, 16, 2]
    rows = whole.transpose(-1, -2).flatten(-3, -2)  # [panels, (P,) K, 16]
    return rows.movedim(0, -2).flatten(-2)[..., :outputs]


def points(weight_OC33):
    rows = torch.einsum("pi,ocij,qj->pqco", FILTER_TRANSFORM, weight_OC33.double(), FILTER_TRANSFORM)
    return rows.flatten(0, 1).contiguous()


def rounding_deviations(images_NHWC, weight_OC33):
    """[N, H, W, O]: the standard deviation that rounding the points to int16 gives each output.

    A number rounded to steps of s is off by s² / 12 in the mean square, and the transforms' squared weights say how
    much of it arrives where: 25 times at the first pixel of a tile, 17,161 times at its last.
    """
    _, height, width, _ = images_NHWC.shape
    down, right = -(-height // 4), -(-width // 4)
    padded = F.pad(images_NHWC.double(), (0, 0, 1, 4 * right - width + 1, 1, 4 * down - height + 1))
    tiles = padded.unfold(1, 6, 4).unfold(2, 6, 4)
    transformed = torch.einsum("py,nhwcyx,qx->nhwpqc", INPUT_TRANSFORM, tiles, INPUT_TRANSFORM)
    steps = transformed.abs().amax(-1) / LARGEST
    energies = points(weight_OC33).square().sum(1).unflatten(0, (6, 6))
    shares = OUTPUT_TRANSFORM.square()
    squares = torch.einsum("ip,jq,nhwpq,pqo->nhwijo", shares, shares, steps.square() / 12, energies)
    return squares.permute(0, 1, 3, 2, 4, 5).flatten(1, 2).flatten(2, 3)[:, :height, :width].sqrt()


# Weights


def test_weights_by_hand():
    # Two inputs and two outputs: the largest magnitude of a column is 32767 steps.
    weights, scales = packed_weights(torch.tensor([[1.0, 0.0], [-0.5, 3.0]], dtype=torch.float64))
    assert weights.shape == (1, 1, 16, 2)
    assert scales.shape == (1, 16)
    assert weights[0, 0, 0].tolist() == [32767, -16384]
    assert weights[0, 0, 1].tolist() == [0, 32767]
    assert not weights[0, 0, 2:].any()
    torch.testing.assert_close(scales[0, :2].double(), torch.tensor([1.0, 3.0], dtype=torch.float64) / 32767)


@pytest.mark.parametrize("shape", [(8, 8), (2, 16), (64, 40), (36, 16, 24)])
def test_weights_come_back(shape):
    weight = torch.randn(shape, generator=generator(0), dtype=torch.float64)
    packed, scales = packed_weights(weight)
    found = unpacked(packed, scales, shape[-1])
    assert found.shape == weight.shape
    step = scales.double().movedim(0, -2).flatten(-2)[..., : shape[-1]].unsqueeze(-2)
    # Half a step, and what the scale in fp32 makes of 32767 of them.
    assert ((found - weight).abs() <= (0.5 + 32767 * 2**-24) * step).all()


@pytest.mark.parametrize("depth", [8, 512, 4096])
def test_no_sum_overflows(depth):
    """Rows at their limit with the sign of every weight, which are as heavy as they get."""
    weight = torch.ones(8, depth, dtype=torch.float64)
    weight[1::2] = torch.randn(4, depth, generator=generator(1), dtype=torch.float64).sign()
    weight[2] = torch.randn(depth, generator=generator(2), dtype=torch.float64)
    values = torch.where(weight > 0, LARGEST, -LARGEST).to(torch.int16)
    rows = Rows(values, torch.ones(8))
    found = Linear(weight, torch.zeros(8)).floats(rows)
    expected = values.double() @ unpacked(*packed_weights(weight.T), 8)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6 * depth * LARGEST)
    heaviest = weight.abs().sum(dim=1) * LARGEST
    torch.testing.assert_close(found.double().diagonal(), heaviest, rtol=0.5 / (2**31 / LARGEST / depth - 1), atol=0)


# Linear maps


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 110),
    inputs=st.sampled_from([8, 16, 40, 136]),
    outputs=st.sampled_from([8, 16, 24, 40, 64]),
    relu=st.booleans(),
    adds=st.booleans(),
    seed=st.integers(0, 999),
)
def test_a_linear_map(count, inputs, outputs, relu, adds, seed):
    random = generator(seed)
    weight = torch.randn(outputs, inputs, generator=random, dtype=torch.float64)
    bias = torch.randn(outputs, generator=random)
    rows = quantised(torch.randn(count, inputs, generator=random))
    other = quantised(torch.randn(count, outputs, generator=random)) if adds else None
    layer = Linear(weight, bias)
    rounded = unpacked(*packed_weights(weight.T), outputs)
    expected = rows.values.double() * rows.scales.double()[:, None] @ rounded + bias.double()
    whole = expected.clamp_min(0) if relu else expected
    torch.testing.assert_close(layer.floats(rows, relu=relu).double(), whole, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(rounded, weight.T, rtol=0, atol=1e-3)
    if other is not None:
        expected = expected + other.floats().double()
    expected = expected.clamp_min(0) if relu else expected
    found = layer(rows, relu=relu, other=other)
    assert found.values.shape == (count, outputs)
    assert found.scales.shape == (count,)
    # Half a step of each row's own scale.
    off = (found.floats().double() - expected).abs()
    assert (off <= 0.51 * found.scales.double()[:, None] + 1e-5).all()
    if count:
        assert int(found.values.abs().max()) <= LARGEST


def test_rows_of_nothing_stay_nothing():
    layer = Linear(torch.ones(8, 8), torch.zeros(8))
    found = layer(Rows(torch.zeros(3, 8, dtype=torch.int16), torch.zeros(3)))
    assert not found.values.any()
    assert not found.scales.any()


def test_a_row_does_not_depend_on_its_neighbours_or_threads():
    random = generator(5)
    layer = Linear(torch.randn(64, 96, generator=random), torch.randn(64, generator=random))
    rows = quantised(torch.randn(4, 50, 96, generator=random))
    whole = layer(rows, relu=True)
    assert whole.values.shape == (4, 50, 64)
    alone = layer(Rows(rows.values[2, 17:18], rows.scales[2, 17:18]), relu=True)
    assert torch.equal(whole.values[2, 17:18], alone.values)
    assert torch.equal(whole.scales[2, 17:18], alone.scales)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            again = layer(rows, relu=True)
            assert torch.equal(whole.values, again.values)
            assert torch.equal(whole.scales, again.scales)
    finally:
        torch.set_num_threads(before)


# Convolutions


def test_all_ones_count_their_neighbours():
    layer = Convolution(points(torch.ones(8, 8, 3, 3)), torch.full((8,), -40.0))
    found = layer.floats(torch.ones(1, 3, 4, 8))
    # 4, 6 or 9 neighbours of 8 channels less 40, not below 0.
    expected = torch.tensor([[0.0, 8, 8, 0], [8, 32, 32, 8], [0, 8, 8, 0]])
    torch.testing.assert_close(found[0, :, :, 3], expected, atol=0.05, rtol=0)


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(0, 3),
    channels=st.sampled_from([8, 24, 64]),
    outputs=st.sampled_from([8, 16, 40]),
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    pool=st.sampled_from([1, 2]),
    seed=st.integers(0, 999),
)
@example(images=1, channels=64, outputs=40, height=11, width=7, pool=2, seed=999)  # 0.03018 off at a tile's last pixel
def test_a_convolution(images, channels, outputs, height, width, pool, seed):
    height, width = height * pool, width * pool
    random = generator(seed)
    x = torch.randn(images, height, width, channels, generator=random)
    weight = torch.randn(outputs, channels, 3, 3, generator=random) / (3 * channels**0.5)
    bias = torch.randn(outputs, generator=random)
    layer = Convolution(points(weight), bias)
    whole = (
        F.conv2d(x.double().permute(0, 3, 1, 2), weight.double(), bias.double(), padding=1).relu().permute(0, 2, 3, 1)
    )
    # Rows of 12 bits are off by 2.5e-4 of their root mean square, and the transform makes about ten times that of it.
    off = layer.floats(x).double() - whole
    assert float(off.square().sum()) <= 2.5e-3**2 * max(8, whole.numel())
    deviations = rounding_deviations(x, weight)
    assert (off.abs() <= CHANCE * deviations + 1e-5).all()
    found = layer(x, pool=pool)
    assert found.values.shape == (images, height // pool, width // pool, outputs)
    assert not (found.values < 0).any()
    means, farthest = (F.avg_pool2d(one.permute(0, 3, 1, 2), pool).permute(0, 2, 3, 1) for one in (whole, deviations))
    off = (found.floats().double() - means).abs()
    assert (off <= CHANCE * farthest + 0.51 * found.scales.double()[..., None] + 1e-5).all()


def test_a_picture_does_not_depend_on_its_neighbours_or_threads():
    random = generator(6)
    layer = Convolution(points(torch.randn(24, 16, 3, 3, generator=random)), torch.zeros(24))
    x = torch.randn(5, 14, 10, 16, generator=random)
    whole = layer(x, pool=2)
    alone = layer(x[3:4], pool=2)
    assert torch.equal(whole.values[3:4], alone.values)
    assert torch.equal(whole.scales[3:4], alone.scales)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        again = layer(x, pool=2)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(whole.values, again.values)


# Means


def test_means_by_hand():
    values = torch.arange(4, dtype=torch.int16).view(1, 2, 2, 1).expand(1, 2, 2, 8).contiguous()
    rows = Rows(values, torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    found = mean_pool(rows, 2)  # (0 + 2 + 6 + 12) / 4
    assert found.values.shape == (1, 1, 1, 8)
    assert found.values.unique().tolist() == [LARGEST]
    torch.testing.assert_close(found.floats(), torch.full((1, 1, 1, 8), 5.0))


@pytest.mark.parametrize(
    ("images", "height", "width", "factor"), [(3, 4, 6, 2), (1, 3, 9, 3), (2, 5, 3, 1), (0, 2, 2, 2)]
)
def test_means(images, height, width, factor):
    rows = quantised(torch.randn(images, height, width, 24, generator=generator(7)))
    expected = F.avg_pool2d(rows.floats().permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)
    found = mean_pool(rows, factor)
    assert found.values.shape == expected.shape
    off = (found.floats() - expected).abs()
    assert (off <= 0.51 * found.scales[..., None] + 1e-6).all()


# What is refused


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="there are 12 channels, expected a multiple of 8"):
        Linear(torch.zeros(8, 12), torch.zeros(8))
    with pytest.raises(ValueError, match="there are 20 channels"):
        Convolution(torch.zeros(36, 8, 20), torch.zeros(20))
    layer, wide = Linear(torch.zeros(16, 8), torch.zeros(16)), Convolution(torch.zeros(36, 8, 8), torch.zeros(8))
    rows = quantised(torch.ones(4, 8))
    with pytest.raises(ValueError, match=r"rows are \(4, 16\) with scales \(4,\), expected 8 channels"):
        layer(quantised(torch.ones(4, 16)))
    with pytest.raises(ValueError, match=r"there are \(2,\) rows to add to \(4,\)"):
        layer(rows, other=quantised(torch.ones(2, 16)))
    with pytest.raises(ValueError, match=r"expected contiguous torch\.int16"):
        layer(Rows(rows.values.float(), rows.scales))
    with pytest.raises(ValueError, match="expected contiguous"):
        layer(Rows(torch.zeros(8, 4, dtype=torch.int16).T, rows.scales))
    with pytest.raises(ValueError, match=r"images are \(1, 4, 4, 16\), expected \(N, H, W, 8\)"):
        wide.floats(torch.zeros(1, 4, 4, 16))
    with pytest.raises(ValueError, match="a pool of 2 does not fit 4 x 3 pixels"):
        wide(torch.zeros(1, 4, 3, 8), pool=2)
    with pytest.raises(ValueError, match="means of 2 x 2 pixels do not fit"):
        mean_pool(quantised(torch.ones(1, 4, 3, 8)), 2)
    with pytest.raises(ValueError, match="there are 4 channels"):
        mean_pool(quantised(torch.ones(1, 4, 4, 4)), 2)


# The library


def test_the_jobs_are_laid_out_like_the_structs():
    sizes = [ctypes.sizeof(job) for job in int16_library._FUNCTIONS]
    assert sizes == [8 * 10 + 8 * 3 + 8, 8 * 7 + 8 * 6 + 8, 8 * 4 + 8 * 4 + 8]


def test_a_library_of_another_version_is_refused(tmp_path, monkeypatch):
    other, _ = native_build.built_library(native_build.cache_folder(), "score.cpp")
    monkeypatch.setattr(int16_library, "built_library", lambda *_: (other, "c++"))
    with pytest.raises(UnavailableError, match="does not fit this version; delete it"):
        int16_library.load(tmp_path)


@pytest.mark.slow
def test_it_is_built_for_cpus_with_fused_int16_products(tmp_path):
    """They add products in one instruction, which this machine may not have: the text must still be what it takes."""
    probe = [native_build.find_compiler(), "-mavxvnni", "-x", "c++", "-E", "-"]
    if subprocess.run(probe, input=b"", capture_output=True, check=False).returncode:
        pytest.skip("this compiler does not know AVX-VNNI")
    path, _ = native_build.built_library(tmp_path, "encode.cpp", ("-DTAI_LANES=8", "-mavxvnni"))
    assert path.exists()


def test_a_cpu_without_avx2_has_no_such_layers(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx2_supported", lambda: False)
    assert int16_layers.why_not() == "this CPU has no AVX2"
