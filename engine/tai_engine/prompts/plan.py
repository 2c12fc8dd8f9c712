"""Prompts of different lengths in one packed sequence, in chunks that fit into memory.

Shape legend: C classes, W width of the text tower, K contexts per prompt, T packed tokens of several classes, B classes
with S tokens each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from tai_engine.prompts.tokens import Prompt

_CHUNKS_PER_BUDGET = 4


@dataclass(frozen=True, eq=False)
class PromptChunk:
    """Prompts of some classes, packed one after the other, those of one length together.

    Attributes:
        classes: [B] int64: which classes, in this order.
        ids: [T] int64.
        positions: [T] int64 in the prompt.
        rows: where in T a context goes.
        contexts: which context goes there, counted over [K, W] or [C * K, W].
        ends: [B] int64: where in T each class ends.
        groups: rows, number of classes and tokens of each, per length.
    """

    classes: Tensor
    ids: Tensor
    positions: Tensor
    rows: Tensor
    contexts: Tensor
    ends: Tensor
    groups: tuple[tuple[slice, int, int], ...]


def plan_prompts(
    prompts: Sequence[Prompt],
    *,
    n_prefix: int,
    padding: tuple[int, int] | None,
    stride: int,
    max_tokens: int,
    device: torch.device,
) -> tuple[PromptChunk, tuple[PromptChunk, ...]]:
    """What is computed once for all prompts, and the rest of each in chunks that fit.

    Args:
        prompts: one a class.
        n_prefix: so many first tokens are the same for all.
        padding: the length that every prompt is filled to, and with which id; None leaves them as they are.
        stride: contexts that each class has for itself; 0 where all share them.
        max_tokens: if all own tokens together are more, a chunk has at most a quarter of it, but at least one prompt.
        device: of the result.
    """
    start = Prompt(prompts[0].ids[:n_prefix], prompts[0].contexts[:n_prefix])
    own = [Prompt(ids[n_prefix:], contexts[n_prefix:]) for ids, contexts in prompts]
    if padding is not None:
        length, filler = padding
        own = [
            Prompt(ids + [filler] * (length - len(ids)), contexts + [-1] * (length - len(ids))) for ids, contexts in own
        ]
    lengths = [len(prompt.ids) for prompt in own]
    if sum(lengths) > max_tokens:
        # Smaller chunks are as fast, and an allocator keeps more than it gives out.
        max_tokens //= _CHUNKS_PER_BUDGET
    chunks = (pack(classes, own, n_prefix, stride, device) for classes in group_by_length(lengths, max_tokens))
    return pack([0], [start], 0, stride, device), tuple(chunks)


def group_by_length(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Prompts by rising length, in groups of at most ``max_tokens`` tokens; a longer prompt stands alone."""
    group: list[int] = []
    size = 0
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if group and size + lengths[index] > max_tokens:
            yield group
            group, size = [], 0
        group.append(index)
        size += lengths[index]
    yield group


def pack(
    classes: Sequence[int], prompts: Sequence[Prompt], first_position: int, stride: int, device: torch.device
) -> PromptChunk:
    """One chunk of the prompts of ``classes``, which are in the order of their lengths.

    Args:
        classes: which of the prompts.
        prompts: those of all classes.
        first_position: where in the text tower they begin.
        stride: contexts that each class has for itself; 0 where all share them.
        device: of the result.
    """
    groups: list[tuple[slice, int, int]] = []
    for length, equal in groupby(len(prompts[c].ids) for c in classes):
        count, start = len(list(equal)), groups[-1][0].stop if groups else 0
        groups.append((slice(start, start + count * length), count, length))
    contexts = torch.tensor(
        [i + c * stride if i >= 0 else -1 for c in classes for i in prompts[c].contexts], dtype=torch.int64
    )
    rows = (contexts >= 0).nonzero().flatten()
    positions = [first_position + i for c in classes for i in range(len(prompts[c].ids))]
    return PromptChunk(
        classes=torch.tensor(classes, device=device),
        ids=torch.tensor([i for c in classes for i in prompts[c].ids], dtype=torch.int64, device=device),
        positions=torch.tensor(positions, dtype=torch.int64, device=device),
        rows=rows.to(device),
        contexts=contexts[rows].to(device),
        ends=torch.tensor([len(prompts[c].ids) for c in classes], device=device).cumsum(0) - 1,
        groups=tuple(groups),
    )
