"""A logistic curve per tag, shrunk towards what all tags have in common.

Platt's curve ``p = 1 / (1 + exp(-(intercept + slope * score)))`` needs a few dozen positives to be found for one tag
alone. Here the curves of all tags are drawn from one normal distribution, whose mean and covariance are found with them
(empirical Bayes: EM with a Laplace approximation of each curve's posterior). A tag with many labels keeps its own
curve; one with few has nearly the common one; one that was never seen has the common one, lowered by what its negatives
say.

Shape legend: N items, C tags, K = 2 parameters (intercept, slope).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_EM_STEPS = 30
_NEWTON_STEPS = 12
# A prior for the covariance worth so many tags: three tags do not tell how tags differ.
_PRIOR_TAGS = 4.0
_PRIOR_VARIANCE = 1.0
_FEWEST_LABELS = 2


@dataclass(frozen=True, eq=False)
class LogisticCurves:
    """Curves on scores as they are given.

    Attributes:
        intercepts: [C] float64.
        slopes: [C] float64, never below 0: more of a score is never less probable.
    """

    intercepts: Floats
    slopes: Floats

    def probabilities(self, scores_NC: Floats) -> Floats:
        """[N, C] float64 between 0 and 1."""
        return _sigmoid(self.intercepts + self.slopes * scores_NC)


def fit_logistic(scores_NC: Floats, labels_NC: NDArray[np.int8]) -> LogisticCurves:
    """Find the curves of all tags together.

    Memory: a few arrays of [N, C] float64.

    Args:
        scores_NC: [N, C] finite scores.
        labels_NC: [N, C] int8: +1 there, -1 not there, 0 not known.

    Raises:
        ValueError: for shapes that do not fit, or labels of one kind only: there is no curve between them.
    """
    if scores_NC.shape != labels_NC.shape or scores_NC.ndim != 2:
        raise ValueError(f"scores are {scores_NC.shape} and labels {labels_NC.shape}, expected the same [N, C]")
    known = labels_NC != 0
    positives, negatives = int((labels_NC == 1).sum()), int((labels_NC == -1).sum())
    if min(positives, negatives) == 0 or positives + negatives < _FEWEST_LABELS:
        raise ValueError(f"{positives} positive and {negatives} negative labels: both kinds are needed")
    # Standardised scores make one prior fit cosines and logits alike.
    centre, spread = float(scores_NC[known].mean()), float(scores_NC[known].std()) or 1.0
    x_NC = np.where(known, (scores_NC - centre) / spread, 0.0)
    y_NC = (labels_NC == 1).astype(np.float64)
    weights_NC = known.astype(np.float64)
    mean_K, covariance_KK = _pooled(x_NC, y_NC, weights_NC), np.eye(2) * _PRIOR_VARIANCE
    curves_CK = np.tile(mean_K, (scores_NC.shape[1], 1))
    for _ in range(_EM_STEPS):
        before = mean_K
        curves_CK, posterior_CKK = _map_curves(x_NC, y_NC, weights_NC, curves_CK, mean_K, _inverse(covariance_KK))
        mean_K = curves_CK.mean(axis=0)
        away_CK = curves_CK - mean_K
        scatter = (away_CK[:, :, None] * away_CK[:, None, :] + posterior_CKK).sum(axis=0)
        covariance_KK = (scatter + _PRIOR_TAGS * _PRIOR_VARIANCE * np.eye(2)) / (len(curves_CK) + _PRIOR_TAGS)
        if np.abs(mean_K - before).max() < 1e-6:
            break
    falls_C = curves_CK[:, 1] < 0
    intercepts_C, slopes_C = curves_CK[:, 0].copy(), np.where(falls_C, 0.0, curves_CK[:, 1])
    # A flat curve says how frequent the tag is, with half a picture of either kind added so that it stays finite.
    there_C, counted_C = (y_NC * weights_NC).sum(axis=0), weights_NC.sum(axis=0)
    intercepts_C[falls_C] = np.log((there_C + 0.5) / (counted_C - there_C + 0.5))[falls_C]
    return LogisticCurves(intercepts_C - slopes_C * centre / spread, slopes_C / spread)


def _pooled(x_NC: Floats, y_NC: Floats, weights_NC: Floats) -> Floats:
    """[K] one curve for all tags, with the weakest prior that keeps separable labels finite."""
    flat = (x_NC.reshape(-1, 1), y_NC.reshape(-1, 1), weights_NC.reshape(-1, 1))
    curve_CK, _ = _map_curves(*flat, np.zeros((1, 2)), np.zeros(2), np.eye(2) * 0.01)
    return np.asarray(curve_CK[0])


def _map_curves(
    x_NC: Floats, y_NC: Floats, weights_NC: Floats, start_CK: Floats, mean_K: Floats, precision_KK: Floats
) -> tuple[Floats, Floats]:
    """The most probable curves [C, K] under a normal prior, and their posterior covariances [C, K, K]: Newton's method
    with halved steps where a whole one would make it worse."""

    def objective(curves_CK: Floats) -> Floats:
        z_NC = curves_CK[:, 0] + curves_CK[:, 1] * x_NC
        away = curves_CK - mean_K
        loss_C = (weights_NC * (np.logaddexp(0.0, z_NC) - y_NC * z_NC)).sum(axis=0)
        return np.asarray(loss_C + 0.5 * np.einsum("ck,kl,cl->c", away, precision_KK, away))

    curves_CK = start_CK.copy()
    value_C = objective(curves_CK)
    for _ in range(_NEWTON_STEPS):
        gradient_CK, hessian_CKK = _derivatives(x_NC, y_NC, weights_NC, curves_CK, mean_K, precision_KK)
        step_CK = np.linalg.solve(hessian_CKK, gradient_CK[:, :, None])[:, :, 0]
        share_C = np.ones(len(curves_CK))
        for _ in range(12):
            tried = curves_CK - share_C[:, None] * step_CK
            tried_C = objective(tried)
            worse = tried_C > value_C + 1e-12
            if not worse.any():
                break
            share_C[worse] *= 0.5
        better = tried_C <= value_C + 1e-12
        curves_CK[better], value_C[better] = tried[better], tried_C[better]
        if np.abs(step_CK).max() < 1e-9:
            break
    _, hessian_CKK = _derivatives(x_NC, y_NC, weights_NC, curves_CK, mean_K, precision_KK)
    return curves_CK, _inverse(hessian_CKK)


def _derivatives(
    x_NC: Floats, y_NC: Floats, weights_NC: Floats, curves_CK: Floats, mean_K: Floats, precision_KK: Floats
) -> tuple[Floats, Floats]:
    p_NC = _sigmoid(curves_CK[:, 0] + curves_CK[:, 1] * x_NC)
    wrong_NC = weights_NC * (p_NC - y_NC)
    gradient = np.stack([wrong_NC.sum(0), (wrong_NC * x_NC).sum(0)], axis=1) + (curves_CK - mean_K) @ precision_KK
    curvature_NC = weights_NC * p_NC * (1 - p_NC)
    cross = (curvature_NC * x_NC).sum(0)
    rows = np.stack([curvature_NC.sum(0), cross, cross, (curvature_NC * x_NC**2).sum(0)], axis=1)
    return gradient, rows.reshape(-1, 2, 2) + precision_KK


def _inverse(matrices: Floats) -> Floats:
    return np.asarray(np.linalg.inv(matrices), dtype=np.float64)


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))
