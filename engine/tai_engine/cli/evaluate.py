"""``tai evaluate``: tags against the truth."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tai_engine.cli.options import AsJson
from tai_engine.cli.output import print_json, print_table, remarks, results
from tai_engine.cli.results_option import OR_RESULTS, tags_at
from tai_engine.cli.table_options import Encoding, Format, Header, Separator
from tai_engine.cli.truth_options import (
    AveragePrecision,
    Difficult,
    LabelColumn,
    PictureColumn,
    TagThreshold,
    TagTopK,
    Truth,
    UnknownLabels,
)

if TYPE_CHECKING:
    from tai_engine.evaluation.multilabel import TagMeasures
    from tai_engine.evaluation.tag_evaluation import TagEvaluation

MEASURES = ("CP %", "CR %", "CF1 %", "OP %", "OR %", "OF1 %")


def evaluate(
    tags: Annotated[Path, typer.Argument(help=f"A file of tags that `tai tag` made, {OR_RESULTS}.")],
    truth: Truth,
    difficult: Difficult = "as-negative",
    average_precision: AveragePrecision = "area",
    top_k: TagTopK = None,
    threshold: TagThreshold = None,
    splits: Annotated[
        str | None,
        typer.Option(
            "--splits",
            help="Also by groups of classes: voc-mlt, coco-lt, coco-48-17, coco-16-novel, or a TOML or JSON file.",
        ),
    ] = None,
    unknown_labels: UnknownLabels = "error",
    column: PictureColumn = None,
    label_column: LabelColumn = None,
    format_: Format = None,
    separator: Separator = None,
    header: Header = None,
    encoding: Encoding = "utf-8",
    as_json: AsJson = False,
) -> None:
    """Average precision per class, and its mean; precision, recall and F1 of the best tags."""
    from tai_engine.evaluation.class_splits import load_splits
    from tai_engine.evaluation.tag_evaluation import EvaluationRules, evaluate_tags
    from tai_engine.evaluation.truth import TruthOptions
    from tai_engine.tables import TableOptions

    rules = EvaluationRules(difficult, average_precision, top_k, threshold)
    reading = TruthOptions(unknown_labels, column, label_column, TableOptions(format_, separator, header, encoding))
    groups = None if splits is None else load_splits(splits)
    evaluation = evaluate_tags(tags_at(tags), truth, rules, reading, groups)
    if as_json:
        print_json(summary(evaluation))
    else:
        describe(evaluation)
    for remark in evaluation.remarks:
        remarks.print(remark)


def summary(evaluation: TagEvaluation) -> dict[str, Any]:
    """All of it for machines."""
    precisions = evaluation.precisions
    return {
        "map": precisions.mean,
        "items": precisions.items,
        "classes": {name: {"ap": ap, "positives": count} for name, ap, count in precisions.per_class},
        "difficult": precisions.difficult,
        "average_precision": precisions.interpolation,
        "tied_pairs": int(precisions.tied_pairs.sum()),
        "coverage": evaluation.coverage,
        "tags": None if evaluation.tags is None else asdict(evaluation.tags),
        "groups": {group.name: _of_group(group) for group in evaluation.groups},
    }


def describe(evaluation: TagEvaluation) -> None:
    """Tables and a line for people."""
    precisions = evaluation.precisions
    rows = [(name, 100 * ap, count) for name, ap, count in precisions.per_class]
    print_table("Average precision", ("class", "AP %", "positives"), rows)
    if evaluation.groups:
        measures = MEASURES if evaluation.tags is not None else ()
        print_table(
            "Groups of classes",
            ("group", "classes", "mAP %", *measures),
            [(g.name, g.classes, 100 * g.mean, *percentages(g.tags)) for g in evaluation.groups],
        )
    results.print(f"mAP {100 * precisions.mean:.2f} % over {len(rows)} classes and {precisions.items:,} pictures")
    if evaluation.tags is not None:
        values = zip(MEASURES, percentages(evaluation.tags), strict=True)
        results.print(", ".join(f"{name.removesuffix(' %')} {value:.2f}" for name, value in values) + " %")
    if evaluation.coverage is not None:
        results.print(f"All that a picture holds is found after {evaluation.coverage:.2f} tags, on average")


def percentages(tags: TagMeasures | None) -> tuple[float, ...]:
    """In the order of `MEASURES`."""
    return () if tags is None else tuple(100 * value for value in asdict(tags).values())


def _of_group(group: Any) -> dict[str, Any]:
    tags = None if group.tags is None else asdict(group.tags)
    return {"map": group.mean, "classes": group.classes, "tags": tags}
