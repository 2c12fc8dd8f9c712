"""Every path of this machine against fp64: modes, dtypes, sizes, ties, extremes, gradients, the published numbers."""

import json
import os
import subprocess
import sys

import pytest
import torch

from scoring_cases import (
    DTYPES,
    Case,
    Inputs,
    all_cases,
    exact,
    largest_difference,
    make_inputs,
    pairwise,
    published_error,
    published_problems,
    torch_error,
    unit_rows,
    worst,
)
from tai_kernels.scoring import native_score, ops, reference
from tai_kernels.scoring.pooling import POOLING_MODES

TEMPERATURE = 40.0
EPSILON = 5e-6  # of fp32 sums in another order, at scale 4
REALISTIC = [
    Case("softmax", torch.float16, 1024, 49, 80, 20),
    Case("max", torch.float16, 512, 196, 1203, 3),
    Case("softmax", torch.float32, 512, 0, 500, 40),
]
COVERING = [*pairwise(most_multiplications=100_000_000), *REALISTIC]
PATHS = [
    "torch",
    pytest.param("compiled", marks=pytest.mark.skipif(bool(native_score.why_not()), reason="no compiler")),
]


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    monkeypatch.setenv("TAI_KERNEL", request.param)
    return request.param


def multiplied_in(path, dtype, device="cpu"):
    """What a path multiplies rows of ``dtype`` in: by this its error is judged."""
    if path == "compiled":
        return native_score.multiplies_in(dtype)
    if path in ("torch", "reference") and device == "cpu":
        return torch.float32
    return torch.float16 if dtype == torch.int8 else dtype


def error_of(case, inputs, path, device="cpu"):
    """Our error and the largest that is allowed: torch's own at the dtype that the path multiplies in."""
    expected = exact(inputs, case.pooling, TEMPERATURE)
    got = ops.score(
        *inputs.arguments(device), pooling=case.pooling, temperature=TEMPERATURE, fine_scales=inputs.scales(device)
    )
    assert all(s.dtype == torch.float32 and s.shape == (case.items, case.classes) for s in got)
    dtype = multiplied_in(path, case.dtype, device)
    return worst(got, expected), torch_error(inputs, case.pooling, TEMPERATURE, dtype, expected) + EPSILON


@pytest.mark.parametrize("case", COVERING, ids=str)
def test_covering_set(case, path):
    error, allowed = error_of(case, make_inputs(case), path)
    assert error <= allowed


@pytest.mark.parametrize("case", COVERING[::4], ids=str)
def test_reference_backend(case, monkeypatch):
    monkeypatch.setenv("TAI_KERNEL", "reference")
    error, allowed = error_of(case, make_inputs(case), "reference")
    assert error <= allowed


@pytest.mark.gpu
@pytest.mark.parametrize("case", all_cases() if torch.cuda.is_available() else all_cases()[:1], ids=str)
def test_full_product_on_a_gpu(case, monkeypatch):
    monkeypatch.setenv("TAI_KERNEL", "triton")
    error, allowed = error_of(case, make_inputs(case), "triton", device="cuda")
    assert error <= allowed


@pytest.mark.gpu
@pytest.mark.parametrize("case", COVERING, ids=str)
def test_gradients_on_a_gpu(case, monkeypatch):
    monkeypatch.setenv("TAI_KERNEL", "triton")
    check_gradients(case, make_inputs(case), device="cuda")


