"""Which tags of a picture are written, where more than a number or one threshold decides.

In this order:

1. Words that are never wanted are taken out.
2. Of the rest those stay that reach their threshold: one for all, or a tag's own, by which a calibration keeps a
   promise of precision, and that are as probable as is asked. A tag whose promise cannot be kept is not written.
3. The best few are written whatever their threshold, where that is wanted.
4. At most so many are written, best first.

The best is the most probable where scores are calibrated, else the highest score; of equals the earlier class.

Shape legend: N items, C classes, M tags.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tai_engine.calibration.calibration import Calibration
from tai_engine.tagging.arrow_columns import number_column, text_column
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA
from tai_engine.vocabulary.spelling import comparable_name


@dataclass(frozen=True, eq=False)
class TagRules:
    """Rules for one vocabulary; see the module.

    Attributes:
        class_names: C names.
        allowed: [C] bool, the words that may be written.
        least: [C] float64 scores, minus infinity for no threshold and plus infinity for a promise that cannot be kept.
        least_probability: that is written; 0 for no limit.
        has_threshold: whether the column ``threshold`` is filled.
        always_top: so many of each picture are written whatever their threshold.
        top_k: at most so many.
        calibration: of the scores; None leaves the column ``probability`` empty.
    """

    class_names: tuple[str, ...]
    allowed: NDArray[np.bool_]
    least: NDArray[np.float64]
    least_probability: float
    has_threshold: bool
    always_top: int
    top_k: int | None
    calibration: Calibration | None

    @classmethod
    def of(
        cls,
        class_names: tuple[str, ...],
        *,
        never: Iterable[str] = (),
        threshold: float | None = None,
        min_precision: float | None = None,
        min_probability: float | None = None,
        always_top: int = 0,
        top_k: int | None = None,
        calibration: Calibration | None = None,
    ) -> TagRules:
        """Rules from what a user asks for; case, underscores, blanks and how accents are composed do not
        matter in words of ``never``, and those that are no class have no effect.

        Raises:
            UserError: for a precision that the calibration does not promise.
        """
        unwanted = frozenset(map(comparable_name, never))
        least = np.full(len(class_names), -np.inf if threshold is None else threshold)
        if min_precision is not None and calibration is not None:
            least = np.maximum(least, calibration.promise("precision", min_precision).least_scores)
        return cls(
            class_names,
            np.array([comparable_name(name) not in unwanted for name in class_names], dtype=bool),
            least,
            min_probability or 0.0,
            threshold is not None or min_precision is not None,
            always_top,
            top_k,
            calibration,
        )

    def table(self, ids: tuple[str, ...], scores_NC: NDArray[np.float32]) -> pa.Table:
        """The rows of the tag table for some pictures, best first.

        Memory: a few arrays of [N, C].

        Args:
            ids: N names.
            scores_NC: [N, C] fp32 finite, as they are written.
        """
        probabilities = None if self.calibration is None else self.calibration.probabilities(scores_NC)
        worth = np.array(scores_NC if probabilities is None else probabilities, dtype=np.float64)
        worth[:, ~self.allowed] = -np.inf
        order_NC = np.argsort(-worth, axis=1, kind="stable")
        written_NC = (scores_NC >= self.least) & self.allowed
        if probabilities is not None:
            written_NC &= probabilities >= self.least_probability
        written_NC = np.take_along_axis(written_NC, order_NC, axis=1)
        if self.always_top:
            written_NC[:, : self.always_top] |= self.allowed[order_NC[:, : self.always_top]]
        if self.top_k is not None:
            written_NC &= np.cumsum(written_NC, axis=1) <= self.top_k
        rows_M, places_M = np.nonzero(written_NC)
        classes_M = order_NC[rows_M, places_M]
        nothing = pa.nulls(len(rows_M), pa.float32())
        least_M = self.least[classes_M]
        return pa.table(
            {
                "id": text_column(ids).take(number_column(rows_M, pa.int32())),
                "tag": text_column(self.class_names).take(number_column(classes_M, pa.int32())),
                "score": number_column(scores_NC[rows_M, classes_M], pa.float32()),
                "probability": nothing
                if probabilities is None
                else number_column(probabilities[rows_M, classes_M], pa.float32()),
                "threshold": number_column(least_M, pa.float32(), ~np.isfinite(least_M))
                if self.has_threshold
                else nothing,
            },
            schema=TAG_SCHEMA,
        )


def without_effect(never: Iterable[str], class_names: Iterable[str]) -> list[str]:
    """The words of ``never`` that are no class, whatever their case, underscores, blanks and accents."""
    known = frozenset(map(comparable_name, class_names))
    return [word for word in never if comparable_name(word) not in known]
