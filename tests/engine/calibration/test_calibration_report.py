"""Precision, recall and errors of a calibration, counted by hand."""

import io

import numpy as np
import pytest
from PIL import Image

from tai_engine.calibration.calibration import Calibration, Promise
from tai_engine.calibration.calibration_report import draw_reliability, judge
from tai_engine.calibration.logistic import LogisticCurves
from tai_engine.calibration.thresholds import Target, Threshold

SCORES = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 5.0], [-1.0, -5.0]])
LABELS = np.array([[1, 0], [-1, 1], [1, 1], [-1, -1]], dtype=np.int8)


HALF = Promise(Target("precision", 0.5), (Threshold(1.0, 0.5, 0.5), Threshold(None, reason="too few")))


def calibration():
    return Calibration(
        ("cat", "dog"),
        "ab",
        {},
        "labels",
        4,
        (2, 2),
        LogisticCurves(np.zeros(2), np.array([1.0, 0.0])),
        promises=(HALF,),
    )


def test_counts_by_hand():
    found = judge(calibration(), SCORES, LABELS, HALF)
    assert found.items == 4
    cat, dog = found.tags
    assert (cat.name, cat.positives, cat.tagged, cat.precision, cat.recall) == ("cat", 2, 2, 0.5, 0.5)
    # The unknown label of the first picture does not count, and a tag without a threshold is never given.
    assert (dog.positives, dog.tagged, dog.precision, dog.recall) == (2, 0, None, 0.0)
    assert dog.brier == pytest.approx(0.25)
    assert dog.error == pytest.approx(2 / 3 - 0.5)
    assert (found.precision, found.recall) == (0.5, 0.25)
    p = 1 / (1 + np.exp(-SCORES[:, 0]))
    assert cat.brier == pytest.approx(((p - [1, 0, 1, 0]) ** 2).mean())
    assert found.brier == pytest.approx((4 * cat.brier + 3 * dog.brier) / 7)


def test_without_a_target_there_is_no_precision():
    found = judge(calibration(), SCORES, LABELS)
    assert (found.precision, found.recall, found.tags[0].tagged) == (None, None, None)


def test_no_picture_at_all():
    found = judge(calibration(), SCORES[:0], LABELS[:0], HALF)
    assert found.items == 0
    assert np.isnan(found.brier)
    assert draw_reliability(found, None)


def test_the_plot_is_a_picture_of_both():
    found = judge(calibration(), SCORES, LABELS, HALF)
    with Image.open(io.BytesIO(draw_reliability(found, found))) as picture:
        assert picture.format == "PNG"
        assert picture.size == (720, 768)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50
