"""Labelled pictures of a published data set, whatever its layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tai_engine.errors import UserError
from tai_engine.tables.text_files import read_small

MOST_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class LabelledPictures:
    """A list of pictures and what each shows.

    Attributes:
        list_name: which list this is, with its length: figures of different lists cannot be compared.
        images: the folder that ids are relative to.
        ids: N paths within it, with slashes.
        class_names: C names, those of the built-in vocabulary.
        labels: [N, C] int8: +1 there, -1 not there, 0 difficult.
    """

    list_name: str
    images: Path
    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: NDArray[np.int8]

    def __post_init__(self) -> None:
        if self.labels.shape != (len(self.ids), len(self.class_names)) or self.labels.dtype != np.int8:
            raise ValueError(f"labels are {self.labels.dtype} {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, class_names: Sequence[str], *, with_positive: bool) -> LabelledPictures:
        """The same pictures with some of the classes; ``with_positive`` keeps pictures that hold one of them alone."""
        columns = [self.class_names.index(name) for name in class_names]
        labels = np.ascontiguousarray(self.labels[:, columns])
        kept = (labels == 1).any(axis=1) if with_positive else np.ones(len(labels), dtype=bool)
        ids = tuple(name for name, keep in zip(self.ids, kept.tolist(), strict=True) if keep)
        return LabelledPictures(self.list_name, self.images, ids, tuple(class_names), labels[kept])


def require(path: Path, what: str) -> Path:
    """``path``, if it is there.

    Raises:
        UserError: says what has to lie there.
    """
    if not path.exists():
        raise UserError(
            f"There is no {what} at '{path}': unpack the data set as its authors ship it, or name its folder."
        )
    return path


def lines_of(path: Path, what: str) -> list[str]:
    """The lines of a small text file that are not empty, without blanks around them.

    Raises:
        UserError: when it is missing, too large or no text.
    """
    require(path, what)
    return [line.strip() for line in read_small(path, what, MOST_BYTES).splitlines() if line.strip()]


def plain(name: str) -> str:
    """A class name as it is compared: lower case, without blanks, underscores and hyphens."""
    return "".join(letter for letter in name.casefold() if letter not in " _-")
