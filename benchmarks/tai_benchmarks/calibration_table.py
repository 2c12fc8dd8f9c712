"""How good probabilities and promises are, by what they were made from: labelled pictures, sentences alone, or rates.

    TAI_DATA=<folder> python -m tai_benchmarks.calibration_table [--seeds 5] > benchmarks/results/calibration.md

Half of the pictures is drawn to be labelled, some or all of it; all figures are of the other half, which is held out.
From sentences alone: a curve per tag from captions and the words in them, as `tai calibrate --sentences` makes it. From
rates: each tag's share of the labelled half, as somebody knows it who knows the collection. From rates of captions: the
share of captions that name it, with no picture looked at at all. Prints Markdown; without ``TAI_DATA`` the figures of
the embedded model alone.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tai_benchmarks.calibration_sources import (
    Floats,
    LabelledScores,
    Labels,
    clip_scores,
    photograph_scores,
    voc_scores,
)
from tai_engine.calibration.calibration import Promise
from tai_engine.calibration.fit import Fit, fit_labels, fit_rates
from tai_engine.calibration.thresholds import Target
from tai_engine.evaluation.reliability import brier_score, reliability

LABELLED = (10, 30, 100, 300, 1000, 2476)
PRECISION = 0.9
_HEADINGS = (
    "made from", "examples", "calibration error", "Brier score", "promise", "tags that can", "precision", "recall",
)  # fmt: skip


@dataclass(frozen=True)
class CalibrationRow:
    """One way of calibrating, on held-out pictures.

    Attributes:
        made_from: labels, sentences, rates, or rates of captions.
        examples: labelled pictures, or sentences; 0 for rates that somebody knows.
        error: expected calibration error.
        brier: Brier score.
        promise: each or together; empty where nothing is promised.
        kept: tags that can promise it.
        precision: share of right ones among the tags given; NaN where there are none.
        recall: share of all labels that is among them.
    """

    made_from: str
    examples: int
    error: float
    brier: float
    promise: str
    kept: float
    precision: float
    recall: float


def rows(source: LabelledScores, labelled: Sequence[int], seed: int) -> Iterator[CalibrationRow]:
    """The table of one source for one drawing of the halves; no more labelled pictures than its half has."""
    order = np.random.default_rng(seed).permutation(len(source.scores))
    half = len(order) // 2
    names = tuple(map(str, range(source.scores.shape[1])))
    held = source.scores[order[half:]], source.labels[order[half:]]
    for count in dict.fromkeys(min(count, half) for count in labelled):
        yield from _by_labels("labels", source.scores[order[:count]], source.labels[order[:count]], names, held)
    seen = source.scores[order[:half]]
    yield _row("rates", 0, fit_rates(seen, _rates(source.labels[order[:half]]), names), None, *held)
    if len(source.sentence_labels):
        yield from _by_labels("sentences", source.sentence_scores, source.sentence_labels, names, held)
        fit = fit_rates(seen, _rates(source.sentence_labels), names)
        yield _row("rates of captions", len(source.sentence_labels), fit, None, *held)


def _by_labels(
    made_from: str, scores: Floats, labels: Labels, names: tuple[str, ...], held: tuple[Floats, Labels]
) -> Iterator[CalibrationRow]:
    for together in (False, True):
        target = Target("precision", PRECISION, together=together)
        fit = fit_labels(scores, labels, names, [target])
        yield _row(made_from, len(scores), fit, fit.promises[0], *held)


def _rates(labels_NC: Labels) -> NDArray[np.float64]:
    """[C] share of the items that have each class, with half an item of either kind added: none is 0 or 1."""
    return np.asarray(((labels_NC == 1).sum(axis=0) + 0.5) / ((labels_NC != 0).sum(axis=0) + 1))


def _row(
    made_from: str, examples: int, fit: Fit, promise: Promise | None, scores_NC: Floats, labels_NC: Labels
) -> CalibrationRow:
    known, there = labels_NC != 0, labels_NC == 1
    p = fit.curves.probabilities(scores_NC)
    least = np.full(scores_NC.shape[1], np.inf) if promise is None else promise.least_scores
    given = (scores_NC >= least) & known
    right = int((given & there).sum())
    return CalibrationRow(
        made_from,
        examples,
        reliability(p[known], there[known]).error,
        brier_score(p[known], there[known]),
        "" if promise is None else "together" if promise.target.together else "each",
        0 if promise is None else promise.kept,
        right / int(given.sum()) if given.any() else float("nan"),
        right / int(there.sum()),
    )


def mean_rows(tables: Sequence[Sequence[CalibrationRow]]) -> list[CalibrationRow]:
    """The mean of each row over some drawings; a precision of nothing does not count."""

    def mean(same: Sequence[CalibrationRow], name: str) -> float:
        known = [value for row in same if not np.isnan(value := getattr(row, name))]
        return float(np.mean(known)) if known else float("nan")

    numbers = ("error", "brier", "kept", "precision", "recall")
    return [
        CalibrationRow(
            same[0].made_from, same[0].examples, promise=same[0].promise, **{name: mean(same, name) for name in numbers}
        )
        for same in zip(*tables, strict=True)
    ]


def markdown(source: LabelledScores, found: Sequence[CalibrationRow]) -> str:
    """A heading, what the source is, and its table."""
    lines = [f"## {source.name}", "", f"{source.remark}.", "", "| " + " | ".join(_HEADINGS) + " |", "|---" * 8 + "|"]
    for row in found:
        examples = f"{row.examples:,}" if row.examples else ""
        promised = ("", "", "", "")
        if row.promise:
            precision = "none given" if np.isnan(row.precision) else f"{row.precision:.3f}"
            promised = (row.promise, f"{row.kept:.1f}", precision, f"{row.recall:.3f}")
        cells = (row.made_from, examples, f"{row.error:.4f}", f"{row.brier:.4f}", *promised)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the mean of the tables over some drawings of the halves."""
    parser = argparse.ArgumentParser(description="Calibration by what it is made from.")
    parser.add_argument("--seeds", type=int, default=1)
    seeds = parser.parse_args().seeds
    data = os.environ.get("TAI_DATA")
    sources = [voc_scores(Path(data)), clip_scores(Path(data))] if data else []
    print(f"# Calibration, on held-out pictures: means of {seeds} drawings, promises of a precision of {PRECISION:g}\n")
    print("    TAI_DATA=<folder> python -m tai_benchmarks.calibration_table --seeds", seeds, end="\n\n")
    for source in [*sources, photograph_scores()]:
        found = mean_rows([list(rows(source, LABELLED, seed)) for seed in range(seeds)])
        print(markdown(source, found), flush=True)


if __name__ == "__main__":
    main()
