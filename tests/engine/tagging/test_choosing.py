"""The order in which words, thresholds, the best few and the number of tags decide, by hand."""

import numpy as np
import pytest

from tai_engine.calibration.calibration import Calibration, Promise
from tai_engine.calibration.logistic import LogisticCurves
from tai_engine.calibration.thresholds import Target, Threshold
from tai_engine.errors import UserError
from tai_engine.tagging.choosing import TagRules, without_effect

NAMES = ("cat", "dog", "bird", "boat")
SCORES = np.array([[3.0, 2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=np.float32)


def calibration():
    """Boats are likely at any score, and the promise for birds cannot be kept."""
    return Calibration(
        NAMES,
        "ab",
        {},
        "labels",
        100,
        (9, 9, 9, 9),
        LogisticCurves(np.array([-3.0, -3.0, -3.0, 5.0]), np.ones(4)),
        promises=(
            Promise(
                Target("precision", 0.9),
                (Threshold(2.5), Threshold(2.5), Threshold(None, reason="too few"), Threshold(-1.0)),
            ),
        ),
    )


def tags(rules, picture="a"):
    table = rules.table(("a", "b"), SCORES)
    return [row["tag"] for row in table.to_pylist() if row["id"] == picture]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ["cat", "dog", "bird", "boat"]),
        ({"threshold": 1.5}, ["cat", "dog"]),
        ({"threshold": 1.0}, ["cat", "dog", "bird"]),
        ({"threshold": 1.0, "top_k": 2}, ["cat", "dog"]),
        ({"never": ["cat", "unicorn"]}, ["dog", "bird", "boat"]),
        ({"never": ["cat"], "top_k": 1}, ["dog"]),
        ({"threshold": 9.0, "always_top": 2}, ["cat", "dog"]),
        ({"threshold": 9.0, "always_top": 2, "never": ["cat"]}, ["dog", "bird"]),
        ({"threshold": 9.0, "always_top": 3, "top_k": 1}, ["cat"]),
        ({"threshold": 0.5, "always_top": 1}, ["cat", "dog", "bird"]),
        ({"never": list(NAMES), "always_top": 4}, []),
    ],
)
def test_rules_in_their_order(asked, expected):
    assert tags(TagRules.of(NAMES, **asked)) == expected


def test_equal_scores_stand_in_the_order_of_the_classes():
    assert tags(TagRules.of(NAMES, top_k=2), "b") == ["cat", "dog"]


def test_a_calibration_ranks_by_probability_and_keeps_its_promise():
    assert tags(TagRules.of(NAMES, calibration=calibration())) == ["boat", "cat", "dog", "bird"]
    promised = TagRules.of(NAMES, calibration=calibration(), min_precision=0.9)
    assert tags(promised) == ["boat", "cat"]
    assert tags(promised, "b") == ["boat"]
    both = TagRules.of(NAMES, calibration=calibration(), min_precision=0.9, threshold=0.5)
    assert tags(both) == ["cat"]
    with pytest.raises(UserError, match=r"no thresholds for a precision of 0\.8"):
        TagRules.of(NAMES, calibration=calibration(), min_precision=0.8)


def test_columns_say_probability_and_threshold():
    rows = TagRules.of(NAMES, calibration=calibration(), min_precision=0.9, always_top=4).table(("a", "b"), SCORES)
    first = rows.to_pylist()[:4]
    assert [row["probability"] for row in first] == pytest.approx([1 / (1 + np.exp(-x)) for x in (5, 0, -1, -2)])
    assert [row["threshold"] for row in first] == [-1.0, 2.5, 2.5, None]
    plain = TagRules.of(NAMES, never=["cat"]).table(("a", "b"), SCORES).to_pylist()
    assert {row["probability"] for row in plain} == {row["threshold"] for row in plain} == {None}


def test_no_picture_at_all():
    assert TagRules.of(NAMES, threshold=1.0).table((), SCORES[:0]).num_rows == 0


def test_words_that_are_never_wanted_may_be_spelt_otherwise():
    names = ("traffic_light", "caf\u00e9", "dog")
    rules = TagRules.of(names, never=["Traffic light", "cafe\u0301", "owl"])
    assert rules.allowed.tolist() == [False, False, True]
    assert without_effect(["Traffic light", "cafe\u0301", "owl"], names) == ["owl"]


def test_the_least_probability_takes_each_tag_by_its_own_curve():
    # sigmoid(score - 3) is 0.5 for the cat and 0.27 for the dog; sigmoid(0 + 5) is 0.99 for the boat.
    likely = TagRules.of(NAMES, calibration=calibration(), min_probability=0.5)
    assert tags(likely) == ["boat", "cat"]
    assert tags(likely, "b") == ["boat"]
    assert tags(TagRules.of(NAMES, calibration=calibration(), min_probability=0.26, threshold=1.5)) == ["cat", "dog"]
    assert tags(TagRules.of(NAMES, calibration=calibration(), min_probability=1.0, always_top=1)) == ["boat"]
