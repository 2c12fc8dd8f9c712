"""How sure a mean average precision is, and whether one run is better than another: the bootstrap over pictures.

For a comparison both runs are given the same pictures in every draw, for most of what makes one draw better than
another is common to both.

Shape legend: N items, C classes, R draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tai_engine.evaluation.draws import DRAWS, Floats, Interval, PictureDraws, interval_of


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
    """Mean average precision with its interval; see `mean_average_precision` for how equal scores are taken.

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
    counts = PictureDraws(len(np.asarray(scores_NC)), draws, seed)
    whole, drawn = _precisions(scores_NC, labels_NC, ignore_difficult, counts)
    return interval_of(float(_mean(whole)[0]), _mean(drawn))


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
    counts = PictureDraws(len(np.asarray(first_NC)), draws, seed)
    one, one_drawn = _precisions(first_NC, labels_NC, ignore_difficult, counts)
    two, two_drawn = _precisions(second_NC, labels_NC, ignore_difficult, counts)
    return Comparison(
        first=interval_of(float(_mean(one)[0]), _mean(one_drawn)),
        second=interval_of(float(_mean(two)[0]), _mean(two_drawn)),
        difference=interval_of(float((_mean(two) - _mean(one))[0]), _mean(two_drawn) - _mean(one_drawn)),
        per_class=tuple(
            interval_of(float(two[0, c] - one[0, c]), two_drawn[:, c] - one_drawn[:, c]) for c in range(one.shape[1])
        ),
    )


def _precisions(
    scores_NC: NDArray[np.floating], labels_NC: NDArray[np.integer], ignore_difficult: bool, counts: PictureDraws
) -> tuple[Floats, Floats]:
    """Average precisions [1, C] of the items as they are, and [R, C] of the draws; NaN where a draw has no positive."""
    scores, labels = np.asarray(scores_NC, dtype=np.float64), np.asarray(labels_NC)
    if scores.ndim != 2 or labels.shape != scores.shape or np.isnan(scores).any():
        raise ValueError(f"scores are {scores.shape} and labels {labels.shape}, expected [N, C] without NaN")
    once = np.ones((1, len(scores)), dtype=np.int64)
    classes = range(scores.shape[1])
    ranked = [_ranked(scores[:, c], labels[:, c], ignore_difficult) for c in classes]
    whole = np.stack([_weighted(once, *ranked[c]) for c in classes], axis=1)
    drawn = np.empty((len(counts), scores.shape[1]))
    for rows, block in counts.blocks():
        for c in classes:
            drawn[rows, c] = _weighted(block, *ranked[c])
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
