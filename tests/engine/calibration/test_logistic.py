"""Curves that are found together: exact where there are many labels, common where there are few."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from tai_engine.calibration.logistic import fit_logistic


def drawn(items, intercepts, slopes, seed=0):
    """Scores of standard normal distribution, and labels drawn from the curves."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(items, len(intercepts)))
    probabilities = 1 / (1 + np.exp(-(np.array(intercepts) + np.array(slopes) * scores)))
    return scores, np.where(random.random(scores.shape) < probabilities, 1, -1).astype(np.int8)


def test_with_many_labels_each_tag_has_its_own_curve():
    scores, labels = drawn(20_000, [-2.0, 0.5, -1.0], [1.0, 3.0, 2.0])
    found = fit_logistic(scores, labels)
    for c in range(3):
        alone = LogisticRegression(C=np.inf, tol=1e-10).fit(scores[:, [c]], labels[:, c])
        assert found.intercepts[c] == pytest.approx(alone.intercept_[0], abs=0.01)
        assert found.slopes[c] == pytest.approx(alone.coef_[0, 0], abs=0.01)


def test_few_labels_give_nearly_the_common_curve():
    scores, labels = drawn(400, [-1.0] * 30, [2.0] * 30)
    labels[5:, 7] = 0  # five labels of one tag
    labels[:5, 7] = -1
    found = fit_logistic(scores, labels)
    others = np.delete(found.slopes, 7)
    assert found.slopes[7] == pytest.approx(others.mean(), abs=0.3)
    assert found.slopes.mean() == pytest.approx(2.0, abs=0.2)
    # Five pictures without it make it rarer than the common curve, not impossible.
    assert np.delete(found.intercepts, 7).mean() - 1.0 < found.intercepts[7] < np.delete(found.intercepts, 7).mean()


def test_a_tag_without_any_label_has_the_common_curve():
    scores, labels = drawn(500, [-1.0, -1.5, -0.5, 0.0], [2.0, 2.5, 1.5, 2.0])
    labels[:, 3] = 0
    found = fit_logistic(scores, labels)
    assert found.slopes[3] == pytest.approx(found.slopes.mean(), abs=1e-3)
    assert found.intercepts[3] == pytest.approx(found.intercepts.mean(), abs=1e-3)


def test_labels_that_a_score_divides_without_error_keep_finite_curves():
    scores = np.linspace(-1, 1, 40).reshape(-1, 1)
    found = fit_logistic(scores, np.where(scores > 0, 1, -1).astype(np.int8))
    assert np.isfinite(found.slopes).all()
    assert found.slopes[0] > 1
    assert found.probabilities(np.array([[0.0]]))[0, 0] == pytest.approx(0.5, abs=0.02)


def test_scores_that_say_the_opposite_give_a_flat_curve():
    scores, labels = drawn(3_000, [0.0], [-2.0])
    found = fit_logistic(scores, labels)
    assert found.slopes[0] == 0
    assert np.allclose(found.probabilities(scores), (labels == 1).mean(), atol=1e-3)


def test_unknown_labels_do_not_count():
    scores, labels = drawn(300, [-1.0, -0.5], [2.0, 1.0])
    more = np.concatenate([scores, np.full((50, 2), 3.0)])
    unknown = np.concatenate([labels, np.zeros((50, 2), dtype=np.int8)])
    one, two = fit_logistic(scores, labels), fit_logistic(more, unknown)
    assert np.allclose(one.slopes, two.slopes, rtol=1e-9)
    assert np.allclose(one.intercepts, two.intercepts, rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.01, 100), shift=st.floats(-50, 50), seed=st.integers(0, 5))
def test_the_unit_of_the_scores_does_not_matter(scale, shift, seed):
    scores, labels = drawn(60, [-1.0, 0.0, -2.0], [1.0, 2.0, 3.0], seed)
    one = fit_logistic(scores, labels).probabilities(scores)
    two = fit_logistic(scores * scale + shift, labels).probabilities(scores * scale + shift)
    assert np.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("label", [1, -1])
def test_labels_of_one_kind_are_refused(label):
    with pytest.raises(ValueError, match="both kinds are needed"):
        fit_logistic(np.zeros((5, 2)), np.full((5, 2), label, dtype=np.int8))
    with pytest.raises(ValueError, match="expected the same"):
        fit_logistic(np.zeros((5, 2)), np.full((5, 3), label, dtype=np.int8))
