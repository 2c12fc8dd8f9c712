"""Calibrations from labels, and from rates alone."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from tai_engine.calibration.fit import ISOTONIC_POSITIVES, fit_labels, fit_rates
from tai_engine.calibration.thresholds import Target
from tai_engine.errors import UserError
from tai_engine.evaluation.reliability import reliability

NAMES = ("cat", "dog", "bird")


def collection(items, seed=0):
    """Scores of which a tag's probability is a logistic curve."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(items, 3))
    probabilities = 1 / (1 + np.exp(-(np.array([-3.0, -6.0, -7.0]) + np.array([6.0, 7.0, 6.0]) * scores)))
    return scores, np.where(random.random(scores.shape) < probabilities, 1, -1).astype(np.int8)


def test_probabilities_hold_on_new_pictures():
    fit = fit_labels(*collection(800), NAMES)
    scores, labels = collection(4_000, seed=1)
    assert reliability(fit.curves.probabilities(scores), labels == 1).error < 0.02
    assert fit.promises == ()
    assert fit.positives == tuple((collection(800)[1] == 1).sum(0).tolist())


def test_each_tag_has_a_promise_of_its_own():
    fit = fit_labels(*collection(3_000), NAMES, [Target("precision", 0.8)]).promises[0]
    scores, labels = collection(20_000, seed=1)
    kept = [c for c, threshold in enumerate(fit.thresholds) if threshold.score is not None]
    assert kept == [0, 1, 2]
    for c in kept:
        chosen = scores[:, c] >= fit.thresholds[c].score
        assert (labels[chosen, c] == 1).mean() >= 0.78  # 0.8 at a confidence of 0.9, seen on 20,000 other pictures


def test_one_promise_for_all_tags_needs_fewer_labels():
    scores, labels = collection(120)
    fit = fit_labels(scores, labels, NAMES, [Target("precision", 0.8, together=both) for both in (False, True)])
    alone, together = fit.promises
    assert alone.kept < 3
    assert together.kept == 3
    least = together.least_scores
    common = fit.curves.probabilities(least[None])[0]
    assert np.allclose(common, common[0])
    scores, labels = collection(20_000, seed=1)
    assert (labels[scores >= least] == 1).mean() >= 0.78


def test_thousands_of_labels_give_a_curve_without_a_form():
    random = np.random.default_rng(0)
    scores = random.random((8_000, 1))
    labels = np.where(random.random((8_000, 1)) < np.where(scores > 0.5, 0.7, 0.1), 1, -1).astype(np.int8)
    fit = fit_labels(scores, labels, ("step",))
    assert fit.positives[0] >= ISOTONIC_POSITIVES
    curve = fit.steps["step"]
    assert len(curve.scores) <= 200
    oracle = IsotonicRegression(out_of_bounds="clip").fit(scores[:, 0], labels[:, 0] == 1)
    there = np.linspace(0.05, 0.95, 19)
    assert np.allclose(np.interp(there, curve.scores, curve.probabilities), oracle.predict(there), atol=0.03)
    few = fit_labels(scores[:1_000], labels[:1_000], ("step",))
    assert few.steps == {}


def test_rates_alone_set_where_a_curve_lies():
    """Curves that have the slope which is taken for granted: 2 per standard deviation."""
    random = np.random.default_rng(0)
    scores = random.normal(size=(5_000, 3))
    labels = random.random(scores.shape) < 1 / (1 + np.exp(-(np.array([-1.0, -3.0, -4.0]) + 2 * scores)))
    rates = labels.mean(axis=0)
    fit = fit_rates(scores * 7 + 3, rates, NAMES)
    found = fit.curves.probabilities(scores * 7 + 3)
    assert np.allclose(found.mean(axis=0), rates, atol=1e-9)
    assert np.allclose(fit.curves.slopes, 2.0 / (scores * 7 + 3).std(axis=0))
    assert reliability(found, labels).error < 0.015


@pytest.mark.parametrize(
    ("scores", "rates", "message"),
    [
        (np.zeros((20, 3)), [0.1, 0.0, 0.5], "The rate of 'dog' is not between 0 and 1"),
        (np.zeros((20, 3)), [0.1, 0.2, 1.5], "The rate of 'bird'"),
        (np.zeros((9, 3)), [0.1, 0.2, 0.3], "9 pictures are too few"),
        (np.full((20, 3), -np.inf), [0.1, 0.2, 0.3], "written without --top-k"),
    ],
)
def test_rates_that_tell_nothing_are_refused(scores, rates, message):
    with pytest.raises(UserError, match=message):
        fit_rates(scores, np.array(rates), NAMES)


def test_a_constant_score_still_meets_its_rate():
    fit = fit_rates(np.zeros((20, 3)), np.array([0.1, 0.2, 0.3]), NAMES)
    assert np.allclose(fit.curves.probabilities(np.zeros((1, 3))), [[0.1, 0.2, 0.3]])


@pytest.mark.parametrize(("label", "words"), [(1, "lacks any"), (-1, "has any")])
def test_labels_of_one_kind_are_refused(label, words):
    with pytest.raises(UserError, match=words):
        fit_labels(np.zeros((5, 3)), np.full((5, 3), label, dtype=np.int8), NAMES)
