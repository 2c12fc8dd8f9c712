"""Packed bags: item n owns rows ``offsets[n]:offsets[n+1]``. Their checks, their blocks and their padded view.

Shape legend: N items, T rows of all items together, L rows of the longest item.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Bags(NamedTuple):
    """Where each item's rows lie.

    Attributes:
        offsets: [N + 1] int64 on the CPU.
        rows_per_item: the number of rows of every item when all have the same, else 0.
    """

    offsets: Tensor
    rows_per_item: int

    @property
    def items(self) -> int:
        """N."""
        return self.offsets.shape[0] - 1

    def empty_items(self) -> Tensor:
        """[N] bool on the CPU: items without rows."""
        return self.offsets.diff() == 0


def dense_bags(items: int, rows_per_item: int) -> Bags:
    """The bags of a dense [N, L, D] tensor."""
    return Bags(torch.arange(items + 1, dtype=torch.int64) * rows_per_item, rows_per_item)


def check_bags(offsets: Tensor, rows: int) -> Bags:
    """Validate ``offsets`` against ``rows`` rows (copies them to the CPU, which waits for a GPU that holds them).

    Raises:
        ValueError: when they are not int64 [N + 1] rising from 0 to ``rows``.
    """
    if offsets.ndim != 1 or offsets.shape[0] < 1 or offsets.dtype != torch.int64:
        raise ValueError(f"offsets are {offsets.dtype} {tuple(offsets.shape)}, expected int64 [N + 1]")
    offsets = offsets.detach().cpu().contiguous()
    counts = offsets.diff()
    if int(offsets[0]) != 0 or int(offsets[-1]) != rows or bool((counts < 0).any()):
        raise ValueError(f"offsets must rise from 0 to {rows}, the number of fine rows, without falling")
    equal = counts.numel() > 0 and bool((counts == counts[0]).all())
    return Bags(offsets, int(counts[0]) if equal else 0)


def blocks(bags: Bags, rows: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of items holding at most ``rows`` rows each; an item that is larger stands alone.

    Ranges are bounded to ``rows`` items as well, so that empty items cannot pile up.
    """
    start, ends = 0, bags.offsets
    while start < bags.items:
        limit = int(ends[start]) + rows
        stop = int(torch.searchsorted(ends, limit, right=True)) - 1
        stop = min(max(stop, start + 1), start + rows, bags.items)
        yield start, stop
        start = stop


def pad(values_TC: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor | None]:
    """Lay packed rows out as [N, L, C] with a mask [N, L]; equal counts are a view with no mask.

    Rows that do not exist are zero and masked, but an item without any keeps one zero row, so that pooling it gives
    zero and never NaN.

    Args:
        values_TC: [T, C], any device.
        offsets: [N + 1] int64 on the CPU, from 0 to T, N >= 1.
    """
    counts = offsets.diff()
    longest = max(int(counts.max()), 1)
    if int(counts.min()) == longest:
        return values_TC.view(counts.shape[0], longest, values_TC.shape[1]), None
    mask_NL = (torch.arange(longest)[None, :] < counts[:, None]).to(values_TC.device)
    padded_NLC = values_TC.new_zeros(counts.shape[0], longest, values_TC.shape[1])
    padded_NLC = padded_NLC.masked_scatter(mask_NL[:, :, None], values_TC)
    first_L = torch.arange(longest, device=mask_NL.device) == 0
    return padded_NLC, mask_NL | first_L


def unpad(padded_NLC: Tensor, offsets: Tensor) -> Tensor:
    """Undo ``pad``: [N, L, C] back to the packed [T, C]."""
    counts = offsets.diff()
    if int(counts.min()) == padded_NLC.shape[1]:
        return padded_NLC.reshape(-1, padded_NLC.shape[2])
    mask_NL = (torch.arange(padded_NLC.shape[1])[None, :] < counts[:, None]).to(padded_NLC.device)
    return padded_NLC[mask_NL]
