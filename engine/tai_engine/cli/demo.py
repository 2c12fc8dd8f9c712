"""``tai demo``: the whole way, from pictures to tags, on the embedded model and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tai_engine.cli.options import AsJson


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for pictures, store, tags and contact sheet.")] = Path(
        "demo-results"
    ),
    pictures: Annotated[int, typer.Option("--pictures", min=1, help="How many pictures to draw.")] = 80,
    seed: Annotated[int, typer.Option("--seed", help="Another seed draws other pictures.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Draw pictures, cache their features, tag them with COCO's 80 words, and show how right that was."""
    from tai_engine.cli.demo_run import run_demo

    run_demo(out, pictures, seed, as_json)
