"""What a user may say of pictures that are to be read."""

from __future__ import annotations

from typing import Annotated

import typer

Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="PATTERN",
        help="Pass over files and folders of this name (*, ?), or path; may be repeated.",
    ),
]
ListColumn = Annotated[
    str | None, typer.Option("--column", help="Of a list: the column of paths or addresses; default path, image, ...")
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="PLACE",
        help="Of a list behind an address: let it name file, https, s3://bucket, ... too; again for more.",
    ),
]
