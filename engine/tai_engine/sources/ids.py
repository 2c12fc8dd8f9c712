"""What a picture is called: its relative path, in text that every format and every tool can carry.

The rule for names that are not UTF-8: a byte that is no part of valid UTF-8 is written ``%XX`` (two upper-case
hexadecimal digits). So that this can be undone, a ``%`` that already stands before two such digits is written ``%25``;
every other ``%`` stays as it is. Names in UTF-8 are thus nearly always their own id.

An address such as ``https://example.org/a%20b.jpg`` is its own id, letter by letter.
"""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tai_engine.addresses import is_address
from tai_engine.errors import UserError
from tai_engine.tables import Row, Table, short_repr

_ESCAPE = re.compile(rb"%([0-9A-F]{2})")
_ESCAPE_LIKE = re.compile(r"%(?=[0-9A-F]{2})")

# The columns that may name a picture in a table, the first that is there counts; `id` overrules them as the id.
LOCATION_COLUMNS = (
    "path", "file_name", "image", "file", "location", "filename", "file_path", "filepath", "image_path", "image_name",
    "img_path",
)  # fmt: skip
ID_COLUMN = "id"


def id_from_path(path: str | bytes) -> str:
    """The id of a relative path: blanks, case and letters as they are, ``./`` and doubled slashes removed.

    Args:
        path: as the operating system gives it; text may carry undecodable bytes the way `os.fsdecode` marks them.

    Raises:
        UnicodeEncodeError: for text with halves of surrogate pairs, which no file name holds.
    """
    text = posixpath.normpath(os.fsencode(path)).decode("utf-8", "surrogateescape")
    if "%" in text:
        text = _ESCAPE_LIKE.sub("%25", text)
    if text.isascii():
        return text
    # Decoding marks each byte that does not fit as the lone surrogate U+DC00 plus the byte.
    return "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)


def path_from_id(item_id: str) -> str:
    """The relative path that `id_from_path` made ``item_id`` from, ready for `open`; an address as it is."""
    if is_address(item_id):
        return item_id
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), item_id.encode("utf-8")))


def spelt_as_known(ids: Iterable[str], is_known: Callable[[str], bool]) -> list[str]:
    """Ids in the spelling of those who know them: systems compose accents (é is one letter), or do not.

    An id stays as it is where it is known so, or in neither form, or where its other form is among the ids itself.

    Args:
        ids: as somebody else writes them.
        is_known: whether there is an id of exactly this spelling.
    """
    given = list(ids)
    own = frozenset(given)

    def spelt(item_id: str) -> str:
        if item_id.isascii() or is_known(item_id):
            return item_id
        forms = (unicodedata.normalize(form, item_id) for form in ("NFC", "NFD"))
        return next((form for form in forms if form not in own and is_known(form)), item_id)

    return [spelt(item_id) for item_id in given]


def picture_path(folder: Path, item_id: str) -> Path:
    """The file of a picture in the folder that its id is relative to; it need not be there.

    Raises:
        ValueError: for an id that leads out of the folder: absolute, an address, with ``..``, or through a link.
    """
    name = path_from_id(item_id)
    parts = Path(name).parts
    if is_address(item_id) or "\0" in name or Path(name).is_absolute() or ".." in parts or not parts:
        raise ValueError(f"the id {item_id!r} names no file within a folder")
    path = folder / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f"the id {item_id!r} leads out of the folder '{folder}'")
    return path


class PictureColumns:
    """Which columns of a table name its pictures.

    A row is called by its ``id``, or else by its address, or by the id made from its path. An absolute path that lies
    within the table's own folder gives the id of its relative path.

    Args:
        table: the table.
        column: the column of paths or addresses that the user names; by default the first of ``wanted`` that a row has.
        wanted: names of such columns, in the order of preference; case does not count.

    Attributes:
        names: all columns that are to be asked for.

    Raises:
        UserError: if the table has no column of the given name; it lists those that it has.
    """

    def __init__(self, table: Table, column: str | None = None, wanted: Sequence[str] = LOCATION_COLUMNS) -> None:
        self._table = table
        self._wanted = wanted
        self._folder = table.path.absolute().parent
        self._id = table.find([ID_COLUMN]) or ID_COLUMN
        if column is not None:
            self._locations: tuple[str, ...] = (table.require(column),)
        else:
            spelt = (spelling for name in wanted for spelling in (name, table.find([name]) or name))
            self._locations = tuple(dict.fromkeys(spelt))
        self.names = (self._id, *self._locations)

    def location_of(self, row: Row) -> str:
        """The path or address of a row, as written.

        Raises:
            UserError: if there is none, or one that is no text.
        """
        column = next((c for c in self._locations if c in row.values), None)
        if column is None:
            raise self._no_name(row, "a path or an address as text", self._wanted)
        path = row.values[column]
        if not isinstance(path, str) or not path or "\0" in path:
            raise UserError(
                f"The {column} in {row.place} of the {self._table.what} is {short_repr(path)}; it must be a path as "
                "text, or an address."
            )
        return path

    def id_of(self, row: Row, found: str | None = None) -> str:
        """The id of a row.

        Args:
            row: of the table.
            found: the path under which its file was found, where that is spelt otherwise than in the row.

        Raises:
            UserError: if there is neither an id nor a path, or one that is no text in Unicode.
        """
        where = f"in {row.place} of the {self._table.what}"
        given = row.values.get(self._id, "")
        try:
            if given != "":
                if isinstance(given, bool) or not isinstance(given, str | int):
                    raise UserError(f"The id {where} is {short_repr(given)}; it must be text or a whole number.")
                str(given).encode("utf-8")
                return str(given)
            if all(row.values.get(column, "") == "" for column in self._locations):
                raise self._no_name(row, "text", (ID_COLUMN, *self._wanted))
            path = self.location_of(row) if found is None else found
            if is_address(path):
                path.encode("utf-8")
                return path
            if path.startswith("/") and Path(path).is_relative_to(self._folder):
                path = os.path.relpath(path, self._folder)
            return id_from_path(path)
        except UnicodeEncodeError as error:
            raise UserError(f"The id or path {where} is not valid Unicode: mend it.") from error

    def _no_name(self, row: Row, what: str, wanted: Sequence[str]) -> UserError:
        there = next((column for column in (*self._locations, self._id) if column in self._table.columns), None)
        if there is not None:
            return UserError(
                f"In {row.place} of the {self._table.what} no column names the picture, for {there!r} is empty or "
                f"missing there: fill it in, or another one of {', '.join(wanted)}, or remove the row."
            )
        return UserError(
            f"In {row.place} of the {self._table.what} no column names the picture: it has "
            f"{self._table.listed_columns()}; it needs {what} in one of {', '.join(wanted)}, or name the column with "
            "--column."
        )
