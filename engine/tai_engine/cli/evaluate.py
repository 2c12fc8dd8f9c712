"""``tai evaluate``: tags against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tai_engine.cli.options import AsJson, UnknownLabels
from tai_engine.cli.output import print_json, print_table, remarks, results
from tai_engine.cli.results_option import OR_RESULTS, tags_at
from tai_engine.cli.table_options import Encoding, Format, Header, Separator


def evaluate(
    tags: Annotated[Path, typer.Argument(help=f"A file of tags that `tai tag` made, {OR_RESULTS}.")],
    truth: Annotated[
        Path, typer.Option("--truth", help="A table of pictures and labels, COCO's instances JSON, or a VOC folder.")
    ],
    difficult: Annotated[
        str, typer.Option("--difficult", help="Difficult labels: as-negative (the paper), or ignore (VOC's rule).")
    ] = "as-negative",
    unknown_labels: UnknownLabels = "error",
    column: Annotated[str | None, typer.Option("--column", help="Of the truth: what names the picture.")] = None,
    label_column: Annotated[str | None, typer.Option("--label-column", help="Of the truth: the labels.")] = None,
    format_: Format = None,
    separator: Separator = None,
    header: Header = None,
    encoding: Encoding = "utf-8",
    as_json: AsJson = False,
) -> None:
    """Average precision per class, and its mean."""
    from tai_engine.evaluation.tag_evaluation import evaluate_tags
    from tai_engine.evaluation.truth import TruthOptions
    from tai_engine.tables import TableOptions

    table = TableOptions(format_, separator, header, encoding)
    evaluation = evaluate_tags(
        tags_at(tags), truth, difficult, TruthOptions(unknown_labels, column, label_column, table)
    )
    precisions = evaluation.precisions
    if as_json:
        per_class = {name: {"ap": ap, "positives": count} for name, ap, count in precisions.per_class}
        print_json({"map": precisions.mean, "items": precisions.items, "classes": per_class, "difficult": difficult})
    else:
        rows = [(name, 100 * ap, count) for name, ap, count in precisions.per_class]
        print_table("Average precision", ("class", "AP %", "positives"), rows)
        results.print(
            f"mAP {100 * precisions.mean:.2f} % over {len(rows)} classes and {precisions.items:,} pictures",
        )
    for remark in evaluation.remarks:
        remarks.print(remark)
