"""``tai ensemble``: two files of tags become one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tai_engine.cli.output import results


def ensemble(
    first: Annotated[Path, typer.Argument(help="Tags that `tai tag` made, every word of every picture.")],
    second: Annotated[Path, typer.Argument(help="Another one of the same store and words.")],
    out: Annotated[Path, typer.Option("--out", help="The file of tags to write.")],
    ratio: Annotated[
        float,
        typer.Option(
            "--ratio",
            help="Share of SECOND in the mean; published for prompts of pictures as SECOND beside TaI-DPT: 0.9 with "
            "partial labels, 0.6 with few pictures.",
        ),
    ] = 0.5,
) -> None:
    """Combine two ways of tagging: the mean of their scores, each scaled to 0 to 1 over the whole file."""
    from tai_engine.tagging import ensemble as combining

    count = combining.ensemble(first, second, out, ratio)
    results.print(f"{count:,} tags -> {out}", highlight=False, markup=False)
