"""How good scores are against the truth: average precision.

Shape legend: N items, C classes.

Labels are +1 (there), -1 (not there) and 0 (difficult: there, but hardly to be seen), or plain booleans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tai_engine.errors import unknown_choice

DIFFICULT_RULES = ("as-negative", "ignore")
INTERPOLATIONS = ("area", "11-point")
"""``area``: the mean of the precision at each positive. ``11-point``: VOC's rule until 2009, the mean over the recalls
0, 0.1, ..., 1 of the best precision at that recall or above (Everingham et al., IJCV 2010)."""


@dataclass(frozen=True, eq=False)
class AveragePrecisions:
    """Average precision of every class.

    Attributes:
        class_names: C names.
        values: [C] float64 between 0 and 1; NaN where the class has no positive.
        positives: [C] int64, items that hold the class.
        items: N.
        difficult: the rule by which difficult labels were read.
        tied_pairs: [C] int64, pairs of an item with the class and one without it that have the same score.
        interpolation: one of `INTERPOLATIONS`.
    """

    class_names: tuple[str, ...]
    values: NDArray[np.float64]
    positives: NDArray[np.int64]
    items: int
    difficult: str
    tied_pairs: NDArray[np.int64]
    interpolation: str = "area"

    @property
    def mean(self) -> float:
        """mAP: the mean over the classes that have positives; NaN if none has."""
        known = ~np.isnan(self.values)
        return float(self.values[known].mean()) if known.any() else float("nan")

    @property
    def per_class(self) -> tuple[tuple[str, float, int], ...]:
        """Name, average precision and positives of the classes that have positives."""
        rows = zip(self.class_names, self.values.tolist(), self.positives.tolist(), strict=True)
        return tuple(row for row in rows if row[2])

    @property
    def without_positives(self) -> tuple[str, ...]:
        """Classes that the mean leaves out, because no item holds them."""
        return tuple(n for n, count in zip(self.class_names, self.positives.tolist(), strict=True) if not count)


def mean_average_precision(
    scores_NC: ArrayLike | Tensor,
    labels_NC: ArrayLike | Tensor,
    class_names: Sequence[str] | None = None,
    *,
    difficult: str = "as-negative",
    interpolation: str = "area",
) -> AveragePrecisions:
    """Average precision per class over all items: the mean of the precision at each positive, without interpolation.

    Equal scores share one rank: the precision at each of them is that of the whole group. This is scikit-learn's
    ``average_precision_score``, and does not depend on the order of the items.

    Args:
        scores_NC: [N, C] float32 or float64.
        labels_NC: [N, C] bool, or integers +1, 0 and -1.
        class_names: C names; by default the column numbers.
        difficult: ``"as-negative"`` counts labels of 0 as negatives, as the published code does; ``"ignore"`` takes
            such items out of their class, which is the official rule of PASCAL VOC.
        interpolation: one of `INTERPOLATIONS`.

    Raises:
        ValueError: for shapes that do not fit, NaN, half precision, other labels, or labels of 0 and 1 alone with
            ``"ignore"`` (no negative would be left).
        UserError: for an unknown rule or interpolation.
    """
    scores, labels = _scores(scores_NC), _labels(labels_NC)
    if labels.shape != scores.shape:
        raise ValueError(f"labels have shape {labels.shape} but scores {scores.shape}")
    if difficult not in DIFFICULT_RULES:
        raise unknown_choice("rule for difficult labels", difficult, DIFFICULT_RULES)
    if interpolation not in INTERPOLATIONS:
        raise unknown_choice("average precision", interpolation, INTERPOLATIONS)
    if difficult == "ignore" and (labels == 0).any() and not (labels == -1).any():
        raise ValueError("labels hold 0 and no -1: with 'ignore' 0 means difficult, so negatives must be -1")
    names = tuple(class_names) if class_names is not None else tuple(map(str, range(scores.shape[1])))
    if len(names) != scores.shape[1]:
        raise ValueError(f"{len(names)} class names for {scores.shape[1]} columns of scores")
    values, ties = np.full(len(names), np.nan), np.zeros(len(names), dtype=np.int64)
    for c in range(len(names)):
        counted = labels[:, c] != 0 if difficult == "ignore" else slice(None)
        curve = _Curve(scores[counted, c], labels[counted, c] == 1)
        values[c] = curve.area() if interpolation == "area" else curve.eleven_points()
        ties[c] = curve.tied_pairs()
    counts = (labels == 1).sum(axis=0, dtype=np.int64)
    return AveragePrecisions(names, values, counts, len(scores), difficult, ties, interpolation)


class _Curve:
    """Hits and ranks at the end of each group of equal scores, where precision and recall of the group are known."""

    def __init__(self, scores_N: NDArray[np.float64], positives_N: NDArray[np.bool_]) -> None:
        order = np.argsort(-scores_N, kind="stable")
        ranked = scores_N[order]
        ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1) if len(ranked) else order
        self._hits = np.cumsum(positives_N[order])[ends]
        self._ranks = ends + 1
        self._gained = np.diff(self._hits, prepend=0)
        self._total = int(positives_N.sum())

    def area(self) -> float:
        """Mean of the precision at each positive; NaN without one."""
        if not self._total:
            return float("nan")
        return float((self._gained * (self._hits / self._ranks)).sum() / self._total)

    def eleven_points(self) -> float:
        """Mean over recalls 0, 0.1, ..., 1 of the best precision at that recall or above; NaN without a positive."""
        if not self._total:
            return float("nan")
        # Whole numbers: a recall of 3 in 10 reaches 0.3, which floating point would not say.
        best = (
            (self._hits / self._ranks)[10 * self._hits >= tenth * self._total].max(initial=0.0) for tenth in range(11)
        )
        return float(sum(best) / 11)

    def tied_pairs(self) -> int:
        """Pairs of a positive and a negative of the same score."""
        sizes = np.diff(self._ranks, prepend=0)
        return int((self._gained * (sizes - self._gained)).sum())


def _array(values: ArrayLike | Tensor) -> NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        if values.dtype == torch.bfloat16:
            raise ValueError("bfloat16 is too coarse to rank by: score in float32")
        return values.numpy()
    return np.asarray(values)


def _scores(values: ArrayLike | Tensor) -> NDArray[np.float64]:
    scores = _array(values)
    if scores.dtype == np.float16:
        raise ValueError("float16 is too coarse to rank by: score in float32")
    if scores.ndim != 2 or scores.dtype.kind not in "fiu":
        raise ValueError(f"scores are {scores.dtype} {scores.shape}, expected numbers in 2 dimensions")
    if np.isnan(scores).any():
        raise ValueError("scores hold NaN")
    return scores.astype(np.float64, copy=False)


def _labels(values: ArrayLike | Tensor) -> NDArray[np.int8]:
    labels = _array(values)
    if labels.dtype == np.bool_:
        return np.where(labels, 1, -1).astype(np.int8)
    if labels.dtype.kind not in "iu" or not np.isin(labels, (-1, 0, 1)).all():
        raise ValueError(f"labels are {labels.dtype} with other values than -1, 0 and 1, or booleans")
    return labels.astype(np.int8)
