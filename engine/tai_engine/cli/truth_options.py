"""What a user may say of the truth, and of how tags are held against it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Truth = Annotated[
    Path, typer.Option("--truth", help="A table of pictures and labels, COCO's instances JSON, or a VOC folder.")
]
PictureColumn = Annotated[str | None, typer.Option("--column", help="Of the truth: what names the picture.")]
LabelColumn = Annotated[str | None, typer.Option("--label-column", help="Of the truth: the labels.")]
UnknownLabels = Annotated[
    str, typer.Option("--unknown-labels", help="Labels of the truth that are no class: error, or ignore.")
]
Difficult = Annotated[
    str, typer.Option("--difficult", help="Difficult labels: as-negative (the paper), or ignore (VOC's rule).")
]
AveragePrecision = Annotated[
    str,
    typer.Option("--average-precision", help="area (the mean precision at each positive), or 11-point (VOC2007's)."),
]
TagTopK = Annotated[
    int | None, typer.Option("--top-k", min=1, help="Also precision, recall and F1 of so many best tags a picture.")
]
TagThreshold = Annotated[float | None, typer.Option("--threshold", help="Or of the tags with this score or more.")]
