"""Finding a calibration: from labelled pictures or sentences, or from how frequent each tag is known to be.

Shape legend: N items, C tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from tai_engine.calibration.calibration import Promise, Steps
from tai_engine.calibration.logistic import LogisticCurves, fit_logistic
from tai_engine.calibration.thresholds import Target, Threshold, find_threshold
from tai_engine.errors import UserError

Floats = NDArray[np.float64]

ISOTONIC_POSITIVES = 1000
"""With so many positives and negatives a tag gets a curve without a form of its own (scikit-learn's isotonic one)."""

RATES_SLOPE = 2.0
"""Of a curve per standard deviation of a tag's scores, where no label tells it.

Curves that were fitted with labels have 2.6 on the TaI-DPT authors' VOC2007 scores and 2.2 on CLIP's of Flickr8k
photographs; a flatter one claims less.
"""

FEWEST_PICTURES = 10

_FOLDS = 5
_MOST_STEPS = 200
_HALVINGS = 60


@dataclass(frozen=True, eq=False)
class Fit:
    """Curves and thresholds, not yet bound to a prompt set; see `Calibration`."""

    curves: LogisticCurves
    steps: Mapping[str, Steps]
    promises: tuple[Promise, ...]
    positives: tuple[int, ...]


def fit_labels(
    scores_NC: NDArray[np.floating],
    labels_NC: NDArray[np.int8],
    class_names: tuple[str, ...],
    targets: Sequence[Target] = (),
) -> Fit:
    """Curves from labels, and thresholds that keep promises.

    Memory: a few arrays of [N, C] float64.

    Args:
        scores_NC: [N, C] scores of every tag; no infinities.
        labels_NC: [N, C] int8: +1 there, -1 not there, 0 not known.
        class_names: C names.
        targets: what thresholds have to promise.

    Raises:
        UserError: for scores that are not all known, or labels of one kind only.
    """
    scores = _finite(scores_NC, class_names)
    if not (labels_NC == 1).any() or not (labels_NC == -1).any():
        kind = "has any of the tags" if not (labels_NC == 1).any() else "lacks any of the tags"
        raise UserError(
            f"Of {len(labels_NC):,} labelled pictures none {kind}, so there is nothing to calibrate by: "
            "label pictures of both kinds."
        )
    curves = fit_logistic(scores, labels_NC)
    crossed = _crossed_probabilities(scores, labels_NC) if any(target.together for target in targets) else None
    promises = tuple(
        Promise(
            target,
            _own_thresholds(scores, labels_NC, target)
            if crossed is None or not target.together
            else _common_thresholds(crossed, labels_NC, curves, target),
        )
        for target in targets
    )
    positives = (labels_NC == 1).sum(axis=0)
    negatives = (labels_NC == -1).sum(axis=0)
    many = np.flatnonzero(np.minimum(positives, negatives) >= ISOTONIC_POSITIVES)
    steps = {class_names[c]: _isotonic(scores[:, c], labels_NC[:, c]) for c in many.tolist()}
    return Fit(curves, steps, promises, tuple(positives.tolist()))


def fit_rates(scores_NC: NDArray[np.floating], rates_C: NDArray[np.floating], class_names: tuple[str, ...]) -> Fit:
    """Curves from an unlabelled collection in which each tag is known to be on a share of the pictures.

    How steep a curve is cannot be seen without labels: every tag gets `RATES_SLOPE` per standard deviation of its own
    scores, and the intercept at which the mean probability is the rate.

    Memory: a few arrays of [N, C] float64.

    Args:
        scores_NC: [N, C] scores of every tag; no infinities.
        rates_C: [C] shares between 0 and 1.
        class_names: C names.

    Raises:
        UserError: for scores that are not all known, fewer than ten pictures, or a rate out of range.
    """
    scores, rates = _finite(scores_NC, class_names), np.asarray(rates_C, dtype=np.float64)
    wrong = [name for name, rate in zip(class_names, rates.tolist(), strict=True) if not 0 < rate < 1]
    if wrong:
        raise UserError(f"The rate of {wrong[0]!r} is not between 0 and 1: give the share of pictures that have it.")
    if len(scores) < FEWEST_PICTURES:
        raise UserError(
            f"{len(scores)} pictures are too few to calibrate by rates: "
            f"{FEWEST_PICTURES} are needed, hundreds are good."
        )
    slopes = RATES_SLOPE / np.maximum(scores.std(axis=0), 1e-12)
    steep_NC = slopes * scores
    # The mean probability rises with the intercept, and is past the rate once the lowest picture is.
    low_C, high_C = logit(rates) - steep_NC.max(axis=0), logit(rates) - steep_NC.min(axis=0)
    for _ in range(_HALVINGS):
        middle_C = 0.5 * (low_C + high_C)
        above = LogisticCurves(middle_C, slopes).probabilities(scores).mean(axis=0) > rates
        low_C, high_C = np.where(above, low_C, middle_C), np.where(above, middle_C, high_C)
    return Fit(LogisticCurves(0.5 * (low_C + high_C), slopes), {}, (), (0,) * len(class_names))


def _own_thresholds(scores_NC: Floats, labels_NC: NDArray[np.int8], target: Target) -> tuple[Threshold, ...]:
    known_NC = labels_NC != 0
    return tuple(
        find_threshold(scores_NC[known, c], labels_NC[known, c] == 1, target) for c, known in enumerate(known_NC.T)
    )


def _crossed_probabilities(scores_NC: Floats, labels_NC: NDArray[np.int8]) -> Floats:
    """[N, C] probabilities by curves that have not seen the picture (folds); NaN where a fold's rest has no curve."""
    folds_N = np.arange(len(scores_NC)) % _FOLDS
    found_NC = np.full(scores_NC.shape, np.nan)
    for fold in range(_FOLDS):
        rest = labels_NC[folds_N != fold]
        if (rest == 1).any() and (rest == -1).any() and (folds_N == fold).any():
            other = fit_logistic(scores_NC[folds_N != fold], rest)
            found_NC[folds_N == fold] = other.probabilities(scores_NC[folds_N == fold])
    return found_NC


def _common_thresholds(
    crossed_NC: Floats, labels_NC: NDArray[np.int8], curves: LogisticCurves, target: Target
) -> tuple[Threshold, ...]:
    """One probability for all tags, as a score of each."""
    counted = (labels_NC != 0) & ~np.isnan(crossed_NC)
    common = find_threshold(crossed_NC[counted], labels_NC[counted] == 1, target)
    if common.score is None:
        return (common,) * labels_NC.shape[1]
    edge = logit(np.clip(common.score, 1e-12, 1 - 1e-12))
    return tuple(
        Threshold(float((edge - intercept) / slope), common.bound, common.found)
        if slope > 0
        else Threshold(None, reason="its scores say nothing about it")
        for intercept, slope in zip(curves.intercepts.tolist(), curves.slopes.tolist(), strict=True)
    )


def _isotonic(scores_N: Floats, labels_N: NDArray[np.int8]) -> Steps:
    from sklearn.isotonic import IsotonicRegression

    known = labels_N != 0
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit(scores_N[known], labels_N[known] == 1)
    x, y = model.X_thresholds_, model.y_thresholds_
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MOST_STEPS)).round().astype(int))
    return Steps(tuple(x[kept].astype(float).tolist()), tuple(y[kept].astype(float).tolist()))


def _finite(scores_NC: NDArray[np.floating], class_names: tuple[str, ...]) -> Floats:
    scores = np.asarray(scores_NC, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] != len(class_names):
        raise ValueError(f"scores are {scores.shape}, expected [N, {len(class_names)}]")
    if not np.isfinite(scores).all():
        raise UserError(
            "Not every score of every picture is known: calibrate with tags that were written without --top-k and "
            "--threshold."
        )
    return scores
