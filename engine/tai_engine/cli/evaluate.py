"""``tai evaluate``: tags against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tai_engine.cli.options import AsJson
from tai_engine.cli.output import print_json, print_table, remarks, results


def evaluate(
    tags: Annotated[Path, typer.Argument(help="A file of tags that `tai tag` made.")],
    truth: Annotated[Path, typer.Option("--truth", help="JSONL, CSV or Parquet with id or file_name, and labels.")],
    difficult: Annotated[
        str, typer.Option("--difficult", help="Difficult labels: as-negative (the paper), or ignore (VOC's rule).")
    ] = "as-negative",
    as_json: AsJson = False,
) -> None:
    """Average precision per class, and its mean."""
    from tai_engine.evaluation.tag_evaluation import evaluate_tags

    evaluation = evaluate_tags(tags, truth, difficult)
    precisions = evaluation.precisions
    if as_json:
        per_class = {name: {"ap": ap, "positives": count} for name, ap, count in precisions.per_class}
        print_json({"map": precisions.mean, "items": precisions.items, "classes": per_class, "difficult": difficult})
    else:
        rows = [(name, 100 * ap, count) for name, ap, count in precisions.per_class]
        print_table("Average precision", ("class", "AP %", "positives"), rows)
        results.print(
            f"mAP {100 * precisions.mean:.2f} % over {len(rows)} classes and {precisions.items:,} pictures",
            highlight=False,
        )
    for remark in evaluation.remarks:
        remarks.print(remark, highlight=False, markup=False)
