"""Whether probabilities mean what they say: Brier score, calibration error and the reliability curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BINS = 15


@dataclass(frozen=True, eq=False)
class Reliability:
    """Probabilities in bins of equal mass.

    Attributes:
        predicted: [B] mean probability of each bin.
        observed: [B] share of positives in it.
        counts: [B] int64, how many probabilities.
    """

    predicted: Floats
    observed: Floats
    counts: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of what is predicted from what is observed, by counts."""
        total = int(self.counts.sum())
        return float((self.counts * np.abs(self.predicted - self.observed)).sum() / total) if total else float("nan")


def reliability(probabilities: NDArray[np.floating], positives: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Sort into ``bins`` of as many probabilities each as quantiles give; equal probabilities stay together, so that
    there may be fewer (Nguyen and O'Connor, EMNLP 2015; scikit-learn's ``calibration_curve(strategy="quantile")``).

    Args:
        probabilities: any shape, between 0 and 1.
        positives: bool of the same shape.

    Raises:
        ValueError: for shapes that do not fit, or numbers outside 0 to 1.
    """
    p, y = _checked(probabilities, positives)
    if not len(p):
        return Reliability(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
    edges = np.percentile(p, 100 * np.linspace(0, 1, bins + 1))
    places = np.searchsorted(edges[1:-1], p)
    counts = np.bincount(places, minlength=bins)
    filled = counts > 0
    predicted, observed = (np.bincount(places, weights=values, minlength=bins)[filled] for values in (p, y))
    return Reliability(predicted / counts[filled], observed / counts[filled], counts[filled].astype(np.int64))


def brier_score(probabilities: NDArray[np.floating], positives: NDArray[np.bool_]) -> float:
    """Mean squared distance of probability and truth, 0 to 1 (Brier 1950); NaN of nothing.

    Raises:
        ValueError: as `reliability`.
    """
    p, y = _checked(probabilities, positives)
    return float(((p - y) ** 2).mean()) if len(p) else float("nan")


def _checked(probabilities: NDArray[np.floating], positives: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    p, y = np.asarray(probabilities, dtype=np.float64).ravel(), np.asarray(positives)
    if y.dtype != np.bool_ or y.size != p.size:
        raise ValueError(f"positives are {y.dtype} of {y.size}, expected bool of {p.size}")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("probabilities must be between 0 and 1")
    return p, y.ravel().astype(np.float64)
