"""NUS-WIDE in its authors' layout: ``ImageList``, ``TrainTestLabels`` or ``Groundtruth/TrainTestLabels``, ``Flickr``.

Papers report on different test lists, because pictures went from Flickr over the years: 107,859 (the authors' own),
83,898 and 60,260. Lists have Windows' backslashes. Labels belong to the authors' list, line by line; a shorter list
names which of its pictures count.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tai_engine.datasets.labelled import LabelledPictures, lines_of, require
from tai_engine.errors import UserError
from tai_engine.vocabulary import load_vocabulary

KNOWN_LISTS = {107_859: "the authors' test list", 83_898: "the list of 83,898", 60_260: "the list of 60,260"}


def read_nuswide(root: Path, split: str = "Test", only: Path | None = None) -> LabelledPictures:
    """The pictures of a split.

    Args:
        root: the folder of the data set.
        split: ``"Test"`` or ``"Train"``.
        only: a text file with the pictures that count, a path a line (slashes or backslashes); all without.

    Raises:
        UserError: for missing files, labels that do not fit the list, or a shorter list with other pictures.
    """
    names = load_vocabulary("nuswide81").names
    listing = root / "ImageList" / f"{split}Imagelist.txt"
    ids = [_slashes(line) for line in lines_of(listing, f"NUS-WIDE's {split} list")]
    folder = next(
        (f for f in (root / "TrainTestLabels", root / "Groundtruth" / "TrainTestLabels") if f.is_dir()), None
    ) or require(root / "TrainTestLabels", "folder of NUS-WIDE's labels")
    labels = np.empty((len(ids), len(names)), dtype=np.int8)
    for column, name in enumerate(names):
        path = folder / f"Labels_{name}_{split}.txt"
        found = lines_of(path, f"labels of {name!r}")
        if len(found) != len(ids) or not set(found) <= {"0", "1"}:
            raise UserError(
                f"'{path}' has {len(found):,} lines of {', '.join(sorted(set(found))[:4])}; "
                f"expected {len(ids):,} lines of 0 or 1, as many as the list has pictures."
            )
        labels[:, column] = np.where(np.array(found) == "1", 1, -1)
    if only is not None:
        ids, labels = _chosen(ids, labels, only)
    known = KNOWN_LISTS.get(len(ids), "a list of its own")
    list_name = f"NUS-WIDE {split.lower()}, {len(ids):,} pictures ({known})"
    return LabelledPictures(list_name, root / "Flickr", tuple(ids), names, labels)


def _chosen(ids: list[str], labels: np.ndarray, only: Path) -> tuple[list[str], np.ndarray]:
    row_of = {name: row for row, name in enumerate(ids)}
    wanted = [_slashes(line) for line in lines_of(only, "list of pictures that count")]
    missing = [name for name in wanted if name not in row_of]
    if missing:
        raise UserError(f"{len(missing):,} pictures of '{only}' are not in the data set, the first is {missing[0]!r}.")
    return wanted, labels[[row_of[name] for name in wanted]]


def _slashes(line: str) -> str:
    return line.replace("\\", "/").removeprefix("./")
