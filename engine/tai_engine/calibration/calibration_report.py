"""How good a calibration is, on the pictures that it was found on and on pictures held out, kept apart."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tai_engine.calibration.calibration import Calibration, Promise
from tai_engine.evaluation.reliability import Reliability, brier_score, reliability


@dataclass(frozen=True)
class TagOutcome:
    """One tag on some pictures.

    Attributes:
        name: of the tag.
        positives: pictures that have it.
        brier: of its probabilities.
        error: expected calibration error of its probabilities.
        tagged: pictures at or above its threshold; None without one.
        precision: share of right ones among them; None as above, or where there are none.
        recall: share of the positives that is among them; None as above, or where there are none.
    """

    name: str
    positives: int
    brier: float
    error: float
    tagged: int | None
    precision: float | None
    recall: float | None


@dataclass(frozen=True, eq=False)
class CalibrationOutcome:
    """All tags on some pictures.

    Attributes:
        items: pictures with a known label.
        reliability: of the probabilities of all tags together.
        brier: likewise.
        tags: one row a tag.
        precision: share of right ones among all tags at or above their thresholds; None where there are none.
        recall: share of all positives that is among them; None without thresholds.
    """

    items: int
    reliability: Reliability
    brier: float
    tags: tuple[TagOutcome, ...]
    precision: float | None
    recall: float | None


def judge(
    calibration: Calibration,
    scores_NC: NDArray[np.floating],
    labels_NC: NDArray[np.int8],
    promise: Promise | None = None,
) -> CalibrationOutcome:
    """Hold a calibration against labels.

    Memory: a few arrays of [N, C] float64.

    Args:
        calibration: of C tags.
        scores_NC: [N, C].
        labels_NC: [N, C] int8: +1 there, -1 not there, 0 not known.
        promise: whose thresholds are looked at; None looks at probabilities alone.
    """
    p_NC, known_NC, positives_NC = calibration.probabilities(scores_NC), labels_NC != 0, labels_NC == 1
    has_target = promise is not None
    least_C = np.full(len(calibration.class_names), np.inf) if promise is None else promise.least_scores
    chosen_NC = (scores_NC >= least_C) & known_NC
    tags = []
    for c, name in enumerate(calibration.class_names):
        known = known_NC[:, c]
        p, y, chosen = p_NC[known, c], positives_NC[known, c], chosen_NC[known, c]
        right = int((chosen & y).sum())
        tags.append(
            TagOutcome(
                name=name,
                positives=int(y.sum()),
                brier=brier_score(p, y),
                error=reliability(p, y).error,
                tagged=int(chosen.sum()) if has_target else None,
                precision=_share(right, int(chosen.sum())) if has_target else None,
                recall=_share(right, int(y.sum())) if has_target else None,
            )
        )
    right = int((chosen_NC & positives_NC).sum())
    return CalibrationOutcome(
        items=int(known_NC.any(axis=1).sum()),
        reliability=reliability(p_NC[known_NC], positives_NC[known_NC]),
        brier=brier_score(p_NC[known_NC], positives_NC[known_NC]),
        tags=tuple(tags),
        precision=_share(right, int(chosen_NC.sum())) if has_target else None,
        recall=_share(right, int(positives_NC.sum())) if has_target else None,
    )


def draw_reliability(fitted: CalibrationOutcome | None, held_out: CalibrationOutcome | None) -> bytes:
    """A PNG: predicted probability against the share of right ones, the diagonal being perfect; below it, how many
    probabilities each point stands for."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6.4), dpi=120, layout="constrained", facecolor="white")
    above, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    above.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="perfect")
    for outcome, name, marker, colour in (
        (fitted, "fitted on", "o", "#1f6feb"),
        (held_out, "held out", "s", "#c2410c"),
    ):
        if outcome is None or not len(outcome.reliability.counts):
            continue
        curve = outcome.reliability
        label = f"{name}: {outcome.items:,} pictures, error {curve.error:.4f}, Brier {outcome.brier:.4f}"
        above.plot(curve.predicted, curve.observed, marker=marker, markersize=4, color=colour, label=label)
        below.plot(curve.predicted, curve.counts, marker=marker, markersize=3, color=colour, linewidth=1)
    above.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="share of right ones")
    below.set(xlabel="predicted probability", ylabel="count", yscale="log")
    above.legend(loc="upper left", frameon=False, fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
