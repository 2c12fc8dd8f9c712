"""What pictures really show, read from what people keep: tables in several forms, COCO's instances, VOC's folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tai_engine.errors import UserError, unknown_choice
from tai_engine.evaluation.annotations import read_coco, read_voc
from tai_engine.evaluation.label_matrix import LabelMatrix
from tai_engine.regular_files import printable
from tai_engine.sources.ids import ID_COLUMN, LOCATION_COLUMNS, PictureColumns
from tai_engine.tables import Table, TableOptions, read_list, short_repr

LABELS_COLUMNS = ("labels", "tags", "classes", "categories")
"""With all labels of a picture in a row."""
LABEL_COLUMNS = ("label", "tag", "class", "category", "labelname", "label_name", "class_name", "category_name")
"""With one label a row; a picture may have several rows."""
DIFFICULT_COLUMN = "difficult"
CONFIDENCE_COLUMN = "confidence"
PICTURE_COLUMNS = (*LOCATION_COLUMNS, "image_id", "imageid")
UNKNOWN_LABELS = ("error", "ignore")

_COCO_NUMBER = "category_id"
_YES = ("1", "1.0", "true", "yes")
_NO = ("0", "0.0", "false", "no")
_EMPTY = ("",)
_SEPARATORS = (";", "|", ",")


@dataclass(frozen=True, eq=False)
class Truth:
    """Labels of items.

    Attributes:
        ids: N names.
        class_names: C names.
        labels: [N, C] int8: +1 there, -1 not there, 0 difficult.
        passed_over: labels that are no class and were left out, and how often each occurs.
    """

    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: NDArray[np.int8]
    passed_over: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class TruthOptions:
    """What the user says of a truth.

    Attributes:
        unknown_labels: what becomes of labels that are no class: ``"error"``, or ``"ignore"`` passes over them.
        picture_column: the one that names the picture; by default ``id`` or the first of `PICTURE_COLUMNS`.
        label_column: the one of the labels; by default the first of `LABELS_COLUMNS` and `LABEL_COLUMNS`.
        table: of the file itself.

    Raises:
        UserError: for another word.
    """

    unknown_labels: str = "error"
    picture_column: str | None = None
    label_column: str | None = None
    table: TableOptions = field(default_factory=TableOptions)

    def __post_init__(self) -> None:
        if self.unknown_labels not in UNKNOWN_LABELS:
            raise unknown_choice("choice for --unknown-labels", self.unknown_labels, UNKNOWN_LABELS)


def load_truth(path: str | Path, class_names: Sequence[str], options: TruthOptions | None = None) -> Truth:
    """Read the labels of pictures in any of the forms that people have.

    - A table (JSONL, JSON, CSV, TSV, Parquet) with a picture a row and its labels in one column: a list, a JSON list as
      text, or text with ``;``, ``|`` or ``,`` between them; may be empty. ``difficult``, of the same form, is optional.
    - A table with a label a row: a picture has as many rows as labels. A ``confidence`` of 0 says that it is not there
      (as in Open Images), a ``difficult`` of 1 that it is difficult.
    - A table with a column of 1 and 0 for every class (multi-hot). Empty is 0 in a column without a 0, which had
      no pictures without the class otherwise; beside a 0 it could be unknown, and is refused.
    - COCO's instances JSON, with ``images``, ``annotations`` and ``categories``.
    - A folder of Pascal VOC's XML files (or the folder above ``Annotations``).

    In tables the picture is named by ``id``, or by a path in one of `PICTURE_COLUMNS`. Case, underscores and doubled
    blanks in class names do not count.

    Memory: the ids and [N, C] bytes.

    Raises:
        UserError: for a file that cannot be read, is of no known form or has no rows; a row without id or labels; an id
            that occurs twice where it may not (names both rows); a label that is no class (lists close ones).
    """
    options = options or TruthOptions()
    path = Path(path)
    what = f"truth '{printable(path)}'"
    matrix = LabelMatrix(class_names, what, passes_over=options.unknown_labels == "ignore")
    if path.is_dir():
        read_voc(path, matrix)
    else:
        known = (ID_COLUMN, *PICTURE_COLUMNS, *LABELS_COLUMNS, *LABEL_COLUMNS)
        named = [column for column in (options.picture_column, options.label_column) if column is not None]
        table = Table(path, (*known, *named), options.table, kind="truth")
        if table.shape.format != "json" or not read_coco(table, matrix):
            _read_table(table, matrix, options)
    if not len(matrix):
        raise UserError(f"The {what} has no rows: put one picture with its labels on each.")
    return Truth(matrix.ids, tuple(class_names), matrix.labels(), dict(matrix.passed_over))


def _read_table(table: Table, matrix: LabelMatrix, options: TruthOptions) -> None:
    pictures = PictureColumns(table, options.picture_column, PICTURE_COLUMNS)
    column = options.label_column
    if column is not None:
        table.require(column)
    else:
        column = table.find((*LABELS_COLUMNS, *LABEL_COLUMNS))
    if column is None and (classes := [name for name in table.columns if matrix.column(name) is not None]):
        _read_multi_hot(table, matrix, pictures, classes)
        return
    if column is None and table.find([_COCO_NUMBER]):
        raise UserError(
            f"The {table.what} has annotations of COCO alone, whose {_COCO_NUMBER} are numbers: give the whole JSON, "
            "with its 'categories' and 'images', or write the names in a column 'category'."
        )
    column = column or LABELS_COLUMNS[0]
    difficult, confidence = (table.find([name]) or name for name in (DIFFICULT_COLUMN, CONFIDENCE_COLUMN))
    is_long = column.lower() in LABEL_COLUMNS
    for row in table.rows(dict.fromkeys((*pictures.names, column, difficult, confidence))):
        item_id, where = pictures.id_of(row), f"in {row.place} of the {table.what}"
        if column not in row.values:
            if is_long and len(row.values) > 1:  # a picture without a label
                matrix.row(item_id)
                continue
            if column in table.columns:
                raise UserError(
                    f"In {row.place} of the {table.what} nothing stands in the column {column!r}: where a picture "
                    "holds none of the classes, write an empty text or list."
                )
            raise UserError(
                f"In {row.place} of the {table.what} there are no {column!r}: it has {table.listed_columns()}, and "
                "needs a list of class names, or text with ';' between them, empty if there is none; name the column "
                "with --label-column."
            )
        names = _names(row.values[column], column, where, matrix)
        if matrix.has(item_id) and not is_long and not _adds_one(matrix, item_id, names):
            raise UserError(
                f"The id {item_id!r} occurs in {matrix.place(item_id)} and in {row.place} of the {table.what}: remove "
                "one of them."
            )
        matrix.row(item_id, row.place)
        if is_long and _is(sure := row.values.get(confidence, 1), (*_NO, *_EMPTY)):
            if _is(sure, _EMPTY):
                raise UserError(
                    f"The {confidence} {where} is empty, which does not say whether {short_repr(row.values[column])} "
                    "is there: write 1 (there) or 0 (not there), or remove the row."
                )
            continue
        hard = row.values.get(difficult, [])
        if _is(hard, (*_YES, *_NO, *_EMPTY)) and matrix.column(str(hard)) is None:  # 1 or 0, of all labels of the row
            for name in names:
                matrix.mark(item_id, name, 0 if _is(hard, _YES) else 1, where)
            continue
        # Last wins: what is difficult is no plain positive.
        for name in names:
            matrix.mark(item_id, name, 1, where)
        for name in _names(hard, difficult, where, matrix):
            matrix.mark(item_id, name, 0, where)


def _adds_one(matrix: LabelMatrix, item_id: str, names: list[str]) -> bool:
    """Whether a further row of a picture is one label more, as in tables with a label a row."""
    return len(names) == 1 and matrix.count(item_id) > 0 and not matrix.holds(item_id, names[0])


def _read_multi_hot(table: Table, matrix: LabelMatrix, pictures: PictureColumns, classes: list[str]) -> None:
    others = [name for name in table.columns if name not in classes and name not in pictures.names]
    for name in others:
        matrix.check(name, f"as a column of the {table.what}")
    empty: dict[str, str] = {}  # classes, and where each has its first cell of that kind
    with_no: set[str] = set()
    for row in table.rows((*pictures.names, *classes)):
        item_id = pictures.id_of(row)
        if matrix.has(item_id):
            raise UserError(
                f"The id {item_id!r} occurs in {matrix.place(item_id)} and in {row.place} of the {table.what}: remove "
                "one of them."
            )
        matrix.row(item_id, row.place)
        for name in classes:
            value = row.values.get(name, "")
            if _is(value, _YES):
                matrix.mark(item_id, name, 1, row.place)
            elif _is(value, _EMPTY):
                empty.setdefault(name, row.place)
            elif _is(value, _NO):
                with_no.add(name)
            else:
                raise UserError(
                    f"In {row.place} of the {table.what} the class {name!r} is {short_repr(value)}; it must be 1 "
                    f"(there) or 0 (not there); for difficult ones write the columns 'labels' and 'difficult'."
                )
    if unclear := next((name for name in empty if name in with_no), None):
        raise UserError(
            f"In {empty[unclear]} of the {table.what} the class {unclear!r} is empty, and in other rows it is 0 (not "
            "there): write 0 or 1 in all; of what nobody knows write the columns 'labels' and 'difficult', with the "
            "class in the second one."
        )


def _is(value: Any, words: Sequence[str]) -> bool:
    return not isinstance(value, list | dict) and str(value).strip().lower() in words


def _names(value: Any, column: str, where: str, matrix: LabelMatrix) -> list[str]:
    """The class names in a field, in the forms that people write."""
    if isinstance(value, str):
        value = list(_split(value, matrix))
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UserError(
            f"The {column} {where} are {short_repr(value)}; they must be class names, as a list or as text with ';' "
            "between them."
        )
    return [name.strip() for name in value if name.strip()]


def _split(text: str, matrix: LabelMatrix) -> Iterator[Any]:
    text = text.strip()
    if matrix.column(text) is not None:
        yield text
        return
    if text.startswith("["):
        value = read_list(text)
        yield from value if isinstance(value, list) else [text]
        return
    for separator in _SEPARATORS:
        if separator in text:
            yield from text.split(separator)
            return
    words = text.split()
    # Blanks part labels only where every word is one: names have blanks themselves.
    yield from words if len(words) > 1 and all(matrix.column(word) is not None for word in words) else [text]
