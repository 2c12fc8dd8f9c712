"""Two files of tags against the same truth: whether one is better, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tai_engine.errors import UserError
from tai_engine.evaluation.bootstrap import Comparison, compare
from tai_engine.evaluation.bootstrap_f1 import PairedIntervals, compare_f1
from tai_engine.evaluation.draws import DRAWS
from tai_engine.evaluation.measures import AveragePrecisions, mean_average_precision
from tai_engine.evaluation.tag_evaluation import (
    EvaluationRules,
    common_rows,
    describe_ties,
    require_positives,
    require_untaught,
)
from tai_engine.evaluation.truth import TruthOptions, load_truth
from tai_engine.regular_files import printable
from tai_engine.tagging.score_batch import ScoreBatch
from tai_engine.tagging.tag_file import TagFile, read_tag_file
from tai_engine.vocabulary import comparable_name


@dataclass(frozen=True, eq=False)
class TagComparison:
    """Two files of tags on the pictures and classes that both have.

    Attributes:
        mean: mAP of both and the difference, also per class.
        class_f1, overall_f1: CF1 and OF1 likewise; None if no tags were chosen.
        precisions: of the first and the second, per class.
        draws: of pictures, from which the intervals are.
        remarks: what was left out and which scores tie, a sentence each.
    """

    mean: Comparison
    class_f1: PairedIntervals | None
    overall_f1: PairedIntervals | None
    precisions: tuple[AveragePrecisions, AveragePrecisions]
    draws: int
    remarks: tuple[str, ...]


def compare_tags(
    first: str | Path,
    second: str | Path,
    truth: str | Path,
    rules: EvaluationRules | None = None,
    options: TruthOptions | None = None,
    *,
    only_common: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> TagComparison:
    """Compare two files of tags by a bootstrap over pictures that draws the same pictures for both.

    Memory: 9 bytes per picture and class, four times that while they are counted, 64 MB of draws, and the ids.

    Args:
        first, second: files of tags with a score for every class and picture.
        truth: of the pictures.
        rules: ``interpolation`` has to be ``"area"``; `EvaluationRules.chooses` decides whether F1 is compared.
        options: how the truth is read.
        only_common: compare the pictures and classes that both have in place of refusing others.
        draws: how many.
        seed: of the draws.

    Raises:
        UserError: for files that cannot be read, lack scores, or name other pictures or classes; too few draws; and
            as `require_untaught`.
    """
    rules = rules or EvaluationRules()
    if draws < 1 or seed < 0:
        raise UserError(f"There are {draws} draws with the seed {seed}; take 1 draw or more, and a seed from 0.")
    if rules.interpolation != "area":
        raise UserError("Draws of pictures are compared by the area alone: leave --average-precision out.")
    files = _complete(first), _complete(second)
    one, two = (file.scores for file in files)
    remarks: list[str] = []
    kept = _common(one.class_names, two.class_names, "class", (first, second), only_common, remarks)
    place = {comparable_name(name): c for c, name in enumerate(two.class_names)}
    names = tuple(one.class_names[c] for c in kept)
    known = load_truth(truth, names, options)
    rows_two = {name: n for n, name in enumerate(two.ids)}
    both = _common(one.ids, two.ids, "picture", (first, second), only_common, remarks)
    matched = ScoreBatch(tuple(one.ids[n] for n in both), names, one.scores[both][:, kept])
    in_tags, in_truth = common_rows(TagFile(matched, files[0].provenance), first, known, truth)
    require_untaught(files[1].provenance, [matched.ids[n] for n in in_tags], second)
    if len(in_tags) < len(both):
        remarks.append(f"{len(both) - len(in_tags):,} scored pictures are not in the truth and were left out.")
    labels = known.labels[in_truth]
    first_NC = matched.scores.numpy()[in_tags]
    order = [rows_two[matched.ids[n]] for n in in_tags]
    second_NC = two.scores.numpy()[order][:, [place[comparable_name(name)] for name in names]]
    precisions = tuple(
        mean_average_precision(scores, labels, names, difficult=rules.difficult) for scores in (first_NC, second_NC)
    )
    require_positives(precisions[0], truth)
    for path, found in zip((first, second), precisions, strict=True):
        if ties := describe_ties(found, f" in '{printable(path)}'"):
            remarks.append(ties)
    if absent := precisions[0].without_positives:
        remarks.append(f"{len(absent)} classes are in no picture and were left out: {', '.join(absent)}.")
    ignore = rules.difficult == "ignore"
    mean = compare(first_NC, second_NC, labels, ignore_difficult=ignore, draws=draws, seed=seed)
    class_f1 = overall_f1 = None
    if rules.chooses:
        class_f1, overall_f1 = compare_f1(
            rules.chosen(first_NC), rules.chosen(second_NC), labels, ignore_difficult=ignore, draws=draws, seed=seed
        )
    return TagComparison(mean, class_f1, overall_f1, (precisions[0], precisions[1]), draws, tuple(remarks))


def _complete(path: str | Path) -> TagFile:
    file = read_tag_file(path)
    if not file.is_complete:
        missing = int((~np.isfinite(file.scores.scores.numpy())).sum())
        raise UserError(
            f"The file of tags '{printable(path)}' lacks {missing:,} scores (--top-k or --threshold), so its ranking "
            "is not whole: make it again with `tai tag` without these options."
        )
    return file


def _common(
    one: Sequence[str],
    two: Sequence[str],
    what: str,
    paths: tuple[str | Path, str | Path],
    only_common: bool,
    remarks: list[str],
) -> list[int]:
    """Places in ``one`` of what both have."""
    spelt = comparable_name if what == "class" else str
    theirs, plural = {spelt(name) for name in two}, {"class": "classes", "picture": "pictures"}[what]
    kept = [n for n, name in enumerate(one) if spelt(name) in theirs]
    ours = {spelt(one[n]) for n in kept}
    alone = [[name for name in one if spelt(name) not in theirs], [name for name in two if spelt(name) not in ours]]
    if not kept or (any(alone) and not only_common):
        where, example = next((path, names[0]) for path, names in zip(paths, alone, strict=True) if names)
        raise UserError(
            f"'{printable(paths[0])}' and '{printable(paths[1])}' have {len(kept):,} {plural} in common and "
            f"{len(alone[0]) + len(alone[1]):,} that only one has, such as {example!r} of '{printable(where)}': tag "
            "the same pictures with the same words" + (", or add --common." if kept else ".")
        )
    for path, names in zip(paths, alone, strict=True):
        if names:
            remarks.append(f"{len(names):,} {plural} are in '{printable(path)}' alone and were left out.")
    return kept
