"""``tai compare``: two files of tags against the same truth."""

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
    Difficult,
    LabelColumn,
    PictureColumn,
    TagThreshold,
    TagTopK,
    Truth,
    UnknownLabels,
)

if TYPE_CHECKING:
    from tai_engine.evaluation.draws import Interval
    from tai_engine.evaluation.tag_comparison import TagComparison


def compare(
    first: Annotated[Path, typer.Argument(help=f"A file of tags that `tai tag` made, {OR_RESULTS}.")],
    second: Annotated[Path, typer.Argument(help="Another one, of the same pictures and words.")],
    truth: Truth,
    difficult: Difficult = "as-negative",
    top_k: TagTopK = None,
    threshold: TagThreshold = None,
    common: Annotated[
        bool, typer.Option("--common", help="Compare the pictures and words that both have, and say what is left out.")
    ] = False,
    draws: Annotated[int, typer.Option("--draws", min=1, help="Draws of pictures with replacement.")] = 2000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the draws.")] = 0,
    unknown_labels: UnknownLabels = "error",
    column: PictureColumn = None,
    label_column: LabelColumn = None,
    format_: Format = None,
    separator: Separator = None,
    header: Header = None,
    encoding: Encoding = "utf-8",
    as_json: AsJson = False,
) -> None:
    """Whether one file of tags is better than another, by the same draws of pictures for both."""
    from tai_engine.evaluation.tag_comparison import compare_tags
    from tai_engine.evaluation.tag_evaluation import EvaluationRules
    from tai_engine.evaluation.truth import TruthOptions
    from tai_engine.tables import TableOptions

    rules = EvaluationRules(difficult, top_k=top_k, threshold=threshold)
    reading = TruthOptions(unknown_labels, column, label_column, TableOptions(format_, separator, header, encoding))
    found = compare_tags(
        tags_at(first), tags_at(second), truth, rules, reading, only_common=common, draws=draws, seed=seed
    )
    if as_json:
        print_json(_summary(found, difficult))
    else:
        _describe(found)
    for remark in found.remarks:
        remarks.print(remark)


def _rows(found: TagComparison) -> list[tuple[str, Interval, Interval, Interval]]:
    measures = {"mAP": found.mean, "CF1": found.class_f1, "OF1": found.overall_f1}
    return [(name, m.first, m.second, m.difference) for name, m in measures.items() if m is not None]


def _summary(found: TagComparison, difficult: str) -> dict[str, Any]:
    parts = ("first", "second", "difference")
    one, two = found.precisions
    return {
        **{
            name.lower(): {part: asdict(value) for part, value in zip(parts, values, strict=True)}
            for name, *values in _rows(found)
        },
        "items": one.items,
        "classes": {
            name: {"first": ap, "second": other, "difference": asdict(interval), "positives": count}
            for name, ap, other, count, interval in _classes(found)
        },
        "tied_pairs": [int(part.tied_pairs.sum()) for part in (one, two)],
        "difficult": difficult,
        "draws": found.draws,
    }


def _classes(found: TagComparison) -> list[tuple[str, float, float, int, Interval]]:
    one, two = found.precisions
    rows = zip(
        one.class_names,
        one.values.tolist(),
        two.values.tolist(),
        one.positives.tolist(),
        found.mean.per_class,
        strict=True,
    )
    return [row for row in rows if row[3]]


def _describe(found: TagComparison) -> None:
    print_table(
        "Average precision",
        ("class", "first %", "second %", "second − first", "from", "to", "positives"),
        [
            (name, 100 * ap, 100 * other, *(100 * x for x in (d.value, d.low, d.high)), count)
            for name, ap, other, count, d in _classes(found)
        ],
    )
    items, classes = found.precisions[0].items, len(_classes(found))
    results.print(f"{classes} classes and {items:,} pictures in common; {found.draws:,} draws of the pictures")
    for name, one, two, difference in _rows(found):
        verdict = "so they differ" if difference.is_clear_of_zero else "so either may be the better one"
        results.print(
            f"{name}: first {_interval(one)}, second {_interval(two)}; second − first {_interval(difference)} points "
            f"with {100 * difference.confidence:.0f} % confidence, {verdict}"
        )


def _interval(interval: Interval) -> str:
    low, high = 100 * interval.low, 100 * interval.high
    return f"{100 * interval.value:.2f} ({low:.2f} to {high:.2f})"
