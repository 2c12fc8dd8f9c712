"""A file of tags against the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tai_engine.errors import MANY, UserError
from tai_engine.evaluation.class_splits import ALL_GROUPS, ClassSplits
from tai_engine.evaluation.measures import AveragePrecisions, mean_average_precision
from tai_engine.evaluation.multilabel import Bools, TagMeasures, coverage, tag_measures, top_k
from tai_engine.evaluation.truth import Truth, TruthOptions, load_truth
from tai_engine.json_documents import parse_json
from tai_engine.regular_files import printable
from tai_engine.sentences.built_in import BUILT_IN, captioned_pictures
from tai_engine.sources.ids import spelt_as_known
from tai_engine.tagging.tag_file import TagFile, read_tag_file

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class EvaluationRules:
    """What is counted, and how.

    Attributes:
        difficult: one of `DIFFICULT_RULES`.
        interpolation: of average precision, one of `INTERPOLATIONS`.
        top_k: so many of the best tags of each picture are its tags, for precision, recall and F1; None is not asked.
        threshold: or those with this score or more.

    Raises:
        UserError: for both of them, or a number of tags below 1.
    """

    difficult: str = "as-negative"
    interpolation: str = "area"
    top_k: int | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.top_k is not None and self.threshold is not None:
            raise UserError("--top-k and --threshold each say which tags count for F1: leave one of them out.")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"--top-k is {self.top_k}; it has to be 1 or more.")

    @property
    def chooses(self) -> bool:
        """Whether tags are chosen, so that precision, recall and F1 can be told."""
        return self.top_k is not None or self.threshold is not None

    def chosen(self, scores_NC: Scores) -> Bools:
        """[N, C] bool: the tags that count; a class that was not written never does."""
        if self.threshold is not None:
            return scores_NC >= np.float32(self.threshold)
        least = np.finfo(scores_NC.dtype).min
        return top_k(np.maximum(scores_NC, least), self.top_k or 0) & np.isfinite(scores_NC)


@dataclass(frozen=True)
class GroupEvaluation:
    """Some of the classes.

    Attributes:
        name: of the group.
        classes: how many it has.
        mean: mAP over those with positives.
        tags: of the tags chosen among these classes alone; None if none were asked for.
    """

    name: str
    classes: int
    mean: float
    tags: TagMeasures | None


@dataclass(frozen=True, eq=False)
class TagEvaluation:
    """Average precisions of a file of tags, and what to know about them.

    Attributes:
        precisions: per class.
        tags: precision, recall and F1 of the chosen tags; None if none were asked for.
        coverage: how far down one has to go for all that a picture holds, see `coverage`; None where not all classes
            were written.
        groups: the same of groups of classes.
        remarks: pictures or classes that could not be compared and scores that tie, one sentence each.
    """

    precisions: AveragePrecisions
    tags: TagMeasures | None
    coverage: float | None
    groups: tuple[GroupEvaluation, ...]
    remarks: tuple[str, ...]


def evaluate_tags(
    tags: str | Path,
    truth: str | Path,
    rules: EvaluationRules | None = None,
    options: TruthOptions | None = None,
    splits: ClassSplits | None = None,
) -> TagEvaluation:
    """Compare the tags of the pictures that both files know.

    A tag that was not written ranks below all that were, equal with the others of its class.

    Memory: 5 bytes per picture and class, as much again while they are counted, and the ids.

    Raises:
        UserError: for a file that cannot be read, when the two have no picture in common, for a group with other
            classes, or tags of prompts that have learned from captions of these very pictures.
    """
    rules = rules or EvaluationRules()
    file = read_tag_file(tags)
    names = file.scores.class_names
    columns = {} if splits is None else splits.columns(names)
    known = load_truth(truth, names, options)
    in_tags, in_truth = common_rows(file, tags, known, truth)
    scores, labels = file.scores.scores.numpy()[in_tags], known.labels[in_truth]
    precisions = mean_average_precision(
        scores, labels, names, difficult=rules.difficult, interpolation=rules.interpolation
    )
    require_positives(precisions, truth)
    remarks = _remarks(len(in_tags), file, known, precisions)
    if columns and (outside := len(names) - len(columns[ALL_GROUPS])):
        remarks.append(f"{outside} classes are in no group.")
    return TagEvaluation(
        precisions,
        _measured(scores, labels, rules),
        coverage(scores, labels) if np.isfinite(scores).all() else None,
        tuple(
            GroupEvaluation(
                name,
                len(chosen),
                float(np.nanmean(values)) if not np.isnan(values := precisions.values[chosen]).all() else float("nan"),
                _measured(scores[:, chosen], labels[:, chosen], rules),
            )
            for name, chosen in columns.items()
        ),
        tuple(remarks),
    )


def common_rows(
    file: TagFile, tags: str | Path, known: Truth, truth: str | Path
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows in the tags and in the truth of the pictures that both know, in the order of the tags.

    Raises:
        UserError: if there are none, and as `require_untaught`.
    """
    scored = frozenset(file.scores.ids)
    row_of = {name: row for row, name in enumerate(spelt_as_known(known.ids, scored.__contains__))}
    common = [(n, row_of[name]) for n, name in enumerate(file.scores.ids) if name in row_of]
    if not file.scores.ids:
        raise UserError(f"The file of tags '{printable(tags)}' has no picture at all: tag a store that holds some.")
    if not common:
        raise UserError(
            f"'{printable(tags)}' (first id {file.scores.ids[0]!r}) and '{printable(truth)}' (first id "
            f"{known.ids[0]!r}) have no picture in common: ids are paths relative to the folder that was cached."
        )
    in_tags, in_truth = np.array(common).T
    require_untaught(file.provenance, [file.scores.ids[n] for n in in_tags], tags)
    return in_tags, in_truth


