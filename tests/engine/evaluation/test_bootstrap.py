"""Intervals that hold the truth as often as they say, and comparisons that see what is common to both runs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from tai_engine.evaluation.bootstrap import bootstrap_map, compare
from tai_engine.evaluation.measures import mean_average_precision


def collection(random, items, classes=3, quality=1.0):
    labels = np.where(random.random((items, classes)) < 0.3, 1, -1)
    return quality * labels + random.normal(size=labels.shape), labels


@pytest.mark.parametrize("ignore_difficult", [False, True])
def test_the_value_is_the_mean_average_precision(ignore_difficult):
    random = np.random.default_rng(0)
    scores, labels = collection(random, 80)
    labels[random.random(labels.shape) < 0.1] = 0
    rule = "ignore" if ignore_difficult else "as-negative"
    expected = mean_average_precision(scores, labels, difficult=rule).mean
    found = bootstrap_map(scores, labels, ignore_difficult=ignore_difficult, draws=200)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.low < found.value < found.high


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), items=st.integers(2, 30))
def test_a_draw_is_the_same_as_pictures_that_are_repeated(seed, items):
    """One draw of the bootstrap against another library on the drawn pictures themselves, ties among the scores."""
    random = np.random.default_rng(seed)
    scores = random.integers(0, 5, (items, 1)).astype(float)
    labels = np.where(random.random((items, 1)) < 0.5, 1, -1)
    found = bootstrap_map(scores, labels, draws=1, seed=seed)
    picked = np.random.default_rng([seed, 0]).integers(0, items, items)
    if (labels[picked] == 1).any():
        expected = average_precision_score(labels[picked, 0] == 1, scores[picked, 0])
        assert found.low == found.high == pytest.approx(expected, abs=1e-9)
    else:
        assert np.isnan(found.low)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """100 collections; the truth is that of one of 40,000 pictures."""
    random = np.random.default_rng(1)
    truth = mean_average_precision(*collection(random, 40_000, 1)).mean
    held = 0
    for _ in range(100):
        found = bootstrap_map(*collection(random, 150, 1), draws=300)
        held += found.low <= truth <= found.high
    assert 86 <= held <= 100


def test_two_runs_that_share_their_noise_are_told_apart():
    random = np.random.default_rng(2)
    labels = np.where(random.random((300, 4)) < 0.3, 1, -1)
    noise = random.normal(size=labels.shape)
    weak, strong = labels + noise, 1.15 * labels + noise
    found = compare(weak, strong, labels, draws=500)
    assert found.difference.value == pytest.approx(found.second.value - found.first.value)
    assert found.difference.is_clear_of_zero
    assert found.first.high > found.second.low  # their own intervals overlap: unpaired, nothing could be said
    assert len(found.per_class) == 4
    same = compare(weak, weak, labels, draws=50)
    assert (same.difference.value, same.difference.low, same.difference.high) == (0, 0, 0)
    assert not same.difference.is_clear_of_zero


def test_the_seed_decides_and_blocks_do_not(monkeypatch):
    scores, labels = collection(np.random.default_rng(3), 60)
    one = bootstrap_map(scores, labels, draws=40, seed=5)
    assert bootstrap_map(scores, labels, draws=40, seed=5) == one
    assert bootstrap_map(scores, labels, draws=40, seed=6) != one


def test_a_class_without_positives_is_left_out():
    scores, labels = collection(np.random.default_rng(4), 50, 3)
    labels[:, 1] = -1
    found = compare(scores, -scores, labels, draws=20)
    assert np.isnan(found.per_class[1].value)
    kept = [0, 2]
    assert found.first.value == pytest.approx(mean_average_precision(scores[:, kept], labels[:, kept]).mean)
    with pytest.raises(ValueError, match="without NaN"):
        bootstrap_map(np.full((2, 1), np.nan), np.ones((2, 1), dtype=int))
