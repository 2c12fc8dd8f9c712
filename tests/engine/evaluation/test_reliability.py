"""Brier score and calibration error, by hand and as scikit-learn has them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from tai_engine.evaluation.reliability import brier_score, reliability


def test_two_bins_by_hand():
    found = reliability(np.array([0.1, 0.2, 0.6, 0.9]), np.array([False, True, True, True]), bins=2)
    assert found.counts.tolist() == [2, 2]
    assert np.allclose(found.predicted, [0.15, 0.75])
    assert np.allclose(found.observed, [0.5, 1.0])
    assert found.error == pytest.approx((2 * 0.35 + 2 * 0.25) / 4)
    assert brier_score(np.array([0.1, 0.2, 0.6, 0.9]), np.array([False, True, True, True])) == pytest.approx(0.205)


@given(size=st.integers(20, 300), seed=st.integers(0, 100), digits=st.integers(1, 6), bins=st.integers(2, 20))
def test_equal_to_another_library(size, seed, digits, bins):
    random = np.random.default_rng(seed)
    p = random.random(size).round(digits)
    y = random.random(size) < p
    y[:2] = [True, False]
    found = reliability(p, y, bins)
    observed, predicted = calibration_curve(y, p, n_bins=bins, strategy="quantile")
    assert np.allclose(found.observed, observed, atol=1e-9)
    assert np.allclose(found.predicted, predicted, atol=1e-9)
    assert int(found.counts.sum()) == size
    assert brier_score(p, y) == pytest.approx(brier_score_loss(y, p), abs=1e-9)


def test_nothing_and_nonsense():
    empty = reliability(np.zeros((0, 3)), np.zeros((0, 3), dtype=bool))
    assert np.isnan(empty.error)
    assert np.isnan(brier_score(np.zeros(0), np.zeros(0, dtype=bool)))
    for bad in ([1.5], [-0.1], [np.nan]):
        with pytest.raises(ValueError, match="between 0 and 1"):
            reliability(np.array(bad), np.array([True]))
    with pytest.raises(ValueError, match="expected bool"):
        brier_score(np.array([0.5]), np.array([1]))
