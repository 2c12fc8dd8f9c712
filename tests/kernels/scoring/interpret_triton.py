"""Runs the Triton kernels in Triton's interpreter; a program of its own, because that is decided when Python starts.

Prints one JSON object per case: the errors of scores and gradients beside what is allowed.
"""

import functools
import json
import os
from unittest import mock

os.environ["TRITON_INTERPRET"] = "1"
os.environ["TAI_KERNEL"] = "triton"

import torch
import triton

from scoring_cases import (
    DTYPES,
    Case,
    Inputs,
    exact,
    largest_difference,
    make_inputs,
    pairwise,
    published_error,
    published_problems,
    torch_error,
    worst,
)
from tai_kernels.scoring import ops, triton_config, triton_score
from tai_kernels.scoring.call import ScoreArguments, make_call
from tai_kernels.scoring.pooling import POOLING_MODES
from tai_kernels.scoring.triton_config import ForwardConfig

TEMPERATURE = 40.0
EPSILON = 5e-6


def scores_and_gradients(case, inputs, label=None, gradients=True):
    scales = inputs.scales()
    settings = {
        "pooling": case.pooling,
        "temperature": TEMPERATURE,
        "fine_scales": scales,
        "empty": "coarse",
    }
    expected = exact(inputs, case.pooling, TEMPERATURE)
    error = worst(ops.score(*inputs.arguments(), **settings), expected)
    multiplied = torch.float16 if case.dtype == torch.int8 else case.dtype
    filled = bool((inputs.offsets.diff() > 0).all())
    allowed = EPSILON + (torch_error(inputs, case.pooling, TEMPERATURE, multiplied, expected) if filled else 0)

    report(label or str(case), error, allowed)
    if not gradients:
        return

    coarse, fine, offsets, *classes = inputs.arguments()
    classes = [c.clone().requires_grad_() for c in classes]
    wide = [c.detach().double().requires_grad_() for c in classes]
    got = ops.score(coarse, fine, offsets, *classes, **settings)
    exact_error = worst([s.detach() for s in got], expected)  # with a gradient wanted, every dtype is as good as fp32
    wanted = exact(Inputs(coarse, fine, offsets, *wide, scales), case.pooling, TEMPERATURE)
    weights = torch.randn(3, *got.merged.shape, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad(sum((w * s).sum() for w, s in zip(weights, got, strict=True)), classes)
    theirs = torch.autograd.grad(sum((w * s).sum() for w, s in zip(weights, wanted, strict=True)), wide)
    gradient_error = max(largest_difference(a, b) / float(b.abs().max()) for a, b in zip(ours, theirs, strict=True))
    report(f"{label or case} saving", exact_error, EPSILON)
    report(f"{label or case} gradient", gradient_error, 2e-5)


def report(name, error, allowed):
    print(json.dumps({"case": name, "error": error, "allowed": allowed}), flush=True)


def tile_shapes():
    """Items that share tiles, straddle them and fill several, under configurations that a large GPU would get."""
    for pooling in POOLING_MODES:
        case = Case(pooling, torch.float32, 48, 0, 20, 7)
        inputs = make_inputs(case, counts=[5, 0, 49, 49, 1, 40, 0])
        call = make_call(ScoreArguments(*inputs.arguments(), None, pooling, TEMPERATURE, 4.0, 0.5, True))
        for config in (ForwardConfig(5, 256, 16, 64, 4, 1), ForwardConfig(3, 32, 32, 16, 4, 1)):
            result = triton_score.forward(call, config=config)
            error = worst((result.coarse, result.fine, result.merged), exact(inputs, pooling, TEMPERATURE))
            report(f"{config} {pooling}", error, EPSILON)


def coarse_in_a_launch_of_its_own():
    """The other way to compute the coarse scores, which rows of mixed dtypes take too."""
    os.environ[triton_config.COARSE_VARIABLE] = "separate"
    for pooling in POOLING_MODES:
        case = Case(pooling, torch.float16, 48, 9, 20, 7)
        scores_and_gradients(case, make_inputs(case), f"separate {pooling}")
    del os.environ[triton_config.COARSE_VARIABLE]


def autotuned_launches():
    """As `TAI_KERNEL_AUTOTUNE` makes them, by a clock that favours one candidate: all are tried, each is right."""
    tried = []

    def bench(launch, quantiles):
        launch()
        tried.append(launch)
        return [1.0 / len(tried)] * len(quantiles)

    configs = (ForwardConfig(5, 256, 16, 64, 4, 1), ForwardConfig(3, 32, 32, 16, 4, 1))
    with mock.patch.object(triton, "autotune", functools.partial(triton.autotune, do_bench=bench)):
        kernel = triton_score._autotuned(configs)
    case = Case("softmax", torch.float32, 48, 0, 20, 7)
    inputs = make_inputs(case, counts=[5, 0, 49, 49, 1, 40, 0])
    call = make_call(ScoreArguments(*inputs.arguments(), None, "softmax", TEMPERATURE, 4.0, 0.5, True))
    with mock.patch.object(triton_score, "_forward_kernel", return_value=(kernel, {"EVEN_D": True})):
        for _ in range(2):
            result = triton_score.forward(call)
            error = worst((result.coarse, result.fine, result.merged), exact(inputs, "softmax", TEMPERATURE))
            report("autotuned", error, EPSILON)
    assert len(tried) == len(configs)
    assert kernel.best_config.kwargs == configs[1].constants()


def identical_rows():
    """Ties: the score of one row, and the whole gradient to the first."""
    for pooling in POOLING_MODES:
        case = Case(pooling, torch.float32, 48, 0, 7, 2)
        inputs = make_inputs(case, counts=[70, 3])
        fine = inputs.fine[:1].expand(73, 48)
        inputs = Inputs(inputs.coarse, fine, inputs.offsets, inputs.class_global, inputs.class_local, None)
        scores_and_gradients(case, inputs, f"identical rows {pooling}")


def low_cosines():
    """τ = 100 where exp(τ(s − 1)) is zero for every row."""
    case = Case("softmax", torch.float32, 48, 0, 7, 2)
    inputs = make_inputs(case, counts=[70, 3])
    classes = -torch.nn.functional.normalize(inputs.fine.mean(dim=0, keepdim=True) + 0.0 * inputs.class_local, dim=-1)
    inputs = Inputs(inputs.coarse, inputs.fine, inputs.offsets, inputs.class_global, classes, None)
    expected = exact(inputs, "softmax", 100.0)
    got = ops.score(*inputs.arguments(), temperature=100.0)
    report("low cosines", worst(got, expected), 2 * EPSILON)


def published_logits():
    """The published code's scores of its own features."""
    for dtype in DTYPES:
        multiplied = torch.float16 if dtype == torch.int8 else dtype
        for golden, inputs, allowed in published_problems(dtype, multiplied):
            report(f"published {golden.name} {dtype}", published_error(golden, inputs), allowed)


def main():
    torch.set_num_threads(1)
    assert triton_score.INTERPRETED
    for index, case in enumerate(pairwise(2_000_000, items=(1, 3, 9), classes=(1, 7, 20, 80), dim=(48, 512))):
        scores_and_gradients(case, make_inputs(case), gradients=index % 2 == 0)
    for pooling in POOLING_MODES:
        case = Case(pooling, torch.float32, 48, 0, 7, 4)
        scores_and_gradients(case, make_inputs(case, counts=[0, 9, 0, 70]), f"empty items {pooling}")
    tile_shapes()
    coarse_in_a_launch_of_its_own()
    autotuned_launches()
    identical_rows()
    low_cosines()
    published_logits()


if __name__ == "__main__":
    main()
