"""Thresholds keep what they promise, on pictures that they have not seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tai_engine.calibration.thresholds import Target, find_threshold, lower_bound
from tai_engine.errors import UserError


@given(trials=st.integers(1, 300), share=st.floats(0, 1), error=st.sampled_from([0.01, 0.05, 0.1, 0.25]))
def test_the_bound_is_that_of_clopper_and_pearson(trials, share, error):
    right = round(share * trials)
    exact = binomtest(right, trials, alternative="greater").proportion_ci(1 - error, method="exact").low
    assert lower_bound(right, trials, error) == pytest.approx(exact, abs=1e-9)


def test_as_many_as_are_needed_all_right():
    """Four starting points share an error of 0.1, and 0.9 ** 35 is the first power below 0.025."""
    target = Target("precision", 0.9, 0.9)
    scores = np.arange(200, 0, -1.0)
    for many, expected in ((34, None), (36, 161.0)):
        found = find_threshold(scores[:many], np.ones(many, dtype=bool), target)
        if expected is None:
            assert found.score is None
            assert found.reason == "36 labelled pictures are needed to show it, and there are 34"
    found = find_threshold(scores, np.arange(200) < 150, target)
    assert found.found == pytest.approx((scores[:150] >= found.score).sum() / (scores >= found.score).sum())
    assert found.bound >= 0.9
    assert 30 < found.score < 60  # 150 right ones, and at most 16 wrong ones below them


def population(random, items):
    """Scores in [0, 1] whose own value is the probability of the tag."""
    scores = random.random(items)
    return scores, random.random(items) < scores**2


def true_precision(threshold):
    """E[s^2 | s >= t] of a uniform s."""
    return (1 - threshold**3) / (3 * (1 - threshold))


def true_recall(threshold):
    return 1 - threshold**3


def true_f1(threshold):
    right, chosen, there = (1 - threshold**3) / 3, 1 - threshold, 1 / 3
    return 2 * right / (chosen + there)


@pytest.mark.parametrize(
    ("goal", "value", "truth"),
    [("precision", 0.7, true_precision), ("recall", 0.8, true_recall), ("f1", 0.6, true_f1)],
)
@pytest.mark.slow
def test_a_promise_is_broken_no_more_often_than_is_said(goal, value, truth):
    """400 collections of which the truth is known; a binomial of 400 and 0.1 exceeds 60 once in a thousand times."""
    random = np.random.default_rng(0)
    broken = found = 0
    for _ in range(400):
        threshold = find_threshold(*population(random, 500), Target(goal, value, 0.9))
        if threshold.score is not None:
            found += 1
            broken += truth(threshold.score) < value
    assert found > 300
    assert broken <= 60


def test_the_recall_of_a_hand_counted_case():
    """22 positives: 0.9 ** 22 < 0.1, so that the lowest of them shows a recall of 0.9, and of 21 none does."""
    scores = np.arange(22, 0, -1.0)
    found = find_threshold(scores, np.ones(22, dtype=bool), Target("recall", 0.9, 0.9))
    assert (found.score, found.found) == (1.0, 1.0)
    found = find_threshold(scores[:21], np.ones(21, dtype=bool), Target("recall", 0.9, 0.9))
    assert found.score is None
    assert found.reason == "22 positives are needed to show it, and there are 21"


def test_equal_scores_stand_or_fall_together():
    scores = np.repeat([3.0, 2.0, 1.0], 100)
    positives = np.concatenate([np.ones(100), np.tile([1, 0], 50), np.zeros(100)]).astype(bool)
    found = find_threshold(scores, positives, Target("precision", 0.9, 0.9))
    assert (found.score, found.found) == (3.0, 1.0)
    shuffled = np.random.default_rng(1).permutation(300)
    assert find_threshold(scores[shuffled], positives[shuffled], Target("precision", 0.9, 0.9)) == found


def test_what_cannot_be_promised_is_said():
    random = np.random.default_rng(2)
    target = Target("precision", 0.9, 0.9)
    nobody = find_threshold(random.random(50), np.zeros(50, dtype=bool), target)
    assert (nobody.score, nobody.reason) == (None, "no labelled picture has it")
    noise = find_threshold(random.random(500), random.random(500) < 0.2, target)
    assert noise.score is None
    assert "which does not show it" in noise.reason
    assert "too little for it" in find_threshold(random.random(500), random.random(500) < 0.2, Target("f1", 0.9)).reason


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("accuracy", 0.9), "Unknown goal 'accuracy'"),
        (("precision", 1.0), "The precision wanted is 1.0; it must be between 0 and 1"),
        (("recall", 0.5, 0.0), "The confidence wanted is 0.0"),
    ],
)
def test_targets_out_of_range_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Target(*arguments)


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="without NaN"):
        find_threshold(np.array([np.nan, 1.0]), np.array([True, False]), Target("recall", 0.5))