def check_gradients(case, inputs, device="cpu"):
    """Gradients of a random combination of all three outputs against autograd through the fp64 reference."""
    coarse, fine, offsets, *classes = inputs.arguments(device)
    classes = [c.requires_grad_() for c in classes]
    got = ops.score(
        coarse,
        fine,
        offsets,
        *classes,
        pooling=case.pooling,
        temperature=TEMPERATURE,
        fine_scales=inputs.scales(device),
        empty="coarse",
    )
    wide = [c.detach().double().cpu().requires_grad_() for c in classes]
    wide_inputs = Inputs(inputs.coarse, inputs.fine, inputs.offsets, *wide, inputs.fine_scales)
    expected = exact(wide_inputs, case.pooling, TEMPERATURE)
    weights = torch.randn(3, case.items, case.classes, generator=torch.Generator().manual_seed(7))
    ours = torch.autograd.grad(sum((w.to(device) * s).sum() for w, s in zip(weights, got, strict=True)), classes)
    theirs = torch.autograd.grad(sum((w * s).sum() for w, s in zip(weights, expected, strict=True)), wide)
    for mine, reference_gradient in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.float32
        scale = float(reference_gradient.abs().max())
        assert largest_difference(mine, reference_gradient) <= 2e-5 * scale + 1e-6


@pytest.mark.parametrize("case", COVERING[::3], ids=str)
def test_gradients(case, path):
    check_gradients(case, make_inputs(case))


@pytest.mark.parametrize("pooling", POOLING_MODES)
def test_items_without_rows(pooling, path):
    case = Case(pooling, torch.float32, 48, 0, 21, 6)
    inputs = make_inputs(case, counts=[0, 5, 0, 210, 1, 0])
    got = ops.score(*inputs.arguments(), pooling=pooling, temperature=TEMPERATURE, empty="coarse")
    assert worst(got, exact(inputs, pooling, TEMPERATURE)) <= EPSILON
    for item in (0, 2, 5):
        assert torch.equal(got.fine[item], got.coarse[item])
        assert torch.equal(got.merged[item], got.coarse[item])
    check_gradients(case, inputs)


def test_items_without_rows_are_an_error_unless_asked_for(path):
    inputs = make_inputs(Case("softmax", torch.float32, 48, 0, 3, 3), counts=[2, 0, 0])
    with pytest.raises(ValueError, match=r"item 1 \(of 2 such\) has no fine rows"):
        ops.score(*inputs.arguments(), temperature=TEMPERATURE)


@pytest.mark.parametrize("pooling", POOLING_MODES)
def test_nothing_but_empty_items_and_no_items_at_all(pooling, path):
    inputs = make_inputs(Case(pooling, torch.float32, 48, 0, 3, 2), counts=[0, 0])
    coarse, fine, offsets, *classes = inputs.arguments()
    got = ops.score(coarse, fine, offsets, *classes, pooling=pooling, temperature=1.0, empty="coarse")
    assert worst(got, [4 * coarse.double() @ classes[0].double().T] * 3) <= EPSILON
    nothing = ops.score(coarse[:0], fine, offsets[:1], *classes, pooling=pooling, temperature=1.0)
    assert all(s.shape == (0, 3) for s in nothing)


@pytest.mark.parametrize("pooling", POOLING_MODES)
def test_high_temperature_with_low_cosines_does_not_underflow(pooling, path):
    # exp(τ(s − 1)) without a running maximum is zero for every row here: all cosines are below -0.2.
    case = Case(pooling, torch.float32, 48, 0, 20, 2)
    inputs = make_inputs(case, counts=[9, 160])
    direction = unit_rows(torch.Generator().manual_seed(3), 1, 48)
    fine = torch.nn.functional.normalize(0.1 * inputs.fine + direction, dim=-1)
    classes = torch.nn.functional.normalize(0.1 * inputs.class_local - direction, dim=-1)
    inputs = Inputs(inputs.coarse, fine, inputs.offsets, inputs.class_global, classes, None)
    expected = exact(inputs, pooling, 100.0)
    assert float(expected.fine.max()) < 4 * -0.2
    got = ops.score(*inputs.arguments(), pooling=pooling, temperature=100.0)
    assert worst(got, expected) <= 2 * EPSILON


