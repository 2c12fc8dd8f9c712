"""How good probabilities and promises are, by the number of labelled pictures: on the TaI-DPT authors' VOC2007 scores.

    TAI_DATA=<folder> python -m tai_benchmarks.calibration_table [--seeds 5]

Half of the pictures is drawn to be labelled, some or all of it; the other half is held out. Scores are coarse and fine
merged half and half, minus each picture's mean. Prints a row per number of labelled pictures and way of calibrating.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tai_engine.calibration.calibration import Promise
from tai_engine.calibration.fit import Fit, fit_labels, fit_rates
from tai_engine.calibration.thresholds import Target
from tai_engine.evaluation.reliability import brier_score, reliability

FILE = "voc2007_test_taidpt_rn50_scores.npz"
LABELLED = (10, 30, 100, 300, 1000, 2476)
PRECISION = 0.9

Floats = NDArray[np.float64]
Labels = NDArray[np.int8]


@dataclass(frozen=True)
class CalibrationRow:
    """One way of calibrating, on held-out pictures.

    Attributes:
        made_from: labels or rates.
        labelled: pictures.
        error: expected calibration error.
        brier: Brier score.
        promise: each or together; empty where nothing is promised.
        kept: tags that can promise it.
        precision: share of right ones among the tags given; NaN where there are none.
        recall: share of all labels that is among them.
    """

    made_from: str
    labelled: int
    error: float
    brier: float
    promise: str
    kept: int
    precision: float
    recall: float


def rows(scores_NC: Floats, labels_NC: Labels, labelled: Sequence[int], seed: int) -> Iterator[CalibrationRow]:
    """The table for one drawing of the halves."""
    order = np.random.default_rng(seed).permutation(len(scores_NC))
    half = len(order) // 2
    names = tuple(map(str, range(scores_NC.shape[1])))
    held = scores_NC[order[half:]], labels_NC[order[half:]]
    for count in labelled:
        some = order[: min(count, half)]
        for together in (False, True):
            target = Target("precision", PRECISION, together=together)
            fit = fit_labels(scores_NC[some], labels_NC[some], names, [target])
            yield _row("labels", len(some), fit, fit.promises[0], *held)
    rates = (labels_NC[order[:half]] == 1).mean(axis=0)
    yield _row("rates", 0, fit_rates(scores_NC[order[:half]], rates, names), None, *held)


def _row(
    made_from: str, labelled: int, fit: Fit, promise: Promise | None, scores_NC: Floats, labels_NC: Labels
) -> CalibrationRow:
    known, there = labels_NC != 0, labels_NC == 1
    p = fit.curves.probabilities(scores_NC)
    least = np.full(scores_NC.shape[1], np.inf) if promise is None else promise.least_scores
    given = (scores_NC >= least) & known
    right = int((given & there).sum())
    return CalibrationRow(
        made_from,
        labelled,
        reliability(p[known], there[known]).error,
        brier_score(p[known], there[known]),
        "" if promise is None else "together" if promise.target.together else "each",
        0 if promise is None else promise.kept,
        right / int(given.sum()) if given.any() else float("nan"),
        right / int(there.sum()),
    )


def main() -> None:
    """Print the mean of the table over some drawings of the halves."""
    parser = argparse.ArgumentParser(description="Calibration by the number of labelled pictures.")
    parser.add_argument("--seeds", type=int, default=1)
    seeds = parser.parse_args().seeds
    data = os.environ.get("TAI_DATA")
    if not data:
        sys.exit("calibration_table needs outside data: set TAI_DATA to its folder.")
    saved = np.load(Path(data) / FILE)
    scores = (saved["a"].astype(np.float64) + saved["b"]) / 2
    scores -= scores.mean(axis=1, keepdims=True)
    tables = [list(rows(scores, saved["labels"].astype(np.int8), LABELLED, seed)) for seed in range(seeds)]
    print("   from labelled     ECE   Brier   promise  kept precision  recall")
    for same in zip(*tables, strict=True):
        first = same[0]
        error, brier, kept, precision, recall = (
            _mean([getattr(row, name) for row in same]) for name in ("error", "brier", "kept", "precision", "recall")
        )
        print(
            f"{first.made_from:>7} {first.labelled:>8,} {error:7.4f} {brier:7.4f} {first.promise:>9} {kept:5.1f} "
            f"{precision:9.3f} {recall:7.3f}"
        )


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


if __name__ == "__main__":
    main()
