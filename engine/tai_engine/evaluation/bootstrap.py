"""How sure a mean average precision is, and whether one run is better than another: the bootstrap over pictures.

Pictures are drawn with replacement, as many as there are, and everything is computed anew (Efron and Tibshirani, "An
Introduction to the Bootstrap", 1993). For a comparison both runs are given the same pictures in every draw, for most of
what makes one draw better than another is common to both.

Shape legend: N items, C classes, R draws.
"""

from __future__ import annotations

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


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two runs on the same pictures.

    Attributes:
        first, second: mean average precision of each.
        difference: second minus first.
        per_class: the difference of each class's average precision; NaN intervals where the class has no positive.
    """

    first: Interval
    second: Interval
    difference: Interval
    per_class: tuple[Interval, ...]


def bootstrap_map(
    scores_NC: NDArray[np.floating],
    labels_NC: NDArray[np.integer],
    *,
    ignore_difficult: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Mean average precision with its interval; see `average_precision` for how equal scores are taken.

    Memory: 64 MB of draws, and the scores.

    Args:
        scores_NC: [N, C] scores, NaN excluded.
        labels_NC: [N, C] +1, 0 (difficult) and -1.
        ignore_difficult: leave difficult labels out instead of taking them for negatives.
        draws: R.
        seed: of the draws.

    Raises:
        ValueError: for shapes that do not fit or NaN.
    """
    counts = _Draws(len(np.asarray(scores_NC)), draws, seed)
    whole, drawn = _precisions(scores_NC, labels_NC, ignore_difficult, counts)
    return _interval(_mean(whole), _mean(drawn))


def compare(
    first_NC: NDArray[np.floating],
    second_NC: NDArray[np.floating],
    labels_NC: NDArray[np.integer],
    *,
    ignore_difficult: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Hold two runs against each other on the same pictures and classes.

    Memory and arguments: as `bootstrap_map`.

    Raises:
        ValueError: for shapes that do not fit or NaN.
    """
    counts = _Draws(len(np.asarray(first_NC)), draws, seed)
    one, one_drawn = _precisions(first_NC, labels_NC, ignore_difficult, counts)
    two, two_drawn = _precisions(second_NC, labels_NC, ignore_difficult, counts)
    return Comparison(
        first=_interval(_mean(one), _mean(one_drawn)),
        second=_interval(_mean(two), _mean(two_drawn)),
        difference=_interval(_mean(two) - _mean(one), _mean(two_drawn) - _mean(one_drawn)),
        per_class=tuple(
            _interval(two[0, c] - one[0, c], two_drawn[:, c] - one_drawn[:, c]) for c in range(one.shape[1])
        ),
    )


class _Draws:
    """How often each item is drawn, the same for every class and run: made anew from the seed, never held at once."""

    def __init__(self, items: int, draws: int, seed: int) -> None:
        self._items, self._draws, self._seed = items, draws, seed

    def blocks(self) -> list[tuple[int, int]]:
        step = max(1, _BLOCK_BYTES // (8 * max(1, self._items)))
        return [(start, min(start + step, self._draws)) for start in range(0, self._draws, step)]

    def block(self, number: int, size: int) -> NDArray[np.int64]:
        """[size, N] counts."""
        random = np.random.default_rng([self._seed, number])
        picked = random.integers(0, self._items, (size, self._items))
        flat = picked + self._items * np.arange(size)[:, None]
        return np.bincount(flat.ravel(), minlength=size * self._items).reshape(size, self._items)

    @property
    def draws(self) -> int:
        return self._draws


def _precisions(
    scores_NC: NDArray[np.floating], labels_NC: NDArray[np.integer], ignore_difficult: bool, counts: _Draws
) -> tuple[Floats, Floats]:
    """Average precisions [1, C] of the items as they are, and [R, C] of the draws; NaN where a draw has no positive."""
    scores, labels = np.asarray(scores_NC, dtype=np.float64), np.asarray(labels_NC)
    if scores.ndim != 2 or labels.shape != scores.shape or np.isnan(scores).any():
        raise ValueError(f"scores are {scores.shape} and labels {labels.shape}, expected [N, C] without NaN")
    once = np.ones((1, len(scores)), dtype=np.int64)
    classes = range(scores.shape[1])
    ranked = [_ranked(scores[:, c], labels[:, c], ignore_difficult) for c in classes]
    whole = np.stack([_weighted(once, *ranked[c]) for c in classes], axis=1)
    drawn = np.empty((counts.draws, scores.shape[1]))
    for number, (start, stop) in enumerate(counts.blocks()):
        block = counts.block(number, stop - start)
        for c in classes:
            drawn[start:stop, c] = _weighted(block, *ranked[c])
    return whole, drawn


def _ranked(
    scores_N: Floats, labels_N: NDArray[np.integer], ignore_difficult: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    """Items from the best to the worst, which of them are positive, and the last place of each group of equals."""
    counted = np.flatnonzero(labels_N != 0) if ignore_difficult else np.arange(len(labels_N))
    order = counted[np.argsort(-scores_N[counted], kind="stable")]
    ranked = scores_N[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1) if len(ranked) else counted
    return order, labels_N[order] == 1, last


def _weighted(
    counts_RN: NDArray[np.int64], order: NDArray[np.int64], positives: NDArray[np.bool_], last: NDArray[np.int64]
) -> Floats:
    """[R] average precision where each item stands as often as it was drawn."""
    if not len(order):
        return np.full(len(counts_RN), np.nan)
    ranked_RN = counts_RN[:, order]
    seen_RL = np.cumsum(ranked_RN, axis=1)[:, last]
    hits_RL = np.cumsum(ranked_RN * positives, axis=1)[:, last]
    gained_RL = np.diff(hits_RL, axis=1, prepend=0)
    total_R = hits_RL[:, -1]
    share_RL = hits_RL / np.maximum(seen_RL, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(total_R > 0, (gained_RL * share_RL).sum(axis=1) / total_R, np.nan))


def _mean(precisions_RC: Floats) -> Floats:
    """[R] over the classes that have positives."""
    known = ~np.isnan(precisions_RC)
    total = np.where(known, precisions_RC, 0.0).sum(axis=1)
    return np.asarray(np.divide(total, known.sum(axis=1), out=np.full(len(total), np.nan), where=known.any(axis=1)))


def _interval(value: Floats, drawn_R: Floats) -> Interval:
    known = drawn_R[~np.isnan(drawn_R)]
    if not len(known):
        return Interval(float(np.asarray(value).reshape(-1)[0]), float("nan"), float("nan"))
    low, high = np.quantile(known, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Interval(float(np.asarray(value).reshape(-1)[0]), float(low), float(high))
