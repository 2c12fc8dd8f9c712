"""What a user may say of a table: the options of every command that reads one."""

from __future__ import annotations

from typing import Annotated

import typer

Format = Annotated[
    str | None,
    typer.Option("--format", help="text, jsonl, json, csv, tsv or parquet, where name and content leave it open."),
]
Separator = Annotated[
    str | None, typer.Option("--separator", help="Between fields of CSV: one character, or tab, semicolon, pipe.")
]
Header = Annotated[
    bool | None,
    typer.Option("--header/--no-header", help="Whether line 1 of CSV names the columns; without, they are 1, 2, ..."),
]
Encoding = Annotated[str, typer.Option("--encoding", help="Of text files.")]
