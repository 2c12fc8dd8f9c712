"""As many photographs as a benchmark wants, of the few that come with the engine."""

from __future__ import annotations

import itertools
from pathlib import Path

from tai_engine.encoders.embedded import embedded_folder


def copy_photographs(folder: Path, count: int) -> list[Path]:
    """``count`` files in ``folder``, the embedded photographs over and over under names of their own.

    For measuring speed and memory, which do not mind that a picture comes again. Memory: one file.

    Raises:
        OSError: if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    originals = sorted((Path(str(embedded_folder("photos"))) / "photographs").glob("*.jpg"))
    copies = []
    for number, original in enumerate(itertools.islice(itertools.cycle(originals), count)):
        copies.append(folder / f"{number:06d}-{original.name}")
        copies[-1].write_bytes(original.read_bytes())
    return copies
