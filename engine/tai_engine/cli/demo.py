"""``tai demo``: the whole way, from pictures and sentences to tags, on the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tai_engine.cli.options import AsJson


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything that is made.")] = Path("demo-results"),
    pictures: Annotated[int, typer.Option("--pictures", min=1, help="How many pictures to draw.")] = 80,
    seed: Annotated[int, typer.Option("--seed", help="Another seed draws other pictures.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Draw pictures, tag them with COCO's 80 words, tune prompts on sentences, and show how right it all was."""
    from tai_engine.demo.run import run_demo

    run_demo(out, pictures, seed, as_json)
