"""VOC-MLT and COCO-LT: lists of training pictures whose classes have a long tail.

Wu et al., ECCV 2020, arXiv 2007.09654. The authors ship lists of VOC2012 and COCO train2017 pictures, one number a
line, in files of which COCO's ends in ``.pkl`` all the same. Their pickles of class frequencies and groups are never
read: both are counted from the lists.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tai_engine.datasets.coco import read_coco
from tai_engine.datasets.labelled import LabelledPictures, lines_of, require
from tai_engine.datasets.voc import read_voc
from tai_engine.errors import UserError

HEAD_FROM, MEDIUM_FROM = 100, 20
"""Pictures of the list that hold a class of the head, and of the middle; the tail has fewer."""


def read_voc_mlt(root: Path) -> LabelledPictures:
    """The training list of VOC-MLT. What is difficult counts as there, as it does for the authors.

    Args:
        root: the folder that holds ``VOCdevkit``, with ``VOCdevkit/longtail2012/img_id.txt`` and VOC2012.

    Raises:
        UserError: for missing files, or a list with other pictures.
    """
    listing = root / "VOCdevkit" / "longtail2012" / "img_id.txt"
    numbers = _numbers(listing, "VOC-MLT's training list")
    every = read_voc(root, 2012, "trainval")
    rows = _rows(listing, [f"{number}.jpg" for number in numbers], every)
    labels = every.labels[rows].copy()
    labels[labels == 0] = 1
    return _listed(every, "VOC-MLT training", rows, labels)


def read_coco_lt(root: Path) -> LabelledPictures:
    """The training list of COCO-LT.

    Args:
        root: COCO's folder, with ``longtail2017/img_id.pkl`` (which is text) and the annotations of train2017.

    Raises:
        UserError: for missing files, a list that is a pickle after all, or one with other pictures.
    """
    listing = root / "longtail2017" / "img_id.pkl"
    numbers = _numbers(listing, "COCO-LT's training list")
    every = read_coco(root, "train2017")
    rows = _rows(listing, [f"{int(number):012d}.jpg" for number in numbers], every)
    return _listed(every, "COCO-LT training", rows, every.labels[rows])


def long_tail_groups(pictures: LabelledPictures) -> dict[str, tuple[str, ...]]:
    """Head, medium and tail of a training list, by how many of its pictures hold a class."""
    counts = (pictures.labels == 1).sum(axis=0).tolist()
    groups: dict[str, list[str]] = {"head": [], "medium": [], "tail": []}
    for name, count in zip(pictures.class_names, counts, strict=True):
        groups["head" if count >= HEAD_FROM else "medium" if count >= MEDIUM_FROM else "tail"].append(name)
    return {group: tuple(names) for group, names in groups.items()}


def _numbers(path: Path, what: str) -> list[str]:
    require(path, what)
    with path.open("rb") as file:
        if file.read(1) == b"\x80":
            raise UserError(
                f"'{path}' is a pickle, which tai-engine never loads: lay {what} there as text, one a line."
            )
    numbers = lines_of(path, what)
    if wrong := next((number for number in numbers if not number.replace("_", "").isdecimal()), None):
        raise UserError(f"'{path}' has the line {wrong!r}; expected the number of a picture.")
    return numbers


def _rows(listing: Path, names: list[str], every: LabelledPictures) -> np.ndarray:
    row_of = {name: row for row, name in enumerate(every.ids)}
    if missing := [name for name in names if name not in row_of]:
        raise UserError(
            f"{len(missing):,} pictures of '{listing}' are not among {every.list_name}, the first is {missing[0]!r}."
        )
    return np.array([row_of[name] for name in names])


def _listed(every: LabelledPictures, what: str, rows: np.ndarray, labels: np.ndarray) -> LabelledPictures:
    ids = tuple(every.ids[row] for row in rows)
    return LabelledPictures(f"{what}, {len(ids):,} pictures", every.images, ids, every.class_names, labels)
