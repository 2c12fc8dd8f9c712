"""Random scoring problems, their fp64 answers, and the pairwise covering sets that the kernel tests run over."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as functional
from torch import Tensor

from golden_set import TOLERANCE as GOLDEN_TOLERANCE
from golden_set import GoldenScores, golden_scores
from tai_kernels.scoring import ops, reference
from tai_kernels.scoring.pooling import POOLING_MODES

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int8)
PACKED = 0  # in place of L: items of 1..77 rows

FACTORS = {
    "pooling": POOLING_MODES,
    "dtype": DTYPES,
    "dim": (48, 512, 640, 1024),
    "rows_per_item": (1, 9, 49, 50, 196, 197, PACKED),
    "classes": (1, 7, 20, 80, 1203),
    "items": (1, 3, 257),
}


@dataclass(frozen=True)
class Case:
    pooling: str
    dtype: torch.dtype
    dim: int
    rows_per_item: int
    classes: int
    items: int

    def __str__(self):
        rows = self.rows_per_item or "packed"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.pooling}-{dtype}-D{self.dim}-L{rows}-C{self.classes}-N{self.items}"

    @property
    def multiplications(self):
        return self.items * (self.rows_per_item or 39) * self.classes * self.dim


def all_cases(**overrides):
    factors = {**FACTORS, **overrides}
    return [Case(**dict(zip(factors, values, strict=True))) for values in itertools.product(*factors.values())]


def pairwise(most_multiplications, **overrides):
    """A small set of cases in which every pair of values of two factors occurs that occurs in any affordable case."""
    affordable = [case for case in all_cases(**overrides) if case.multiplications <= most_multiplications]
    names = list(FACTORS)

    def pairs(case):
        values = [(name, getattr(case, name)) for name in names]
        return set(itertools.combinations(values, 2))

    pairs_of = {case: pairs(case) for case in affordable}
    missing = set().union(*pairs_of.values())
    chosen = []
    while missing:
        best = max(affordable, key=lambda case: (len(pairs_of[case] & missing), -case.multiplications))
        chosen.append(best)
        missing -= pairs_of[best]
    return chosen


def unit_rows(generator, *shape):
    return functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


@dataclass(frozen=True)
class Inputs:
    coarse: Tensor
    fine: Tensor
    offsets: Tensor
    class_global: Tensor
    class_local: Tensor
    fine_scales: Tensor | None

    def arguments(self, device="cpu"):
        tensors = (self.coarse, self.fine, self.offsets, self.class_global, self.class_local)
        return tuple(t.to(device) for t in tensors)

    def scales(self, device="cpu"):
        return None if self.fine_scales is None else self.fine_scales.to(device)


def quantise(rows):
    """int8 rows and their scales, such that the largest number of a row is 127."""
    scales = rows.abs().amax(dim=1) / 127
    return (rows / scales[:, None]).round().to(torch.int8), scales


def make_inputs(case, counts=None):
    generator = torch.Generator().manual_seed(hash((case.dim, case.rows_per_item, case.classes, case.items)) % 2**31)
    if counts is None:
        if case.rows_per_item == PACKED:
            counts = torch.randint(1, 78, (case.items,), generator=generator)
        else:
            counts = torch.full((case.items,), case.rows_per_item)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.as_tensor(counts).to(torch.int64).cumsum(0)])
    coarse = unit_rows(generator, case.items, case.dim)
    fine = unit_rows(generator, int(offsets[-1]), case.dim)
    classes = [unit_rows(generator, case.classes, case.dim) for _ in range(2)]
    if case.dtype == torch.int8:
        fine, scales = quantise(fine)
        return Inputs(coarse, fine, offsets, *classes, scales)
    return Inputs(coarse.to(case.dtype), fine.to(case.dtype), offsets, *classes, None)


def exact(inputs, pooling, temperature, **settings):
    """Scores in fp64 from the rows as they are stored."""
    return reference.score(
        inputs.coarse.double(),
        inputs.fine.double(),
        inputs.offsets,
        inputs.class_global.double(),
        inputs.class_local.double(),
        pooling=pooling,
        temperature=temperature,
        fine_scales_T=None if inputs.fine_scales is None else inputs.fine_scales.double(),
        **settings,
    )


def torch_error(inputs, pooling, temperature, dtype, expected):
    """Largest error of the formula in plain torch when everything is held in ``dtype``: what a kernel may not exceed.

    Of a handful of numbers torch's own may all be lucky, so then more classes are scored beside the given ones.
    """
    if expected.fine.numel() < 64:
        more = unit_rows(torch.Generator().manual_seed(11), 64, inputs.coarse.shape[1])
        wider = [torch.cat([classes, more]) for classes in (inputs.class_global, inputs.class_local)]
        inputs = replace(inputs, class_global=wider[0], class_local=wider[1])
        expected = exact(inputs, pooling, temperature)
    fine = reference.dequantise(inputs.fine, inputs.fine_scales).to(dtype)
    similarities = fine @ inputs.class_local.to(dtype).T
    bags = [similarities[a:b] for a, b in itertools.pairwise(inputs.offsets.tolist())]
    if pooling == "max":
        pooled = torch.stack([bag.amax(dim=0) for bag in bags])
    else:
        pooled = torch.stack([((bag * temperature).softmax(dim=0) * bag).sum(dim=0) for bag in bags])
    coarse = 4 * (inputs.coarse.to(dtype) @ inputs.class_global.to(dtype).T)
    return max(largest_difference(coarse, expected.coarse), largest_difference(4 * pooled, expected.fine))


def published_problems(dtype, multiplied):
    """The published code's own inputs with rows in ``dtype``, its scores, and how far from them ours may be.

    That is 1e-4 in fp32; elsewhere what rows lose in that dtype, and torch's sums over them in the dtype that they are
    ``multiplied`` in, come to it.
    """
    for golden in golden_scores():
        fine, offsets = golden.fine.flatten(0, -2), golden.offsets
        if offsets is None:
            offsets = torch.arange(len(golden.fine) + 1) * golden.fine.shape[1]
        classes = (golden.class_global, golden.class_local)
        if dtype == torch.int8:
            inputs = Inputs(golden.coarse, quantise(fine)[0], offsets, *classes, quantise(fine)[1])
        else:
            inputs = Inputs(golden.coarse.to(dtype), fine.to(dtype), offsets, *classes, None)
        allowed = GOLDEN_TOLERANCE
        if dtype != torch.float32:
            settings = ("softmax", golden.temperature)
            unrounded = exact(Inputs(golden.coarse, fine, offsets, *classes, None), *settings)
            expected = exact(inputs, *settings)
            allowed += worst(expected, unrounded) + torch_error(inputs, *settings, multiplied, expected)
        yield golden, inputs, allowed


def published_error(golden: GoldenScores, inputs: Inputs, device="cpu"):
    """Largest difference of our scores, by whatever backend is in force, from the published ones."""
    got = ops.score(
        *inputs.arguments(device),
        temperature=golden.temperature,
        scale=golden.scale,
        fine_scales=inputs.scales(device),
    )
    merged = (golden.coarse_scores + golden.fine_scores) / 2
    return worst(got, (golden.coarse_scores, golden.fine_scores, merged))


def largest_difference(a, b):
    if a.numel() == 0:
        return 0.0
    difference = float((a.double().cpu() - b.double().cpu()).abs().max())
    return math.inf if math.isnan(difference) else difference


def worst(scores, expected):
    """Largest difference over coarse, fine and merged."""
    return max(largest_difference(a, b) for a, b in zip(scores, expected, strict=True))
