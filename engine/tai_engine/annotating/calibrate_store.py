"""A calibration of the scores of a store: from labelled pictures, review decisions, labelled sentences, or rates.

Shape legend: N items, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tai_engine.calibration.calibration import Calibration
from tai_engine.calibration.calibration_report import CalibrationOutcome, judge
from tai_engine.calibration.fit import Fit, fit_labels, fit_rates
from tai_engine.calibration.thresholds import Target
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.review.decisions import PictureDecision
from tai_engine.review.respelt_decisions import respelt
from tai_engine.sources.ids import spelt_as_known
from tai_engine.spaces import require_same_space
from tai_engine.store import FeatureStore
from tai_engine.tagging.scoring import ScoringConfig, in_effect, score
from tai_engine.tagging.tag_job import vectors_digest
from tai_engine.vocabulary.spelling import comparable_name

Progress = Callable[[int, int], None]

MOST_UNLABELLED = 20_000
"""So many pictures say where a curve lies; more would only take longer."""

HOLD_OUT = 0.3
_FEWEST_HELD_OUT = 20
_SLICE_ITEMS = 256


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labels of some pictures.

    Attributes:
        ids: N names.
        labels: [N, C] int8: +1 there, -1 not there, 0 not known.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int8]

    @classmethod
    def of_decisions(cls, decisions: Mapping[str, PictureDecision], class_names: Sequence[str]) -> Labelled:
        """What people decided in a review; words outside of the classes do not count."""
        decisions = respelt(decisions, lambda _: True, class_names)
        value = {True: 1, False: -1, None: 0}
        rows = [[value[decision.verdict(name)] for name in class_names] for decision in decisions.values()]
        return cls(tuple(decisions), np.array(rows, dtype=np.int8).reshape(len(rows), len(class_names)))


@dataclass(frozen=True, eq=False)
class CalibrationResult:
    """A calibration, and how good one like it is.

    Attributes:
        calibration: fitted on all examples.
        missing: labelled pictures that the store has no features of.
        fitted, held_out: of a calibration fitted on a part of the examples, on that part and on the rest; None where
            nothing was labelled, or too little to hold anything out.
    """

    calibration: Calibration
    missing: int
    fitted: CalibrationOutcome | None
    held_out: CalibrationOutcome | None


def calibrate_by_labels(
    store: FeatureStore,
    prompts: PromptSet,
    scoring: ScoringConfig,
    labelled: Labelled,
    targets: Sequence[Target],
    *,
    made_from: str = "labels",
    hold_out: float = HOLD_OUT,
    seed: int = 0,
    progress: Progress | None = None,
) -> CalibrationResult:
    """Calibrate by labelled pictures of the store.

    Memory: scores of the labelled pictures, several times over in float64, and features of `_SLICE_ITEMS`.

    Args:
        store: of pictures.
        prompts: class vectors of its space.
        scoring: how to score.
        labelled: what some of its pictures show.
        targets: what thresholds have to promise; the first is what is looked at on held-out pictures.
        made_from: ``"labels"`` or ``"decisions"``.
        hold_out: share of the labelled pictures that the figures are taken from.
        seed: of that choice.
        progress: called with pictures scored and in all.

    Raises:
        UserError: when no labelled picture is in the store, or labels are of one kind only.
    """
    inventory = store.inventory()
    names = spelt_as_known(labelled.ids, lambda name: inventory.find(name) is not None)
    rows = [n for n, name in enumerate(names) if (item := inventory.find(name)) and item.status == "done"]
    if not rows:
        example = labelled.ids[0] if labelled.ids else "none"
        raise UserError(
            f"None of the {len(labelled.ids):,} labelled pictures (first {example!r}) is in the store '{store.path}': "
            "ids are paths relative to the folder that was cached."
        )
    ids, labels = [names[n] for n in rows], labelled.labels[rows]

    def slices() -> Iterator[FeatureBatch]:
        for start in range(0, len(ids), _SLICE_ITEMS):
            yield store.read_ids(ids[start : start + _SLICE_ITEMS], with_fine=scoring.which != "coarse")
            if progress:
                progress(min(start + _SLICE_ITEMS, len(ids)), len(ids))

    scores = _scores(slices(), prompts, scoring)
    fit = fit_labels(scores, labels, prompts.class_names, targets)
    calibration = _calibration(fit, prompts, scoring, made_from, len(ids))
    fitted, held_out = _judged(scores, labels, prompts, scoring, targets, hold_out, seed)
    return CalibrationResult(calibration, len(labelled.ids) - len(rows), fitted, held_out)


def calibrate_by_rates(
    store: FeatureStore,
    prompts: PromptSet,
    scoring: ScoringConfig,
    rates: Mapping[str, float],
    progress: Progress | None = None,
) -> CalibrationResult:
    """Calibrate by how frequent each tag is in the collection; nothing is promised.

    Memory: scores of `MOST_UNLABELLED` pictures in float64, and features of `_SLICE_ITEMS`.

    Raises:
        UserError: for a class without a rate, a rate out of range, or too few pictures.
    """
    known = {comparable_name(name): rate for name, rate in rates.items()}
    missing = [name for name in prompts.class_names if comparable_name(name) not in known]
    if missing:
        raise UserError(f"There is no rate for {missing[0]!r} ({len(missing):,} words lack one): every word needs one.")
    most = min(store.counts()["done"], MOST_UNLABELLED)

    def slices() -> Iterator[FeatureBatch]:
        seen = 0
        for batch in store.iter_shuffled(_SLICE_ITEMS, seed=0):
            yield batch
            seen += len(batch)
            if progress:
                progress(min(seen, most), most)
            if seen >= most:
                return

    scores = _scores(slices(), prompts, scoring)
    fit = fit_rates(
        scores, np.array([known[comparable_name(name)] for name in prompts.class_names]), prompts.class_names
    )
    return CalibrationResult(_calibration(fit, prompts, scoring, "rates", len(scores)), 0, None, None)


def calibrate_by_sentences(
    sentences: FeatureStore,
    prompts: PromptSet,
    scoring: ScoringConfig,
    targets: Sequence[Target],
    progress: Progress | None = None,
) -> CalibrationResult:
    """Calibrate by labelled sentences, used as if they were pictures; what is promised holds for sentences.

    Memory: as `calibrate_by_labels`, for at most `MOST_UNLABELLED` sentences.

    Raises:
        UserError: for a store without labels, of other classes or of another space.
    """
    if sentences.spec.labels is None or tuple(sentences.class_names) != tuple(prompts.class_names):
        raise UserError(
            f"The store '{sentences.path}' has no labels of these words: make it with `tai cache texts` and the same "
            "--vocabulary."
        )
    require_same_space(sentences.spec, prompts, f"the store '{sentences.path}'", "the prompt set")
    positions, labels = [], []
    for batch in sentences.iter_coarse(_SLICE_ITEMS):
        positions += batch.positions.tolist()
        assert batch.labels is not None  # the store has some
        labels.append(np.where(batch.labels.numpy(), 1, -1).astype(np.int8))
        if len(positions) >= MOST_UNLABELLED:
            break

    def slices() -> Iterator[FeatureBatch]:
        for start in range(0, len(positions), _SLICE_ITEMS):
            yield sentences.read_items(positions[start : start + _SLICE_ITEMS], with_fine=scoring.which != "coarse")
            if progress:
                progress(min(start + _SLICE_ITEMS, len(positions)), len(positions))

    scores, labels_NC = _scores(slices(), prompts, scoring), np.concatenate(labels)
    fit = fit_labels(scores, labels_NC, prompts.class_names, targets)
    fitted, held_out = _judged(scores, labels_NC, prompts, scoring, targets, HOLD_OUT, 0)
    return CalibrationResult(_calibration(fit, prompts, scoring, "sentences", len(scores)), 0, fitted, held_out)


def _scores(batches: Iterable[FeatureBatch], prompts: PromptSet, scoring: ScoringConfig) -> NDArray[np.float64]:
    with torch.inference_mode():
        found = [score(batch, prompts, scoring).scores.double().cpu().numpy() for batch in batches]
    return np.concatenate([np.zeros((0, len(prompts.class_names))), *found])


def _calibration(fit: Fit, prompts: PromptSet, scoring: ScoringConfig, made_from: str, examples: int) -> Calibration:
    return Calibration(
        class_names=prompts.class_names,
        prompts_sha256=vectors_digest(prompts),
        scoring=asdict(in_effect(scoring, prompts)),
        made_from=made_from,
        examples=examples,
        positives=fit.positives,
        curves=fit.curves,
        steps=fit.steps,
        promises=fit.promises,
    )


def _judged(
    scores_NC: NDArray[np.float64],
    labels_NC: NDArray[np.int8],
    prompts: PromptSet,
    scoring: ScoringConfig,
    targets: Sequence[Target],
    hold_out: float,
    seed: int,
) -> tuple[CalibrationOutcome | None, CalibrationOutcome | None]:
    """How a calibration of one part does on that part and on the rest."""
    order = np.random.default_rng(seed).permutation(len(scores_NC))
    count = round(hold_out * len(order))
    rest, held = order[count:], order[:count]
    both = all((labels_NC[rest] == value).any() for value in (1, -1))
    if count < _FEWEST_HELD_OUT or not both:
        return None, None
    fit = fit_labels(scores_NC[rest], labels_NC[rest], prompts.class_names, targets[:1])
    part = _calibration(fit, prompts, scoring, "labels", len(rest))
    promise = part.promises[0] if part.promises else None
    return tuple(judge(part, scores_NC[rows], labels_NC[rows], promise) for rows in (rest, held))  # type: ignore[return-value]