def describe_ties(precisions: AveragePrecisions, of: str = "") -> str | None:
    """How many pairs of a picture with a class and one without it share a score, in a sentence; None without any."""
    tied = int(precisions.tied_pairs.sum())
    if not tied:
        return None
    return (
        f"{tied:,} pairs of a picture with a class and one without it have the same score{of}; such pictures share one "
        "rank."
    )


def _measured(scores: Scores, labels: NDArray[np.int8], rules: EvaluationRules) -> TagMeasures | None:
    if not rules.chooses:
        return None
    return tag_measures(rules.chosen(scores), labels, ignore_difficult=rules.difficult == "ignore")


def _remarks(common: int, file: TagFile, known: Truth, precisions: AveragePrecisions) -> list[str]:
    remarks = []
    if common < len(file.scores.ids):
        remarks.append(f"{len(file.scores.ids) - common:,} scored pictures are not in the truth and were left out.")
    if common < len(known):
        remarks.append(f"{len(known) - common:,} pictures of the truth were not scored and were left out.")
    if not file.is_complete:
        remarks.append("Not every class was written for every picture (--top-k or --threshold): a rough guide only.")
    if ties := describe_ties(precisions):
        remarks.append(ties)
    if known.passed_over:
        most = sorted(known.passed_over.items(), key=lambda pair: -pair[1])
        shown = ", ".join(f"{name} {count:,}" for name, count in most[:MANY])
        more = f" and {len(most) - MANY} more" if len(most) > MANY else ""
        remarks.append(f"{sum(known.passed_over.values()):,} labels are no class and were passed over: {shown}{more}.")
    if precisions.without_positives:
        absent = precisions.without_positives
        more = f" and {len(absent) - MANY} more" if len(absent) > MANY else ""
        remarks.append(f"{len(absent)} classes are in no picture and were left out: {', '.join(absent[:MANY])}{more}.")
    return remarks


def require_positives(precisions: AveragePrecisions, truth: str | Path) -> None:
    """Refuse a truth by which nothing can be measured.

    Raises:
        UserError: if no class is in any of the pictures.
    """
    if not precisions.positives.any():
        raise UserError(
            f"By the truth '{printable(truth)}' none of the classes is in any of the {precisions.items:,} pictures "
            "that were scored (difficult ones aside), so there is nothing to find: check its labels."
        )


def require_untaught(provenance: Mapping[str, str], ids: list[str], tags: str | Path) -> None:
    """Refuse what would flatter prompts: pictures whose captions they were tuned on.

    Raises:
        UserError: if there are such pictures.
    """
    try:
        prompts = parse_json(provenance.get("prompts", "{}"))
    except ValueError:
        return
    if not isinstance(prompts, dict) or prompts.get("sentences") != BUILT_IN:
        return
    if taught := captioned_pictures(ids):
        raise UserError(
            f"The prompts of '{tags}' were tuned on the built-in captions, and {len(taught):,} of {len(ids):,} "
            f"pictures ({taught[0]}, ...) are those that these describe: take other pictures, leave these out of the "
            "truth, or tune on other sentences."
        )
