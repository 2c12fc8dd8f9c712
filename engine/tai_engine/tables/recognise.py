"""What a table is: its content decides where it speaks clearly, the suffix of its name where it does not."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import PurePath

from tai_engine.errors import UserError, unknown_choice
from tai_engine.tables.json_values import parse_json
from tai_engine.tables.text_files import check_encoding

FORMATS = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".json": "json",
}
FORMAT_NAMES = tuple(dict.fromkeys(FORMATS.values()))
LIST_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
"""Of files that name one picture a row."""
SEPARATORS = {"csv": ",", "tsv": "\t"}
PARQUET_MAGIC = b"PAR1"

_ALL_SEPARATORS = (",", "\t", ";", "|")
_SEPARATOR_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
_LINE_END = re.compile(r"\r\n|\n|\r")
_EXCEL_DIRECTIVE = re.compile(r'"?sep=(.)"?')
_COLUMN_NAME = re.compile(r"[\w.#-]+")
_PICTURE_NAME = re.compile(r"\S+\.(?:jpe?g|png|webp|gif|bmp|tiff?|avif|heic)(?:#\d+)?", re.IGNORECASE)
_LINK = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)


@dataclass(frozen=True)
class TableOptions:
    """What the user says of a table; whatever is left out is looked for in the file.

    Attributes:
        format: one of `FORMAT_NAMES`; None goes by content and name.
        separator: between the fields of CSV, one character or its name (``"tab"``, ``"semicolon"``, ...).
        header: whether the first line of CSV and TSV names the columns; without, they are called 1, 2, ...
        encoding: of text; a byte order mark overrules ``"utf-8"``.

    Raises:
        UserError: for an unknown format or encoding, or a separator of several characters.
    """

    format: str | None = None
    separator: str | None = None
    header: bool | None = None
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMAT_NAMES:
            raise unknown_choice("table format", self.format, FORMAT_NAMES)
        check_encoding(self.encoding)
        if self.separator is not None:
            separator = _SEPARATOR_NAMES.get(self.separator.lower(), self.separator)
            if len(separator) != 1 or separator in '"\r\n\0':
                raise UserError(
                    f"The separator is {self.separator!r}; it must be one character, or one of "
                    f"{', '.join(name for name in _SEPARATOR_NAMES if name.isalpha())}."
                )
            object.__setattr__(self, "separator", separator)


@dataclass(frozen=True)
class TableShape:
    """How the bytes of a table become rows.

    Attributes:
        format: one of `FORMAT_NAMES`.
        separator: of CSV and TSV.
        columns: of CSV and TSV, in order.
        skipped_rows: before the first one that counts; blank lines are none.
        comments: lines that begin with ``#`` before all others.
        quotes: whether quotation marks may enclose fields.
        blanks: whether blanks stand around the separators of the header, and so around those of all lines.
    """

    format: str
    separator: str = ","
    columns: tuple[str, ...] = ()
    skipped_rows: int = 0
    quotes: bool = True
    blanks: bool = False
    comments: int = 0


def format_of_name(name: str) -> str | None:
    """The format that the suffix of a file name speaks of (``.gz`` left aside); None for another suffix."""
    path = PurePath(name.lower())
    return FORMATS.get(PurePath(path.stem).suffix if path.suffix == ".gz" else path.suffix)


def is_list(path: str | PurePath) -> bool:
    """Whether the suffix is one of `LIST_SUFFIXES`, in any case."""
    return PurePath(path).suffix.lower() in LIST_SUFFIXES


def recognise(
    named: str | None, head: str, is_whole: bool, options: TableOptions, known: Collection[str], what: str
) -> TableShape:
    """The shape of a table of text.

    Args:
        named: the format that its name speaks of.
        head: its first characters.
        is_whole: whether that is all of it.
        options: what the user says.
        known: names of columns, in lower case, by which a header is known.
        what: what messages call the file, with its name.

    Raises:
        UserError: where neither the content nor the suffix says what it is.
    """
    lines = _LINE_END.split(head)
    is_cut = not is_whole and len(lines) == 1
    if not is_whole and not is_cut:
        lines.pop()  # it may be cut
    rows = [line for line in lines if line.strip()]
    chosen = options.format or _json_format(rows, named, head if is_whole else None, is_cut=is_cut)
    if chosen is None and options.separator is not None:
        chosen = "csv"
    if chosen in ("json", "jsonl"):
        return TableShape(chosen)
    if chosen is None or chosen in SEPARATORS:
        # Prose is a table only where its first lines leave no doubt.
        speaks = chosen or named
        is_table = speaks in SEPARATORS
        default = options.separator or SEPARATORS.get(speaks or "csv", ",")
        shape = _delimited(rows, default, options, known, is_sure=is_table)
        comments = next((n for n, row in enumerate(rows) if not row.lstrip().startswith("#")), 0)
        if comments and is_table:
            below = _delimited(rows[comments:], default, options, known, is_sure=True)
            if below is not None and any(name.lower() in known for name in below.columns):
                return replace(below, comments=comments)
        if shape is not None:
            return shape
    chosen = chosen or named
    if chosen is None:
        raise UserError(
            f"The kind of the {what} is not known from its name or content: use one of the endings "
            f"{', '.join(FORMATS)} (also followed by .gz), or say --format {', '.join(FORMAT_NAMES[:-1])} or "
            f"{FORMAT_NAMES[-1]}."
        )
    return TableShape(chosen)


def _json_format(rows: list[str], named: str | None, whole: str | None, *, is_cut: bool) -> str | None:
    """``"json"`` or ``"jsonl"`` where the first lines leave no doubt."""
    first = rows[0].strip() if rows else ""
    if first in ("[", "{", "[{"):
        return "json"
    if not first.startswith(("[", "{")):
        return None
    try:
        value = parse_json(first)
    except ValueError:
        if named in ("json", "jsonl") or (whole is not None and _is_json(whole)):
            return named if named in ("json", "jsonl") else "json"
        return "json" if is_cut and named is None else None
    if isinstance(value, dict):
        goes_on = len(rows) > 1 and rows[1].lstrip().startswith("{")
        return "jsonl" if goes_on or named not in ("json", None) else "json"
    is_array = len(rows) == 1 and all(isinstance(item, str | dict) for item in value)
    return "json" if is_array else named if named in ("json", "jsonl") else None


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except ValueError:
        return False
    return True


def _delimited(
    rows: list[str], default: str, options: TableOptions, known: Collection[str], *, is_sure: bool
) -> TableShape | None:
    """The shape as CSV or TSV; of what may be prose (not ``is_sure``) only beyond doubt."""
    directive = _EXCEL_DIRECTIVE.fullmatch(rows[0].strip()) if rows else None
    skipped = 0
    if directive is not None and options.separator is None:
        default, rows, skipped = directive[1], rows[1:], 1
    candidates = [default]
    if directive is None and options.separator is None:
        candidates += [s for s in _ALL_SEPARATORS if s != default]
    if options.header is not False:
        for separator in candidates:
            fields = _parsed(rows, separator)
            if fields and _is_header(fields, known, is_sure=is_sure or bool(options.separator)):
                return TableShape(
                    "csv", separator, tuple(fields[0]), skipped + 1, blanks=_has_blanks(rows[0], separator)
                )
    if options.header is None:
        for separator in ("\t", "|", *(candidates if is_sure else ())):
            if separator in candidates and (columns := _columns_without_header(rows, separator)):
                return TableShape("csv", separator, columns, skipped, quotes=separator not in "\t|")
    if not is_sure and not options.separator:
        return None
    # Of no known columns: the separator that parts the first lines alike, so that a message can name them.
    separator = next((s for s in candidates if _parts_alike(_parsed(rows, s))), default)
    fields = _parsed(rows, separator)
    width = len(fields[0]) if fields else 0
    if options.header is False:
        return TableShape("csv", separator, tuple(str(n + 1) for n in range(width)), skipped, separator not in "\t|")
    blanks = bool(rows) and _has_blanks(rows[0], separator)
    return TableShape("csv", separator, tuple(fields[0]) if fields else (), skipped + 1, blanks=blanks)


def _parsed(rows: list[str], separator: str) -> list[list[str]]:
    """The fields of the first lines, blanks around them taken off; none where they are not valid."""
    try:
        return [[field.strip() for field in row] for row in csv.reader(_with_ends(rows), delimiter=separator) if row]
    except csv.Error:
        return []


def _has_blanks(header: str, separator: str) -> bool:
    return separator != "\t" and (f"{separator} " in header or f" {separator}" in header)


def _with_ends(rows: list[str]) -> Iterator[str]:
    return (row + "\n" for row in rows)


def _parts_alike(fields: list[list[str]]) -> bool:
    return bool(fields) and len(fields[0]) > 1 and len({len(row) for row in fields}) == 1


def _is_header(fields: list[list[str]], known: Collection[str], *, is_sure: bool) -> bool:
    """Whether the first line names columns of which at least one is known."""
    header = [name.lower() for name in fields[0]]
    count = sum(name in known for name in header)
    if is_sure or not count:
        return bool(count)
    if len(header) < 2 or len(fields) < 2 or not all(_COLUMN_NAME.fullmatch(name) for name in header):
        return False
    return count > 1 or _parts_alike(fields)


def _columns_without_header(rows: list[str], separator: str) -> tuple[str, ...]:
    """Names for the columns of lines that begin at once, told by a picture's name or link in each; else none.

    Flickr's ``1000.jpg#0<tab>A dog.`` and the Conceptual Captions' ``a dog<tab>http://...`` are such files.
    """
    fields = [row.split(separator) for row in rows]
    width = len(fields[0]) if fields else 0
    if width < 2 or any(len(row) != width for row in fields):
        return ()
    places = [n for n in range(width) if all(_is_location(row[n].strip()) for row in fields)]
    if len(places) != 1:
        return ()
    if width == 2:
        return ("image", "caption") if places[0] == 0 else ("caption", "image")
    return tuple(str(n + 1) for n in range(width))


def _is_location(field: str) -> bool:
    return _PICTURE_NAME.fullmatch(field) is not None or _LINK.fullmatch(field) is not None
