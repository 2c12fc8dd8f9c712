import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from tai_engine.errors import UserError
from tai_engine.evaluation.measures import mean_average_precision
from tai_engine.evaluation.multilabel import tag_measures, top_k

YES, NO = True, False


def average_precision(scores, positives):
    """Of one class."""
    columns = [part[:, None] if hasattr(part, "dtype") else np.array(part)[:, None] for part in (scores, positives)]
    return mean_average_precision(*columns).values[0]


@pytest.mark.parametrize(
    ("scores", "positives", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.6], [YES, NO, YES, NO], (1 / 1 + 2 / 3) / 2),
        ([0.1, 0.2, 0.3], [YES, NO, NO], 1 / 3),
        ([0.1, 0.2, 0.3], [NO, NO, YES], 1.0),
        ([5.0], [YES], 1.0),
        ([-1.0, -2.0], [YES, YES], 1.0),
        ([0.5, 0.5], [YES, NO], 1 / 2),  # a tie is one rank
        ([0.5, 0.5], [NO, YES], 1 / 2),
        ([0.9, 0.5, 0.5, 0.5, 0.1], [NO, YES, NO, YES, YES], (2 / 4 + 2 / 4 + 3 / 5) / 3),
        ([np.inf, 0.0, -np.inf], [NO, YES, YES], (1 / 2 + 2 / 3) / 2),
    ],
)
def test_average_precision_by_hand(scores, positives, expected):
    assert average_precision(scores, positives) == pytest.approx(expected, abs=1e-15)
    assert average_precision(torch.tensor(scores), torch.tensor(positives)) == pytest.approx(expected, abs=1e-15)


def test_average_precision_without_positives_or_items_is_nan():
    assert np.isnan(average_precision([0.1, 0.2], [NO, NO]))
    assert np.isnan(average_precision(np.empty(0), np.empty(0, dtype=bool)))


SIZES = st.integers(1, 40)


@given(st.data(), SIZES, st.sampled_from([np.float32, np.float64]), st.booleans())
@settings(max_examples=80, deadline=None)
def test_average_precision_equals_scikit_learn(data, n, dtype, many_ties):
    values = st.integers(-2, 2) if many_ties else st.floats(-100, 100, width=32)
    scores = np.array(data.draw(st.lists(values, min_size=n, max_size=n)), dtype=dtype)
    positives = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    if positives.any():
        expected = average_precision_score(positives, scores)
        assert average_precision(scores, positives) == pytest.approx(expected, abs=1e-12)


@given(hnp.arrays(np.float64, st.integers(2, 30), elements=st.integers(0, 4)), st.randoms())
@settings(max_examples=50, deadline=None)
def test_average_precision_does_not_depend_on_the_order(scores, random):
    positives = np.arange(len(scores)) % 3 == 0
    order = list(range(len(scores)))
    random.shuffle(order)
    assert average_precision(scores[order], positives[order]) == average_precision(scores, positives)


@pytest.mark.parametrize(
    ("scores", "positives", "message"),
    [
        ([0.1, np.nan], [YES, NO], "NaN"),
        (np.zeros(2, np.float16), [YES, NO], "float16 is too coarse"),
        (torch.zeros(2, dtype=torch.bfloat16), [YES, NO], "bfloat16 is too coarse"),
        ([0.1, 0.2], [YES], "labels have shape"),
        ([[0.1, 0.2]], [YES, NO], r"in 2 dimensions"),
        (["a", "b"], [YES, NO], "expected numbers"),
    ],
)
def test_average_precision_refuses(scores, positives, message):
    with pytest.raises(ValueError, match=message):
        average_precision(scores, positives)


def test_mean_average_precision_by_hand_and_both_rules_for_difficult_labels():
    scores = np.array([[0.9, 0.1, 1.0], [0.8, 0.2, 2.0], [0.7, 0.3, 3.0]])
    labels = np.array([[0, 1, -1], [1, -1, -1], [-1, 1, -1]], dtype=np.int8)
    as_negative = mean_average_precision(scores, labels, ["a", "b", "c"])
    assert as_negative.values[:2].tolist() == pytest.approx([1 / 2, (1 + 2 / 3) / 2])
    assert np.isnan(as_negative.values[2])
    assert as_negative.mean == pytest.approx((1 / 2 + 5 / 6) / 2)
    assert as_negative.without_positives == ("c",)
    assert [(name, positives) for name, _, positives in as_negative.per_class] == [("a", 1), ("b", 2)]
    assert (as_negative.items, as_negative.difficult) == (3, "as-negative")
    ignore = mean_average_precision(torch.from_numpy(scores), torch.from_numpy(labels), difficult="ignore")
    assert ignore.values[:2].tolist() == pytest.approx([1.0, 5 / 6])
    assert ignore.class_names == ("0", "1", "2")


