"""Whether one run's chosen tags are better than another's: CF1 and OF1 by the same draws of pictures for both.

Shape legend: N items, C classes, R draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tai_engine.evaluation.draws import DRAWS, Floats, Interval, PictureDraws, interval_of
from tai_engine.evaluation.multilabel import Bools


@dataclass(frozen=True)
class PairedIntervals:
    """One measure of two runs on the same pictures.

    Attributes:
        first, second: of each run.
        difference: second minus first.
    """

    first: Interval
    second: Interval
    difference: Interval


def compare_f1(
    first_NC: Bools,
    second_NC: Bools,
    labels_NC: NDArray[np.integer],
    *,
    ignore_difficult: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[PairedIntervals, PairedIntervals]:
    """CF1 and OF1 of two choices of tags, as `tag_measures` defines them.

    Memory: 64 MB of draws, and three times the choices as float64.

    Args:
        first_NC, second_NC: [N, C] bool, the tags that each run chose.
        labels_NC: [N, C] +1, 0 (difficult) and -1.
        ignore_difficult: leave difficult labels out instead of taking them for negatives.
        draws: R.
        seed: of the draws.

    Raises:
        ValueError: for shapes that do not fit.
    """
    labels = np.asarray(labels_NC)
    if first_NC.shape != labels.shape or second_NC.shape != labels.shape:
        raise ValueError(f"choices are {first_NC.shape} and {second_NC.shape}, labels {labels.shape}")
    counted = labels != 0 if ignore_difficult else np.ones(labels.shape, dtype=bool)
    pictures = PictureDraws(len(labels), draws, seed)
    one, two = (_f1(chosen & counted, labels == 1, pictures) for chosen in (first_NC, second_NC))
    return _paired(one[:, 0], two[:, 0]), _paired(one[:, 1], two[:, 1])


def _f1(chosen_NC: Bools, there_NC: Bools, pictures: PictureDraws) -> Floats:
    """[1 + R, 2] CF1 and OF1: of the items as they are, then of each draw."""
    counts = [part.astype(np.float64) for part in (chosen_NC & there_NC, chosen_NC, there_NC)]
    result = np.empty((1 + len(pictures), 2))
    result[:1] = _of_counts(*(part.sum(axis=0, keepdims=True) for part in counts))
    for rows, block in pictures.blocks():
        weights = block.astype(np.float64)
        result[1 + rows.start : 1 + rows.stop] = _of_counts(*(weights @ part for part in counts))
    return result


def _of_counts(right_RC: Floats, chosen_RC: Floats, there_RC: Floats) -> Floats:
    by_class = _harmonic(_ratio(right_RC, chosen_RC).mean(axis=1), _ratio(right_RC, there_RC).mean(axis=1))
    right, chosen, there = (part.sum(axis=1) for part in (right_RC, chosen_RC, there_RC))
    return np.stack([by_class, _harmonic(_ratio(right, chosen), _ratio(right, there))], axis=1)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _harmonic(one: Floats, other: Floats) -> Floats:
    return _ratio(2 * one * other, one + other)


def _paired(one: Floats, two: Floats) -> PairedIntervals:
    """From values of which the first is that of the items as they are."""
    return PairedIntervals(*(interval_of(float(part[0]), part[1:]) for part in (one, two, two - one)))
