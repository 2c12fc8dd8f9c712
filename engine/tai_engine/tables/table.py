"""A table that somebody keeps, read row by row whatever it is.

Memory: one line, one JSON value or one batch of Parquet rows.
"""

from __future__ import annotations

import csv
import reprlib
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple

from tai_engine.errors import MANY, UserError, unknown_choice
from tai_engine.tables.json_values import JsonArrays, parse_json
from tai_engine.tables.parquet_rows import packed_columns, parquet_columns, parquet_rows
from tai_engine.tables.recognise import (
    PARQUET_MAGIC,
    SEPARATORS,
    TableOptions,
    TableShape,
    format_of_name,
    recognise,
)
from tai_engine.tables.text_files import HEAD_BYTES, encoding_of, in_utf8, numbered_lines, open_bytes

LINE_COLUMN = ""
"""The one column of what has no names: lines of text, and JSON values that are text alone."""

COCO_ARRAY = "annotations"


class Row(NamedTuple):
    """One row of a table.

    Attributes:
        place: where it stands, for messages: ``"line 3"``, ``"row 3"`` or ``"entry 3"``, counted from 1.
        values: by the names that were asked for; columns that the row has not, or that are null, are left out.
    """

    place: str
    values: dict[str, Any]


class Table:
    """Rows of a JSONL, JSON, CSV, TSV, Parquet or text file; may be read again and again.

    A JSON file is an array of rows, or an object with an array ``annotations``, as COCO's caption files, or another one
    that `take_array` names. Text has one row a line. Of Parquet files, columns of structs and bytes are passed over:
    pictures inside a table are no paths. All but Parquet may be gzipped.

    Args:
        path: of the file.
        known: names of columns by which a header is known from the first row.
        options: what the user says of the file.
        kind: what messages call it, such as ``"list"``.
        name: the name for messages; by default the path.
        short_rows: whether rows of CSV may lack fields at their end.
        default_format: what it is where neither its content nor its name says so; None refuses it.

    Attributes:
        what: what messages call the file, with its name.

    Raises:
        UserError: for a file that is missing, no regular one or not readable, or whose kind nobody knows. While
            reading: for damage, text in another encoding, or values beyond a bound; names the line.
    """

    def __init__(
        self,
        path: str | Path,
        known: Collection[str] = (),
        options: TableOptions | None = None,
        *,
        kind: str = "table",
        name: str | None = None,
        short_rows: bool = False,
        default_format: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.what = f"{kind} '{path if name is None else name}'"
        self._options = options or TableOptions()
        self._short_rows = short_rows
        self._encoding = "utf-8"
        self._arrays = _JSON_ARRAYS
        self.shape = self._look(name or self.path.name, known, default_format)

    def _look(self, name: str, known: Collection[str], default_format: str | None) -> TableShape:
        with open_bytes(self.path, self.what) as file:
            head = file.read(HEAD_BYTES + 1)
        named = self._options.format or format_of_name(name)
        # An empty Parquet file is damaged, not empty.
        if head.startswith(PARQUET_MAGIC) or named == "parquet":
            return TableShape("parquet")
        self._encoding = encoding_of(head, self.what, self._options.encoding)
        text = head[:HEAD_BYTES].decode(self._encoding, "replace")
        lower = {column.lower() for column in known}
        named = named or default_format
        return recognise(named, text, len(head) <= HEAD_BYTES, self._options, lower, self.what)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns: of JSON, those of the first row that has any."""
        if self.shape.format == "parquet":
            return parquet_columns(self.path, self.what)
        if self.shape.format in SEPARATORS:
            return self.shape.columns
        if self.shape.format == "text":
            return ()
        return next((tuple(row.values) for row in self.rows() if LINE_COLUMN not in row.values), ())

    def find(self, wanted: Sequence[str]) -> str | None:
        """The column that has the first of the wanted names that is there; case does not count."""
        by_lower = {column.lower(): column for column in reversed(self.columns)}
        return next((by_lower[w.lower()] for w in wanted if w.lower() in by_lower), None)

    def require(self, column: str) -> str:
        """``column``, which the user named.

        Raises:
            UserError: if the table has no such column; it lists those that it has.
        """
        if column not in self.columns:
            raise unknown_choice(f"column in the {self.what}:", column, self.columns)
        return column

    def listed_columns(self) -> str:
        """The columns of the table, for messages."""
        shown = ", ".join(repr(c) if len(c) < 60 else repr(c[:60] + "...") for c in self.columns[: 2 * MANY])
        more = f" and {len(self.columns) - 2 * MANY} more" if len(self.columns) > 2 * MANY else ""
        packed = packed_columns(self.path, self.what) if self.shape.format == "parquet" else ()
        unread = f" (and, of bytes or structs, which are not read: {', '.join(map(repr, packed[:MANY]))})"
        return (shown or "none") + more + (unread if packed else "")

    def rows(self, columns: Collection[str] | None = None) -> Iterator[Row]:
        """The rows in order; blank lines are skipped, but for text.

        Args:
            columns: what is wanted, by its exact name; None for all.

        Raises:
            UserError: see the class.
        """
        if self.shape.format == "parquet":
            wanted = self.columns if columns is None else columns
            for number, values in enumerate(parquet_rows(self.path, wanted, self.what), 1):
                yield Row(f"row {number}", values)
            return
        names = self.shape.columns
        if twice := [column for column in columns or () if names.count(column) > 1]:
            raise UserError(
                f"The header of the {self.what} names the column {twice[0]!r} twice: rename one of the two."
            )
        with open_bytes(self.path, self.what) as file:
            yield from self._text_rows(file, columns)

    def _text_rows(self, file: IO[bytes], columns: Collection[str] | None) -> Iterator[Row]:
        if self.shape.format == "json":
            yield from self._json_rows(file, columns)
            return
        lines = numbered_lines(file, self._encoding, self.what)
        if self.shape.format == "text":
            for number, line in lines:
                yield Row(f"line {number}", {LINE_COLUMN: line})
        elif self.shape.format == "jsonl":
            yield from self._jsonl_rows(lines, columns)
        else:
            yield from self._delimited_rows((line for _, line in lines), columns)

    def take_array(self, key: str) -> None:
        """Let the rows of a file in JSON be those of the array under a key, before any is read."""
        self._arrays = frozenset({key})

    def elements(self, keys: frozenset[str]) -> Generator[tuple[str, Any]]:
        """Key and element of every array under one of these keys of a file in JSON, in its order; memory: one element.

        Raises:
            UserError: for a file that cannot be read, is no JSON, or has values that are too large or too deep.
        """
        with open_bytes(self.path, self.what) as file:
            yield from JsonArrays(in_utf8(file, self._encoding), self.what).elements(keys)

    def _json_rows(self, file: IO[bytes], columns: Collection[str] | None) -> Iterator[Row]:
        arrays = JsonArrays(in_utf8(file, self._encoding), self.what)
        for number, (_, value) in enumerate(arrays.elements(self._arrays), 1):
            yield self._json_row(f"entry {number}", value, columns)
        if not arrays.found and not arrays.is_empty:
            raise UserError(
                f"The {self.what} has no rows: expected an array, or an object with an array {COCO_ARRAY!r} as in "
                "COCO's caption files; say --format jsonl if it has one JSON object a line."
            )

    def _jsonl_rows(self, lines: Iterable[tuple[int, str]], columns: Collection[str] | None) -> Iterator[Row]:
        for number, line in lines:
            if not line.strip():
                continue
            try:
                value = parse_json(line)
            except ValueError as error:
                raise UserError(
                    f"Line {number} of the {self.what} is not valid JSON ({error}): mend or remove it; JSONL has one "
                    "object a line."
                ) from None
            yield self._json_row(f"line {number}", value, columns)

    def _json_row(self, place: str, value: Any, columns: Collection[str] | None) -> Row:
        if isinstance(value, str):
            return Row(place, {LINE_COLUMN: value})
        if not isinstance(value, dict):
            raise UserError(
                f"{place.capitalize()} of the {self.what} is {short_repr(value)}, not a JSON object such as "
                '{"column": "value"}: mend or remove it.'
            )
        names = value if columns is None else columns
        return Row(place, {key: item for key in names if (item := value.get(key)) is not None})

    def _delimited_rows(self, lines: Iterator[str], columns: Collection[str] | None) -> Iterator[Row]:
        shape = self.shape
        if not shape.columns:
            return
        dialect = _WithQuotes if shape.quotes else _WithoutQuotes
        before = _pass_comments(lines, shape.comments)
        reader = csv.reader(lines, dialect, delimiter=shape.separator, skipinitialspace=shape.blanks)
        width = len(shape.columns)

        def where() -> str:
            return f"Line {before + reader.line_num} of the {self.what}"

        wanted = [(n, name) for n, name in enumerate(shape.columns) if columns is None or name in columns]
        passed = 0
        try:
            for fields in reader:
                if not fields or (len(fields) == 1 and not fields[0].strip() and (width > 1 or fields[0])):
                    continue
                if passed < shape.skipped_rows:
                    passed += 1
                    continue
                if len(fields) > width or (len(fields) < width and not self._short_rows):
                    raise UserError(
                        f"{where()} has {len(fields)} fields but the header {width}: "
                        f"put quotation marks around fields that contain the separator {shape.separator!r}, or name "
                        "the right one with --separator."
                    )
                if shape.separator == "|" or shape.blanks:  # as people write them: with blanks around
                    fields = [field.strip() for field in fields]
                values = {name: fields[n] for n, name in wanted if n < len(fields)}
                yield Row(f"line {before + reader.line_num}", values)
        except csv.Error as error:
            if "limit" in str(error):
                raise UserError(
                    f"{where()} has a field of more than {csv.field_size_limit():,} "
                    "characters, the most that tai-engine reads in CSV: is a quotation mark left open, or the "
                    "separator another one (--separator)?"
                ) from None
            if "new-line character" in str(error):  # and advice for programmers
                raise UserError(
                    f"{where()} has a carriage return within a field: lines end in "
                    "several ways; save the file with one kind of line ends."
                ) from None
            raise UserError(f"{where()} is not valid CSV ({error}): mend it.") from None


def _pass_comments(lines: Iterator[str], count: int) -> int:
    """Go past so many lines that begin with ``#``; gives the number of all lines until there."""
    passed = 0
    while count:
        count -= next(lines, "#").lstrip().startswith("#")
        passed += 1
    return passed


class _WithQuotes(csv.excel):
    """Fields may stand in quotation marks; what does not fit is an error."""

    strict = True


class _WithoutQuotes(csv.excel):
    """Quotation marks are characters as others."""

    quoting = csv.QUOTE_NONE


_JSON_ARRAYS = frozenset({"", COCO_ARRAY})


def short_repr(value: object) -> str:
    """A value that somebody wrote, for messages: however large or deep it is."""
    return reprlib.repr(value)