def test_eleven_points_by_hand_and_by_the_rule_of_the_development_kit():
    scores = np.array([[0.9], [0.8], [0.7], [0.6]])
    labels = np.array([[1], [-1], [1], [-1]])
    found = mean_average_precision(scores, labels, interpolation="11-point")
    # Precision 1 up to a recall of 0.5, which are six of the points, then 2/3.
    assert found.values[0] == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert found.interpolation == "11-point"
    random = np.random.default_rng(0)
    for positives in range(1, 21):  # recalls that floating point hits and misses
        scores, labels = random.random((30, 1)), np.repeat([1, -1], [positives, 30 - positives])[:, None]
        hits = np.cumsum(labels[np.argsort(-scores[:, 0]), 0] == 1)
        precisions = hits / np.arange(1, 31)
        reached = [Fraction(int(hit), positives) for hit in hits]
        best = [
            max(p for p, recall in zip(precisions, reached, strict=True) if recall >= Fraction(k, 10))
            for k in range(11)
        ]
        found = mean_average_precision(scores, labels, interpolation="11-point")
        assert found.values[0] == pytest.approx(sum(best) / 11, abs=1e-12)
    with pytest.raises(UserError, match="Unknown average precision 'voc'"):
        mean_average_precision(scores, labels, interpolation="voc")


def test_pairs_that_tie_are_counted_of_the_labels_that_count():
    scores = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [0.0, 3.0]])
    labels = np.array([[1, 1], [-1, 1], [0, -1], [1, -1]])
    assert mean_average_precision(scores, labels).tied_pairs.tolist() == [2, 0]
    assert mean_average_precision(scores, labels, difficult="ignore").tied_pairs.tolist() == [1, 0]
    assert mean_average_precision(np.zeros((5, 1)), np.array([[1]] * 2 + [[-1]] * 3)).tied_pairs.tolist() == [6]


def test_boolean_and_integer_labels_agree():
    scores = np.random.default_rng(0).standard_normal((30, 4))
    positives = scores + np.random.default_rng(1).standard_normal((30, 4)) > 0.5
    expected = [average_precision_score(positives[:, c], scores[:, c]) for c in range(4)]
    for labels in (positives, positives.astype(int), np.where(positives, 1, -1)):
        assert mean_average_precision(scores, labels).values.tolist() == pytest.approx(expected)
    assert mean_average_precision(scores, positives, difficult="ignore").values.tolist() == pytest.approx(expected)


def test_no_items_or_no_classes():
    assert np.isnan(mean_average_precision(np.empty((0, 3)), np.empty((0, 3), dtype=bool)).mean)
    assert np.isnan(mean_average_precision(np.empty((3, 0)), np.empty((3, 0), dtype=bool)).mean)


def test_mean_average_precision_refuses():
    scores = np.zeros((2, 2))
    with pytest.raises(ValueError, match="labels have shape"):
        mean_average_precision(scores, np.zeros((2, 3), dtype=bool))
    with pytest.raises(ValueError, match="other values than -1, 0 and 1"):
        mean_average_precision(scores, np.full((2, 2), 2))
    with pytest.raises(ValueError, match="1 class names for 2 columns"):
        mean_average_precision(scores, np.ones((2, 2), dtype=bool), ["a"])
    with pytest.raises(ValueError, match="negatives must be -1"):
        mean_average_precision(scores, np.array([[0, 1], [1, 0]]), difficult="ignore")
    with pytest.raises(UserError, match="Unknown rule for difficult labels 'ignored'; did you mean 'ignore'"):
        mean_average_precision(scores, np.ones((2, 2), dtype=bool), difficult="ignored")


@pytest.fixture(scope="module")
def voc():
    folder = os.environ.get("TAI_DATA")
    if not folder:
        pytest.skip("TAI_DATA is not set")
    with np.load(Path(folder) / "voc2007_test_taidpt_rn50_scores.npz") as file:
        coarse, fine = file["a"], file["b"]
        scores = {"coarse": coarse, "fine": fine, "merged": (coarse + fine) / 2}
        return scores, file["labels"]


@pytest.mark.data
@pytest.mark.parametrize(
    ("scores", "difficult", "expected"),
    [
        ("coarse", "as-negative", 86.08),
        ("fine", "as-negative", 73.51),
        ("merged", "as-negative", 88.07),
        ("merged", "ignore", 88.99),
    ],
)
def test_published_scores_on_voc2007(voc, scores, difficult, expected):
    values, labels = torch.from_numpy(voc[0][scores]), voc[1]
    assert round(mean_average_precision(values, labels, difficult=difficult).mean * 100, 2) == expected


@pytest.mark.data
def test_measures_of_published_scores_are_those_of_another_library(voc):
    scores, labels = voc[0]["merged"].astype(np.float32).astype(np.float64), voc[1]
    there = labels == 1
    expected = average_precision_score(there, scores, average="macro")
    assert mean_average_precision(scores, labels).mean == pytest.approx(expected, abs=1e-9)
    for chosen in (top_k(scores, 3), scores >= 1.0):
        found = tag_measures(chosen, labels)
        macro = precision_recall_fscore_support(there, chosen, average="macro", zero_division=0)
        micro = precision_recall_fscore_support(there, chosen, average="micro", zero_division=0)
        assert (found.class_precision, found.class_recall) == pytest.approx(macro[:2], abs=1e-9)
        assert found.class_f1 == pytest.approx(2 * macro[0] * macro[1] / (macro[0] + macro[1]), abs=1e-9)
        assert (found.overall_precision, found.overall_recall, found.overall_f1) == pytest.approx(micro[:3], abs=1e-9)
