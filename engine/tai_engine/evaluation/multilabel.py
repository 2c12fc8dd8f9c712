"""Precision, recall and F1 of chosen tags, as tables of multi-label recognition report them.

Shape legend: N items, C classes.

- ``CP``, ``CR``: the means over classes of precision and recall; ``CF1`` is their harmonic mean, not the mean of the
  classes' F1.
- ``OP``, ``OR``, ``OF1``: of all tags taken together ("micro").
- Of the top 3: the three best classes of each item are its tags.
- Coverage: how many classes one has to go down the ranking of an item, on average, to find all that it holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class TagMeasures:
    """Each between 0 and 1; 0 where a ratio has no denominator.

    Attributes:
        class_precision, class_recall, class_f1: CP, CR and CF1.
        overall_precision, overall_recall, overall_f1: OP, OR and OF1.
    """

    class_precision: float
    class_recall: float
    class_f1: float
    overall_precision: float
    overall_recall: float
    overall_f1: float


def tag_measures(chosen_NC: Bools, labels_NC: NDArray[np.integer], *, ignore_difficult: bool = False) -> TagMeasures:
    """How many of the chosen tags are right, and how many of the right ones were chosen.

    Args:
        chosen_NC: [N, C] bool, for example ``scores >= threshold`` or `top_k`.
        labels_NC: [N, C] +1, 0 (difficult) and -1.
        ignore_difficult: leave difficult labels out instead of taking them for negatives.

    Raises:
        ValueError: for shapes or dtypes that do not fit.
    """
    chosen, labels = np.asarray(chosen_NC), np.asarray(labels_NC)
    if chosen.dtype != np.bool_ or chosen.ndim != 2 or labels.shape != chosen.shape:
        raise ValueError(f"chosen are {chosen.dtype} {chosen.shape} and labels {labels.shape}, expected bool [N, C]")
    if ignore_difficult:
        chosen = chosen & (labels != 0)
    there = labels == 1
    right_C, chosen_C, there_C = ((chosen & there).sum(0), chosen.sum(0), there.sum(0))
    precision, recall = _mean_ratio(right_C, chosen_C), _mean_ratio(right_C, there_C)
    overall = _ratio(right_C.sum(), chosen_C.sum()), _ratio(right_C.sum(), there_C.sum())
    return TagMeasures(precision, recall, _harmonic(precision, recall), *overall, _harmonic(*overall))


def top_k(scores_NC: NDArray[np.floating], k: int) -> Bools:
    """[N, C] bool: the ``k`` best classes of each item; of equal scores the earlier classes.

    Raises:
        ValueError: for a negative ``k``, or scores that are not finite or no matrix.
    """
    scores = _finite(scores_NC)
    if k < 0:
        raise ValueError(f"k is {k}, expected 0 or more")
    chosen = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(-scores, axis=1, kind="stable")[:, :k], True, axis=1)
    return chosen


def coverage(scores_NC: NDArray[np.floating], labels_NC: NDArray[np.integer]) -> float:
    """How far down the ranking all positives of an item are found, on average over the items that have one; of equal
    scores the worst place counts. scikit-learn's ``coverage_error``; NaN if no item has a positive.

    Raises:
        ValueError: for scores that are not finite, or shapes that do not fit.
    """
    scores, there = _finite(scores_NC), np.asarray(labels_NC) == 1
    if there.shape != scores.shape:
        raise ValueError(f"labels have shape {there.shape} but scores {scores.shape}")
    rows = there.any(axis=1)
    if not rows.any():
        return float("nan")
    least_N = np.where(there, scores, np.inf).min(axis=1)
    return float((scores[rows] >= least_N[rows, None]).sum(axis=1).mean())


def _finite(scores_NC: NDArray[np.floating]) -> NDArray[np.float64]:
    scores = np.asarray(scores_NC, dtype=np.float64)
    if scores.ndim != 2 or not np.isfinite(scores).all():
        raise ValueError(f"scores are {scores.shape}, expected [N, C] of finite numbers")
    return scores


def _mean_ratio(part_C: NDArray[np.int64], whole_C: NDArray[np.int64]) -> float:
    ratios = np.divide(part_C, whole_C, out=np.zeros(len(whole_C)), where=whole_C > 0)
    return float(ratios.mean()) if ratios.size else 0.0


def _ratio(part: np.integer, whole: np.integer) -> float:
    return float(part / whole) if whole else 0.0


def _harmonic(one: float, other: float) -> float:
    return 2 * one * other / (one + other) if one + other else 0.0
