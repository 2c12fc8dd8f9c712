"""A file of tags against the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tai_engine.errors import MANY, UserError
from tai_engine.evaluation.measures import AveragePrecisions, mean_average_precision
from tai_engine.evaluation.truth import Truth, TruthOptions, load_truth
from tai_engine.json_documents import parse_json
from tai_engine.sentences.built_in import BUILT_IN, captioned_pictures
from tai_engine.tagging.tag_file import read_tag_file


@dataclass(frozen=True, eq=False)
class TagEvaluation:
    """Average precisions of a file of tags, and what to know about them.

    Attributes:
        precisions: per class.
        remarks: pictures or classes that could not be compared, one sentence each.
    """

    precisions: AveragePrecisions
    remarks: tuple[str, ...]


def evaluate_tags(
    tags: str | Path, truth: str | Path, difficult: str = "as-negative", options: TruthOptions | None = None
) -> TagEvaluation:
    """Compare the tags of the pictures that both files know.

    A tag that was not written ranks below all that were, equal with the others of its class.

    Memory: 5 bytes per picture and class, and the ids.

    Raises:
        UserError: for a file that cannot be read, when the two have no picture in common, or for tags of prompts that
            have learned from captions of these very pictures.
    """
    file = read_tag_file(tags)
    known = load_truth(truth, file.scores.class_names, options)
    row_of = {name: row for row, name in enumerate(known.ids)}
    common = [(n, row_of[name]) for n, name in enumerate(file.scores.ids) if name in row_of]
    if not file.scores.ids:
        raise UserError(f"The file of tags '{tags}' has no picture at all: tag a store that holds some.")
    if not common:
        raise UserError(
            f"'{tags}' (first id {file.scores.ids[0]!r}) and '{truth}' (first id {known.ids[0]!r}) have no picture in "
            "common: ids are paths relative to the folder that was cached."
        )
    in_tags, in_truth = np.array(common).T
    _require_untaught(file.provenance, [file.scores.ids[n] for n in in_tags], tags)
    precisions = mean_average_precision(
        file.scores.scores.numpy()[in_tags], known.labels[in_truth], file.scores.class_names, difficult=difficult
    )
    return TagEvaluation(precisions, tuple(_remarks(len(common), file.scores.ids, known, file.is_complete, precisions)))


def _remarks(
    common: int, scored: tuple[str, ...], truth: Truth, is_complete: bool, precisions: AveragePrecisions
) -> list[str]:
    remarks = []
    if common < len(scored):
        remarks.append(f"{len(scored) - common:,} scored pictures are not in the truth and were left out.")
    if common < len(truth):
        remarks.append(f"{len(truth) - common:,} pictures of the truth were not scored and were left out.")
    if not is_complete:
        remarks.append("Not every class was written for every picture (--top-k or --threshold): a rough guide only.")
    if truth.passed_over:
        most = sorted(truth.passed_over.items(), key=lambda pair: -pair[1])
        shown = ", ".join(f"{name} {count:,}" for name, count in most[:MANY])
        more = f" and {len(most) - MANY} more" if len(most) > MANY else ""
        remarks.append(f"{sum(truth.passed_over.values()):,} labels are no class and were passed over: {shown}{more}.")
    if precisions.without_positives:
        absent = precisions.without_positives
        more = f" and {len(absent) - MANY} more" if len(absent) > MANY else ""
        remarks.append(f"{len(absent)} classes are in no picture and were left out: {', '.join(absent[:MANY])}{more}.")
    return remarks


def _require_untaught(provenance: Mapping[str, str], ids: list[str], tags: str | Path) -> None:
    """Refuse what would flatter prompts: pictures whose captions they were tuned on."""
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
