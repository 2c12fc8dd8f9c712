"""Thresholds that keep a promise: the least score at which a tag's precision, recall or F1 is high enough, with a
confidence that holds for pictures that were not looked at.

- Precision: of the items at or above a threshold the share of right ones is a binomial, so that Clopper and Pearson's
  bound (1934) says how low the precision may really be. Thresholds are tried from the highest down, and from several
  starting points, each with its share of the error; the first that cannot be shown to hold ends its sequence (fixed
  sequence testing: "Learn then Test", Angelopoulos et al., arXiv 2110.01052).
- F1: ``F1 >= f`` is ``TP / (TP + FP + FN) >= f / (2 - f)``, a binomial share among the items that are tagged or right.
- Recall: the recall at the k-th best positive is a Beta(k, n - k + 1), whatever the scores' distribution.

The candidates follow from the scores alone, never from the labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tai_engine.errors import UserError, unknown_choice

Goal = Literal["precision", "recall", "f1"]
GOALS: tuple[Goal, ...] = ("precision", "recall", "f1")

_STARTS = 4
_STEP = 1.15


@dataclass(frozen=True)
class Target:
    """What a threshold has to promise.

    Attributes:
        goal: ``"precision"``, ``"recall"`` or ``"f1"``.
        value: the least value of it, between 0 and 1.
        confidence: how sure the promise has to be, between 0 and 1.
        together: of all tags taken together, by one probability for all of them, in place of each tag alone. That takes
            far fewer labels.

    Raises:
        UserError: for an unknown goal or a number out of range.
    """

    goal: Goal
    value: float
    confidence: float = 0.9
    together: bool = False

    def __post_init__(self) -> None:
        if self.goal not in GOALS:
            raise unknown_choice("goal", self.goal, GOALS)
        for name, number in ((self.goal, self.value), ("confidence", self.confidence)):
            if not 0 < number < 1:
                raise UserError(f"The {name} wanted is {number}; it must be between 0 and 1, such as 0.9.")


@dataclass(frozen=True)
class Threshold:
    """One tag's threshold.

    Attributes:
        score: the least score; None where the promise cannot be kept.
        bound: what is promised at that score (with the target's confidence); None as above.
        found: the value of the goal on the items that it was found on; None as above.
        reason: why there is none, else empty.
    """

    score: float | None
    bound: float | None = None
    found: float | None = None
    reason: str = ""


def lower_bound(successes: int, trials: int, error: float) -> float:
    """Clopper and Pearson's one-sided lower bound of a binomial share: below it the truth lies with probability
    ``error`` at most."""
    return float(_beta_quantile(error, successes, trials - successes + 1)) if successes else 0.0


def find_threshold(scores_N: NDArray[np.floating], positives_N: NDArray[np.bool_], target: Target) -> Threshold:
    """The least score that keeps the promise of ``target``.

    Args:
        scores_N: [N] finite scores of the items whose label is known.
        positives_N: [N] bool.

    Raises:
        ValueError: for shapes that do not fit or NaN.
    """
    scores = np.asarray(scores_N, dtype=np.float64)
    positives = np.asarray(positives_N, dtype=bool)
    if scores.shape != positives.shape or scores.ndim != 1 or np.isnan(scores).any():
        raise ValueError(f"scores are {scores.shape} and positives {positives.shape}, expected [N] without NaN")
    if not positives.any():
        return Threshold(None, reason="no labelled picture has it")
    if target.goal == "recall":
        return _recall_threshold(scores[positives], target)
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(positives[order])
    ends = _candidates(ranked)
    error = 1 - target.confidence
    return (_precision_threshold if target.goal == "precision" else _f1_threshold)(ranked, hits, ends, target, error)


def _candidates(ranked: NDArray[np.float64]) -> NDArray[np.int64]:
    """Counts of tagged items that are tried, ascending in geometric steps, each the end of a group of equal scores."""
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1) + 1
    steps = np.ceil(_STEP ** np.arange(math.ceil(math.log(len(ranked), _STEP)) + 1)).astype(np.int64)
    return np.unique(last[np.minimum(np.searchsorted(last, np.minimum(steps, len(ranked))), len(last) - 1)])


def _precision_threshold(
    ranked: NDArray[np.float64], hits: NDArray[np.int64], ends: NDArray[np.int64], target: Target, error: float
) -> Threshold:
    share = error / _STARTS
    # Fewer items than these could not show it even if all of them were right.
    least = math.ceil(math.log(share) / math.log(target.value))
    usable = ends[ends >= least]
    if not len(usable):
        return Threshold(None, reason=f"{least} labelled pictures are needed to show it, and there are {len(ranked)}")
    best: int | None = None
    for start in range(_STARTS):
        for count in usable[len(usable) * start // _STARTS :]:
            if lower_bound(int(hits[count - 1]), int(count), share) < target.value:
                break
            best = max(best or 0, int(count))
    if best is None:
        at = usable[0]
        return Threshold(None, reason=f"of the best {at:,} pictures {hits[at - 1]:,} are right, which does not show it")
    bound = lower_bound(int(hits[best - 1]), best, share)
    return Threshold(float(ranked[best - 1]), bound, float(hits[best - 1] / best))


def _f1_threshold(
    ranked: NDArray[np.float64], hits: NDArray[np.int64], ends: NDArray[np.int64], target: Target, error: float
) -> Threshold:
    total, best = int(hits[-1]), None
    for count in ends.tolist():
        right = int(hits[count - 1])
        bound = lower_bound(right, count + total - right, error / len(ends))
        found = 2 * right / (count + total)
        if 2 * bound / (1 + bound) >= target.value and (best is None or found > best[2]):
            best = (count, 2 * bound / (1 + bound), found)
    if best is None:
        highest = max(2 * int(hits[count - 1]) / (count + total) for count in ends.tolist())
        return Threshold(None, reason=f"the best F1 found is {highest:.2f} with {total:,} positives, too little for it")
    return Threshold(float(ranked[best[0] - 1]), best[1], best[2])


def _recall_threshold(scores_P: NDArray[np.float64], target: Target) -> Threshold:
    ranked = -np.sort(-scores_P)
    total = len(ranked)
    ranks = np.arange(1, total + 1)
    bounds = _beta_quantile(1 - target.confidence, ranks, total - ranks + 1)
    enough = np.flatnonzero(bounds >= target.value)
    if not len(enough):
        needed = math.ceil(math.log(1 - target.confidence) / math.log(target.value))
        return Threshold(None, reason=f"{needed} positives are needed to show it, and there are {total}")
    score = ranked[enough[0]]
    return Threshold(float(score), float(bounds[enough[0]]), float((ranked >= score).mean()))


def _beta_quantile(share: float, a: Any, b: Any) -> Any:
    """Where a Beta(a, b) has so much of its mass below; numbers or arrays."""
    from scipy.special import betaincinv  # a part of a second, which those who only read a calibration need not wait

    return betaincinv(a, b, share)
