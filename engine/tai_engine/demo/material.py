"""What ships to be tried out: photographs, features and labels of others, captions of yet others."""

from __future__ import annotations

from pathlib import Path

from tai_engine.encoders.embedded import embedded_folder
from tai_engine.files import write_atomically

MODEL = "photos"
FOLDER = Path(str(embedded_folder(MODEL)))
PHOTOGRAPHS = FOLDER / "photographs"
"""25 in the public domain, without labels."""
LABELLED_STORE = FOLDER / "coco_photographs.zarr"
"""Features of 152 photographs of COCO val2017."""
LABELS = FOLDER / "coco_photographs.jsonl"
"""Which of COCO's 80 classes are on each of the 152."""
CAPTIONS = FOLDER / "coco_captions.jsonl.gz"
"""20,213 captions of 4,040 photographs of COCO val2017, none of them among the 152."""


def copy_photographs(folder: Path) -> list[Path]:
    """The 25 photographs into ``folder``, where people can look at them; those that are there already stay.

    Raises:
        UserError: if the folder cannot be written.
    """
    copies = []
    for photograph in sorted(PHOTOGRAPHS.glob("*.jpg")):
        copy = folder / photograph.name
        if not copy.is_file() or copy.stat().st_size != photograph.stat().st_size:
            write_atomically(copy, photograph.read_bytes())
        copies.append(copy)
    return copies
