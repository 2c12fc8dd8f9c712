"""What a threshold of tags does: counted by hand."""

import numpy as np
import pytest

from tai_benchmarks.tag_threshold_choice import THRESHOLDS, figures, threshold_table

SCORES = np.array([[4.1, 2.6, 0.0], [2.1, 3.1, 0.0], [0.5, 0.0, 1.0]], dtype=np.float32)
LABELS = np.array([[1, -1, -1], [-1, 1, 1], [-1, -1, 1]], dtype=np.int8)


def test_figures():
    found = figures(SCORES, LABELS, 2.5)
    # Tagged: (0, 0), (0, 1) and (1, 1), two of which are shown; shown are four.
    assert found == pytest.approx((1.0, 1 / 3, 2 / 3, 2 / 4))
    assert found.f1 == pytest.approx(4 / 7)
    nothing = figures(SCORES, LABELS, 9.0)
    assert (*nothing, nothing.f1) == (0, 1, 0, 0, 0)


def test_lines():
    lines = list(threshold_table("words", SCORES, LABELS))
    assert len(lines) == len(THRESHOLDS)
    assert lines[2] == "| words | 2.5 | 1.0 | 33 | 67 | 50 | 57.1 |"
    assert lines[3] == "| words | 2.75 | 0.7 | 33 | 100 | 50 | **66.7** |"
