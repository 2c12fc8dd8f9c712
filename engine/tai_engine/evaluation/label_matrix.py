"""Labels as they are read: a row a picture, a column a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tai_engine.errors import UserError, unknown_choice
from tai_engine.vocabulary import comparable_name

MAX_LABELS = 2**33
"""Pictures times classes: 8 GiB."""


class LabelMatrix:
    """Labels of pictures that come one by one.

    Memory: a byte per picture and class, at most `MAX_LABELS`, and the ids.

    Args:
        class_names: C names.
        what: what messages call the file, with its name.
        passes_over: whether labels that are no class are left out and counted, in place of an error.

    Attributes:
        passed_over: how often each label occurred that is no class.

    Raises:
        UserError: for class names that cannot be told apart.
    """

    def __init__(self, class_names: Sequence[str], what: str, *, passes_over: bool) -> None:
        self._class_names = tuple(class_names)
        self._columns = {comparable_name(name): c for c, name in enumerate(class_names)}
        if len(self._columns) != len(class_names):
            raise UserError(
                "The class names are not unique: two differ in case, underscores or blanks alone; rename one."
            )
        self._what = what
        self._passes_over = passes_over
        self._rows: dict[str, NDArray[np.int8]] = {}
        self._places: dict[str, str] = {}
        self.passed_over: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def ids(self) -> tuple[str, ...]:
        """N names, in the order in which they came."""
        return tuple(self._rows)

    def labels(self) -> NDArray[np.int8]:
        """[N, C]: +1 there, -1 not there, 0 difficult."""
        return np.stack(list(self._rows.values()))

    def column(self, name: str) -> int | None:
        """The column of a class; None for what is none."""
        return self._columns.get(comparable_name(name))

    def has(self, item_id: str) -> bool:
        """Whether a picture has come."""
        return item_id in self._rows

    def place(self, item_id: str) -> str:
        """Where a picture came first."""
        return self._places.get(item_id, "a row before")

    def count(self, item_id: str) -> int:
        """How many labels a picture has."""
        return int((self._rows[item_id] != -1).sum())

    def holds(self, item_id: str, name: str) -> bool:
        """Whether a picture has a label."""
        column = self.column(name)
        return column is not None and bool(self._rows[item_id][column] != -1)

    def row(self, item_id: str, place: str | None = None) -> None:
        """Take a picture in, without labels if it is new.

        Raises:
            UserError: for too many.
        """
        if item_id in self._rows:
            return
        if (len(self._rows) + 1) * len(self._class_names) > MAX_LABELS:
            raise UserError(
                f"The {self._what} has more than {MAX_LABELS:,} labels (pictures times classes), the most that "
                "tai-engine reads."
            )
        self._rows[item_id] = np.full(len(self._class_names), -1, dtype=np.int8)
        if place is not None:
            self._places[item_id] = place

    def mark(self, item_id: str, name: str, value: int, where: str) -> None:
        """Give a picture a label.

        Raises:
            UserError: for a label that is no class, unless these are passed over.
        """
        column = self.column(name)
        if column is None:
            self.check(name, where)
        else:
            self._rows[item_id][column] = value

    def check(self, name: str, where: str) -> None:
        """Count a label that is no class.

        Raises:
            UserError: for such a label, unless these are passed over.
        """
        if not self._passes_over:
            unknown = unknown_choice("class name", name, self._class_names)
            raise UserError(
                f"{where[0].upper()}{where[1:]}: {unknown} --unknown-labels ignore passes over such labels."
            )
        self.passed_over[name] += 1
