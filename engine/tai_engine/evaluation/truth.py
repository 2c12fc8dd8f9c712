"""What pictures really show, read from a list that people keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tai_engine.errors import UserError, unknown_choice
from tai_engine.sources.ids import ID_COLUMN, LOCATION_COLUMNS, PictureColumns
from tai_engine.tables import Row, Table, short_repr

LABELS_COLUMN = "labels"
DIFFICULT_COLUMN = "difficult"


@dataclass(frozen=True, eq=False)
class Truth:
    """Labels of items.

    Attributes:
        ids: N names.
        class_names: C names.
        labels: [N, C] int8: +1 there, -1 not there, 0 difficult.
    """

    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.ids)


def load_truth(path: str | Path, class_names: Sequence[str]) -> Truth:
    """Read a JSONL, CSV, TSV or Parquet file with one picture a row.

    The picture is named by ``id``, or by a path in one of `LOCATION_COLUMNS` (Hugging Face's ``metadata.jsonl`` fits);
    ``labels`` is a list of class names, or text with ``;`` between them, and may be empty. ``difficult``, of the same
    form, is optional. Case, underscores and doubled blanks in class names do not count.

    Memory: the ids and [N, C] bytes.

    Raises:
        UserError: for a file that cannot be read or has no rows, a row without id or labels, an id that occurs twice
            (names both rows), or a label that is no class (lists close ones).
    """
    columns = {_plain(name): c for c, name in enumerate(class_names)}
    if len(columns) != len(class_names):
        raise ValueError("class_names are not unique")
    places: dict[str, str] = {}
    rows = []
    table = Table(path, (ID_COLUMN, *LOCATION_COLUMNS, LABELS_COLUMN, DIFFICULT_COLUMN), kind="truth")
    pictures = PictureColumns(table)
    for record in table.rows((*pictures.names, LABELS_COLUMN, DIFFICULT_COLUMN)):
        item_id = pictures.id_of(record)
        if item_id in places:
            raise UserError(
                f"The id {item_id!r} occurs in {places[item_id]} and in {record.place} of '{path}': remove one of them."
            )
        places[item_id] = record.place
        if LABELS_COLUMN not in record.values:
            raise UserError(
                f"In {record.place} of '{path}' there are no {LABELS_COLUMN!r}: "
                "it needs a list of class names, or text with ';' between them, empty if there is none."
            )
        row = np.full(len(class_names), -1, dtype=np.int8)
        # Last wins: what is difficult is no plain positive.
        for column, value in ((LABELS_COLUMN, 1), (DIFFICULT_COLUMN, 0)):
            for name in _names(record, column, path):
                if _plain(name) not in columns:
                    raise UserError(f"In {record.place} of '{path}': {unknown_choice('class name', name, class_names)}")
                row[columns[_plain(name)]] = value
        rows.append(row)
    if not rows:
        raise UserError(f"The truth '{path}' has no rows: put one picture with its labels on each.")
    return Truth(tuple(places), tuple(class_names), np.stack(rows))


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _names(record: Row, column: str, path: str | Path) -> list[str]:
    value: Any = record.values.get(column, [])
    if isinstance(value, str):
        value = [name.strip() for name in value.split(";") if name.strip()]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UserError(
            f"The {column} in {record.place} of '{path}' are {short_repr(value)}; they must be class names, "
            "as a list or as text with ';' between them."
        )
    return value
