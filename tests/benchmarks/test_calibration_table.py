"""The table's figures are those of the held-out half."""

import numpy as np

from tai_benchmarks.calibration_table import rows


def test_each_row_is_counted_on_the_other_half():
    random = np.random.default_rng(0)
    labels = np.where(random.random((800, 3)) < 0.3, 1, -1).astype(np.int8)
    scores = 3.0 * labels + random.normal(size=labels.shape)  # told apart nearly without error
    found = list(rows(scores, labels, (100, 400), seed=1))
    assert [(row.made_from, row.labelled, row.promise) for row in found] == [
        ("labels", 100, "each"),
        ("labels", 100, "together"),
        ("labels", 400, "each"),
        ("labels", 400, "together"),
        ("rates", 0, ""),
    ]
    for row in found[2:4]:
        assert row.kept == 3
        assert row.precision > 0.9
        assert row.recall > 0.9
        assert row.error < 0.02
    assert found[-1].kept == 0
    assert np.isnan(found[-1].precision)
    assert found[-1].recall == 0
