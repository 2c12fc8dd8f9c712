"""What scores mean: a probability curve and a threshold per tag, as a file of its own.

It belongs to one prompt set, scored and normalised in one way; tags of others are refused. The file is JSON, so that
people can read how each tag's threshold was found.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tai_engine.calibration.logistic import LogisticCurves
from tai_engine.calibration.thresholds import Target, Threshold
from tai_engine.errors import ItemError, UserError, reason_of
from tai_engine.files import write_atomically
from tai_engine.json_documents import read_json

Floats = NDArray[np.float64]

FORMAT = "tai-calibration"
VERSION = 1
_MOST_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Steps:
    """A rising curve through points, flat beyond them.

    Attributes:
        scores: ascending.
        probabilities: as many, none below the one before.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Promise:
    """What is promised of the tags at or above their thresholds.

    Attributes:
        target: what, of each tag alone or of all together.
        thresholds: one a tag.
    """

    target: Target
    thresholds: tuple[Threshold, ...]

    @property
    def least_scores(self) -> Floats:
        """[C] the thresholds; plus infinity for tags whose promise cannot be kept."""
        return np.array([math.inf if t.score is None else t.score for t in self.thresholds])

    @property
    def kept(self) -> int:
        """For how many tags it can be kept."""
        return sum(t.score is not None for t in self.thresholds)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Probabilities and thresholds of the scores of one prompt set.

    Attributes:
        class_names: C names.
        prompts_sha256: of the class vectors, as tag files carry it.
        scoring: how scores were made, as tag files carry it.
        made_from: ``"labels"``, ``"sentences"``, ``"rates"`` or ``"decisions"``.
        examples: pictures (or sentences) that it was found on.
        positives: [C] how many of them have the tag.
        curves: logistic, of all tags.
        steps: finer curves of tags with very many labels, by name.
        promises: thresholds for some targets; none where nothing was labelled.
    """

    class_names: tuple[str, ...]
    prompts_sha256: str
    scoring: Mapping[str, Any]
    made_from: str
    examples: int
    positives: tuple[int, ...]
    curves: LogisticCurves
    steps: Mapping[str, Steps] = field(default_factory=dict)
    promises: tuple[Promise, ...] = ()

    def probabilities(self, scores_NC: NDArray[np.floating]) -> Floats:
        """[N, C] float64 between 0 and 1; minus infinity (not written) gives 0."""
        scores = np.asarray(scores_NC, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            found = np.where(np.isneginf(scores), 0.0, self.curves.probabilities(scores))
        for name, curve in self.steps.items():
            column = self.class_names.index(name)
            found[:, column] = np.interp(scores[:, column], curve.scores, curve.probabilities)
        return np.asarray(found)

    def promise(self, goal: str, value: float) -> Promise:
        """The thresholds for a target.

        Raises:
            UserError: when there are none for it; lists those that there are.
        """
        for promise in self.promises:
            if promise.target.goal == goal and math.isclose(promise.target.value, value):
                return promise
        known = (
            ", ".join(f"{p.target.goal} {p.target.value:g}" for p in self.promises) or "none, as nothing was labelled"
        )
        raise UserError(
            f"The calibration has no thresholds for a {goal} of {value:g} (it has: {known}): "
            f"make it again with `tai calibrate --promise {goal}={value:g}`, or take one of these."
        )

    def require_fits(self, class_names: Sequence[str], prompts_sha256: str, scoring: Mapping[str, Any]) -> None:
        """Refuse scores of other prompts, or scores that were made in another way.

        Raises:
            UserError: says what differs.
        """
        again = "calibrate again with tags of these prompts (`tai calibrate`)"
        if tuple(class_names) != self.class_names or prompts_sha256 != self.prompts_sha256:
            raise UserError(
                f"The calibration is for other prompts ({len(self.class_names):,} words, "
                f"{self.prompts_sha256[:12]}) than these ({len(class_names):,} words, {prompts_sha256[:12]}): {again}."
            )
        different = [
            f"{name} is {self.scoring.get(name)!r} there and {scoring.get(name)!r} here"
            for name in sorted({*self.scoring, *scoring})
            if self.scoring.get(name) != scoring.get(name)
        ]
        if different:
            raise UserError(f"The calibration is for other scores: {'; '.join(different)}; score alike, or {again}.")

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of all that it says."""
        return hashlib.sha256(json.dumps(self._as_json(), sort_keys=True).encode()).hexdigest()[:16]

    def save(self, path: str | Path) -> None:
        """Write JSON, whole or not at all.

        Raises:
            UserError: when the place cannot be written.
        """
        write_atomically(path, json.dumps(self._as_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def _as_json(self) -> dict[str, Any]:
        numbers = zip(self.curves.intercepts.tolist(), self.curves.slopes.tolist(), strict=True)
        tags = [
            {"name": name, "positives": count, "intercept": intercept, "slope": slope}
            | ({"steps": asdict(self.steps[name])} if name in self.steps else {})
            for name, count, (intercept, slope) in zip(self.class_names, self.positives, numbers, strict=True)
        ]
        return {
            "format": FORMAT,
            "version": VERSION,
            "made_from": self.made_from,
            "examples": self.examples,
            "prompts_sha256": self.prompts_sha256,
            "scoring": dict(self.scoring),
            "tags": tags,
            "promises": [
                {"target": asdict(p.target), "thresholds": [asdict(threshold) for threshold in p.thresholds]}
                for p in self.promises
            ],
        }

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            UserError: if there is no such file, or it is no whole calibration of this version.
        """
        path = Path(path)
        try:
            return _from_json(read_json(path, _MOST_BYTES))
        except (ItemError, ValueError, KeyError, TypeError, OverflowError, AttributeError) as error:
            if isinstance(error, ItemError) and error.reason == "missing":
                raise UserError(f"There is no calibration at '{path}': make one with `tai calibrate`.") from error
            cause = f"it lacks {error}" if isinstance(error, KeyError) else reason_of(error)
            raise UserError(
                f"'{path}' is not a calibration that `tai calibrate` made ({cause}): make it again."
            ) from error


def _from_json(value: dict[str, Any]) -> Calibration:
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ValueError(f"it does not say that its format is {FORMAT!r}")
    if value["version"] != VERSION:
        raise ValueError(f"it has version {value['version']!r} and this program reads {VERSION}")
    tags = value["tags"]
    names = tuple(str(tag["name"]) for tag in tags)
    if not names or len(set(names)) != len(names):
        raise ValueError("its tags are none or not unique")
    curves = np.array([(tag["intercept"], tag["slope"]) for tag in tags], dtype=np.float64)
    if (curves[:, 1] < 0).any():
        raise ValueError("a curve falls")
    promises = tuple(
        Promise(Target(**entry["target"]), tuple(map(_threshold, entry["thresholds"]))) for entry in value["promises"]
    )
    if any(len(promise.thresholds) != len(names) for promise in promises):
        raise ValueError("a promise has not one threshold a tag")
    return Calibration(
        class_names=names,
        prompts_sha256=str(value["prompts_sha256"]),
        scoring=dict(value["scoring"]),
        made_from=str(value["made_from"]),
        examples=int(value["examples"]),
        positives=tuple(int(tag["positives"]) for tag in tags),
        curves=LogisticCurves(curves[:, 0], curves[:, 1]),
        steps={str(tag["name"]): _steps(tag["steps"]) for tag in tags if "steps" in tag},
        promises=promises,
    )


def _steps(value: dict[str, Any]) -> Steps:
    scores, probabilities = (np.array(value[key], dtype=np.float64) for key in ("scores", "probabilities"))
    if scores.shape != probabilities.shape or scores.ndim != 1 or not len(scores):
        raise ValueError("a curve's points do not fit")
    if (np.diff(scores) < 0).any() or (np.diff(probabilities) < 0).any():
        raise ValueError("a curve's points fall")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("a curve leaves 0 to 1")
    return Steps(tuple(scores.tolist()), tuple(probabilities.tolist()))


def _threshold(value: dict[str, Any]) -> Threshold:
    threshold = Threshold(**value)
    numbers = (threshold.score, threshold.bound, threshold.found)
    if not all(number is None or math.isfinite(float(number)) for number in numbers):
        raise ValueError("a threshold is not finite")
    return threshold