@pytest.mark.parametrize("pooling", POOLING_MODES)
def test_identical_rows_score_as_one_and_the_first_takes_the_gradient(pooling, path):
    row = unit_rows(torch.Generator().manual_seed(4), 1, 48)
    classes = unit_rows(torch.Generator().manual_seed(5), 7, 48)
    fine, offsets = row.expand(250, 48), torch.tensor([0, 50, 250])
    got = ops.score(row.expand(2, 48), fine, offsets, classes, classes, pooling=pooling, temperature=TEMPERATURE)
    assert worst(got, [4 * (row.double() @ classes.double().T).expand(2, 7)] * 3) <= EPSILON
    inputs = Inputs(row.expand(2, 48), fine, offsets, classes, classes.clone(), None)
    check_gradients(Case(pooling, torch.float32, 48, 0, 7, 2), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_dense_and_strided_inputs_equal_packed_ones(dtype, path):
    case = Case("softmax", dtype, 48, 9, 7, 5)
    inputs = make_inputs(case)
    settings = {"temperature": TEMPERATURE}
    packed = ops.score(*inputs.arguments(), **settings)
    dense = inputs.fine.view(5, 9, 48)
    assert worst(ops.score(inputs.coarse, dense, None, *inputs.arguments()[3:], **settings), packed) == 0

    def spread(x):
        """The same numbers, every other one of a larger tensor, column-major."""
        larger = torch.full((x.shape[1] * 2, x.shape[0] * 2), torch.nan, dtype=x.dtype)
        larger[::2, ::2] = x.T
        return larger[::2, ::2].T

    strided = [spread(t) for t in (inputs.coarse, inputs.fine, inputs.class_global, inputs.class_local)]
    assert not strided[1].is_contiguous()
    got = ops.score(strided[0], strided[1], inputs.offsets, strided[2], strided[3], **settings)
    assert worst(got, packed) <= EPSILON
    rows_apart = torch.full((45, 60), torch.nan, dtype=dtype)
    rows_apart[:, :48] = inputs.fine
    got = ops.score(inputs.coarse, rows_apart[:, :48], *inputs.arguments()[2:], **settings)
    assert worst(got, packed) <= EPSILON


@pytest.mark.golden
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("path", ["reference", *PATHS])
def test_published_logits(path, dtype, monkeypatch):
    monkeypatch.setenv("TAI_KERNEL", path)
    problems = list(published_problems(dtype, multiplied_in(path, dtype)))
    assert [golden.name for golden, _, _ in problems] == ["image", "sentence"]
    for golden, inputs, allowed in problems:
        assert published_error(golden, inputs) <= allowed


@pytest.mark.golden
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_published_logits_on_a_gpu(dtype, monkeypatch):
    monkeypatch.setenv("TAI_KERNEL", "triton")
    for golden, inputs, allowed in published_problems(dtype, multiplied_in("triton", dtype, "cuda")):
        assert published_error(golden, inputs, "cuda") <= allowed


MEMORY_PROGRAM = """
import json, os, resource, torch
from tai_kernels.scoring import ops
torch.set_num_threads(2)
unit = lambda *shape: torch.nn.functional.normalize(torch.randn(*shape), dim=-1)
coarse, fine, classes = unit(48, 16), unit(48, 196, 16), unit(4585, 16)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
grown = {}
for name in ("compiled", "torch"):
    os.environ["TAI_KERNEL"] = name
    try:
        ops.score(coarse[:2], fine[:2], None, classes, classes, temperature=40.0)
    except RuntimeError:
        continue  # no compiler
    before = peak()
    ops.score(coarse, fine, None, classes, classes, temperature=40.0)
    grown[name] = peak() - before
print(json.dumps(grown))
"""


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="reads the peak of resident memory as Linux counts it")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_similarities():
    similarities = 48 * 196 * 4585 * 4
    run = subprocess.run([sys.executable, "-c", MEMORY_PROGRAM], capture_output=True, text=True, check=True)
    grown = json.loads(run.stdout)
    assert "torch" in grown
    for name, grown_bytes in grown.items():
        assert grown_bytes < 0.35 * similarities, name


def test_reference_and_ops_agree_on_the_names():
    assert ops.POOLING_MODES == POOLING_MODES
    assert ops.Scores is reference.Scores
