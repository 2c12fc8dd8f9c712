"""Draws of pictures with replacement, and intervals from what was computed on each draw: the bootstrap.

As many pictures are drawn as there are, and everything is computed anew (Efron and Tibshirani, "An Introduction to the
Bootstrap", 1993).

Shape legend: N items, R draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRAWS = 2000
CONFIDENCE = 0.95
_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class Interval:
    """A value and where it lies with some confidence, by percentiles of the draws.

    Attributes:
        value: on the pictures as they are.
        low, high: the ends.
        confidence: between 0 and 1.
    """

    value: float
    low: float
    high: float
    confidence: float = CONFIDENCE

    @property
    def is_clear_of_zero(self) -> bool:
        """Whether 0 lies outside; for differences."""
        return self.low > 0 or self.high < 0


class PictureDraws:
    """How often each item is drawn, the same for every class and run: made anew from the seed, never held at once.

    Memory: `_BLOCK_BYTES` a block.

    Args:
        items: N, at least 1.
        draws: R.
        seed: of the draws.
    """

    def __init__(self, items: int, draws: int, seed: int) -> None:
        self._items, self._draws, self._seed = items, draws, seed

    def __len__(self) -> int:
        return self._draws

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.int64]]]:
        """Which draws, and their counts [draws of the block, N]."""
        step = max(1, _BLOCK_BYTES // (8 * max(1, self._items)))
        for number, start in enumerate(range(0, self._draws, step)):
            stop = min(start + step, self._draws)
            yield slice(start, stop), self._block(number, stop - start)

    def _block(self, number: int, size: int) -> NDArray[np.int64]:
        random = np.random.default_rng([self._seed, number])
        picked = random.integers(0, self._items, (size, self._items))
        flat = picked + self._items * np.arange(size)[:, None]
        return np.bincount(flat.ravel(), minlength=size * self._items).reshape(size, self._items)


def interval_of(value: float, drawn_R: Floats) -> Interval:
    """A value with the percentiles of its draws; draws that are NaN do not count."""
    known = drawn_R[~np.isnan(drawn_R)]
    if not len(known):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(known, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Interval(value, float(low), float(high))
