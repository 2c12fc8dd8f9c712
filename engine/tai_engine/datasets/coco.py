"""Microsoft COCO: ``annotations/instances_<subset>.json`` and the folder of the pictures, named as the subset.

Category numbers have gaps (1 to 90 for 80 classes), and some pictures hold no object at all: val2014 has 40,504
pictures, 40,137 of them with one. An object counts whatever its size, and crowds count as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ijson
import numpy as np

from tai_engine.datasets.labelled import LabelledPictures, plain, require
from tai_engine.errors import UserError
from tai_engine.vocabulary import load_vocabulary


def read_coco(root: Path, subset: str = "val2014", *, without_empty: bool = False) -> LabelledPictures:
    """The pictures of a subset in the order of the file.

    Memory: ids and labels; the file is read piece by piece.

    Args:
        root: the folder that holds ``annotations`` and ``<subset>``.
        subset: ``"val2014"``, ``"train2014"``, ``"val2017"`` or ``"train2017"``.
        without_empty: leave out the pictures without any object.

    Raises:
        UserError: for missing files, a file that is no such JSON, or categories that are not COCO's.
    """
    path = require(root / "annotations" / f"instances_{subset}.json", f"COCO annotations of {subset}")
    names = load_vocabulary("coco80").names
    column_of_name = {plain(name): column for column, name in enumerate(names)}
    try:
        column_of: dict[int, int] = {}
        for category in _elements(path, "categories"):
            if plain(category["name"]) not in column_of_name:
                raise UserError(f"'{path}' has the category {category['name']!r}, which is none of COCO's 80.")
            column_of[int(category["id"])] = column_of_name[plain(category["name"])]
        ids: list[str] = []
        row_of: dict[int, int] = {}
        for image in _elements(path, "images"):
            row_of[int(image["id"])] = len(ids)
            ids.append(str(image["file_name"]))
        labels = np.full((len(ids), len(names)), -1, dtype=np.int8)
        for annotation in _elements(path, "annotations"):
            labels[row_of[int(annotation["image_id"])], column_of[int(annotation["category_id"])]] = 1
    except (ijson.JSONError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"'{path}' is not a file of COCO instances ({type(error).__name__}: {error}): unpack it again."
        ) from error
    images = root / subset
    if without_empty:
        kept = (labels == 1).any(axis=1)
        ids = [name for name, keep in zip(ids, kept.tolist(), strict=True) if keep]
        labels = labels[kept]
    which = "with an object" if without_empty else "all"
    return LabelledPictures(f"COCO {subset}, {len(ids):,} pictures ({which})", images, tuple(ids), names, labels)


def _elements(path: Path, key: str) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        yield from ijson.items(file, f"{key}.item")
