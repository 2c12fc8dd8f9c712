"""CF1 and OF1 of draws of pictures: each draw as the pictures themselves would give it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tai_engine.evaluation.bootstrap_f1 import compare_f1
from tai_engine.evaluation.multilabel import tag_measures


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), items=st.integers(1, 30), ignore=st.booleans())
def test_a_draw_is_the_same_as_pictures_that_are_repeated(seed, items, ignore):
    random = np.random.default_rng(seed)
    labels = random.integers(-1, 2, (items, 3))
    one, two = (random.random(labels.shape) < 0.5 for _ in range(2))
    class_f1, overall = compare_f1(one, two, labels, ignore_difficult=ignore, draws=1, seed=seed)
    picked = np.random.default_rng([seed, 0]).integers(0, items, items)
    for chosen, by_class, over_all in (
        (one, class_f1.first, overall.first),
        (two, class_f1.second, overall.second),
    ):
        whole = tag_measures(chosen, labels, ignore_difficult=ignore)
        drawn = tag_measures(chosen[picked], labels[picked], ignore_difficult=ignore)
        assert (by_class.value, over_all.value) == pytest.approx((whole.class_f1, whole.overall_f1))
        assert (by_class.low, over_all.low) == pytest.approx((drawn.class_f1, drawn.overall_f1))
    assert class_f1.difference.value == pytest.approx(class_f1.second.value - class_f1.first.value)


def test_one_error_less_in_a_hundred_is_found_because_the_pictures_are_shared():
    labels = np.ones((400, 1), dtype=int)
    worse = np.ones((400, 1), dtype=bool)
    worse[:100] = False
    better = worse.copy()
    better[:8] = True
    _, overall = compare_f1(worse, better, labels, draws=300)
    assert overall.difference.is_clear_of_zero
    assert overall.first.high > overall.second.low
    with pytest.raises(ValueError, match="choices are"):
        compare_f1(worse, better[:3], labels)
