"""Precision, recall and coverage of tags, by hand and as scikit-learn has them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import coverage_error, precision_recall_fscore_support

from tai_engine.evaluation.multilabel import coverage, tag_measures, top_k


def test_three_pictures_by_hand():
    chosen = np.array([[1, 0], [1, 1], [0, 1]], dtype=bool)
    labels = np.array([[1, -1], [-1, 1], [1, 0]])
    found = tag_measures(chosen, labels)
    assert (found.class_precision, found.class_recall) == (0.5, 0.75)
    assert found.class_f1 == pytest.approx(2 * 0.5 * 0.75 / 1.25)
    assert (found.overall_precision, found.overall_recall) == (0.5, pytest.approx(2 / 3))
    without = tag_measures(chosen, labels, ignore_difficult=True)
    assert without.overall_precision == pytest.approx(2 / 3)
    assert without.class_precision == 0.75


@given(items=st.integers(1, 20), classes=st.integers(2, 6), seed=st.integers(0, 200))
def test_equal_to_another_library(items, classes, seed):
    random = np.random.default_rng(seed)
    chosen, there = random.random((items, classes)) < 0.4, random.random((items, classes)) < 0.4
    labels = np.where(there, 1, -1)
    found = tag_measures(chosen, labels)
    macro = precision_recall_fscore_support(there, chosen, average="macro", zero_division=0)
    micro = precision_recall_fscore_support(there, chosen, average="micro", zero_division=0)
    assert (found.class_precision, found.class_recall) == pytest.approx(macro[:2], abs=1e-9)
    overall = (found.overall_precision, found.overall_recall, found.overall_f1)
    assert overall == pytest.approx(micro[:3], abs=1e-9)
    scores = random.integers(0, 4, (items, classes)).astype(float)  # with ties
    if there.any():
        rows = there.any(axis=1)
        assert coverage(scores, labels) == pytest.approx(coverage_error(there[rows], scores[rows]), abs=1e-9)
    else:
        assert np.isnan(coverage(scores, labels))


def test_the_best_classes_of_each_picture():
    scores = np.array([[0.1, 0.5, 0.5, 0.2], [1.0, 1.0, 1.0, 1.0]])
    assert top_k(scores, 2).tolist() == [[False, True, True, False], [True, True, False, False]]
    assert top_k(scores, 0).sum() == 0
    assert top_k(scores, 9).all()


def test_nothing_at_all_and_nonsense():
    found = tag_measures(np.zeros((0, 3), dtype=bool), np.zeros((0, 3), dtype=int))
    assert found == tag_measures(np.zeros((2, 3), dtype=bool), np.full((2, 3), -1))
    assert found.overall_f1 == found.class_f1 == 0
    with pytest.raises(ValueError, match="expected bool"):
        tag_measures(np.zeros((2, 3)), np.zeros((2, 3)))
    for bad in (np.array([[np.nan]]), np.array([[-np.inf]]), np.zeros(3)):
        with pytest.raises(ValueError, match="finite"):
            top_k(bad, 1)
    with pytest.raises(ValueError, match="k is -1"):
        top_k(np.zeros((1, 1)), -1)
