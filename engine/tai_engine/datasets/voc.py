"""PASCAL VOC in the layout of its development kit: ``VOC2007/ImageSets/Main`` names pictures and labels.

``<class>_<split>.txt`` has a line ``<picture> <label>`` with 1 (there), -1 (not there) or 0 (only difficult objects of
it). The labels of the test pictures come in an archive of their own, unpacked over the same folder; those of VOC2012's
were never published.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tai_engine.datasets.labelled import LabelledPictures, lines_of, plain, require
from tai_engine.errors import UserError
from tai_engine.vocabulary import load_vocabulary


def read_voc(root: Path, year: int = 2007, split: str = "test") -> LabelledPictures:
    """The pictures of a split.

    Args:
        root: the folder that holds ``VOC<year>``, or that folder, or ``VOCdevkit``'s parent.
        year: 2007 or 2012.
        split: ``"test"``, ``"train"``, ``"val"`` or ``"trainval"``.

    Raises:
        UserError: for missing files, or labels that do not fit the list of pictures.
    """
    folder = _find(root, year)
    names = load_vocabulary("voc20").names
    sets = folder / "ImageSets" / "Main"
    pictures = lines_of(sets / f"{split}.txt", f"list of VOC{year}'s {split} pictures")
    row_of = {picture.split()[0]: row for row, picture in enumerate(pictures)}
    labels = np.full((len(pictures), len(names)), -1, dtype=np.int8)
    for column, name in enumerate(names):
        path = sets / f"{plain(name)}_{split}.txt"
        seen = 0
        for number, line in enumerate(lines_of(path, f"labels of {name!r} in VOC{year}'s {split} pictures"), 1):
            fields = line.split()
            if len(fields) != 2 or fields[0] not in row_of or fields[1] not in {"1", "0", "-1"}:
                raise UserError(
                    f"Line {number} of '{path}' is {line!r}; expected a picture of the list and 1, 0 or -1."
                )
            labels[row_of[fields[0]], column] = int(fields[1])
            seen += 1
        if seen != len(pictures):
            raise UserError(
                f"'{path}' has {seen:,} lines and the list has {len(pictures):,} pictures: unpack it again."
            )
    list_name = f"VOC{year} {split}, {len(pictures):,} pictures"
    return LabelledPictures(list_name, folder / "JPEGImages", tuple(f"{name}.jpg" for name in row_of), names, labels)


def _find(root: Path, year: int) -> Path:
    for folder in (root, root / f"VOC{year}", root / "VOCdevkit" / f"VOC{year}"):
        if (folder / "ImageSets" / "Main").is_dir():
            return folder
    return require(root / "VOCdevkit" / f"VOC{year}", f"VOC{year}")
