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
from collections.abc import Mapping
from pathlib import Path

from tai_engine.addresses import is_address
from tai_engine.errors import UserError

_ESCAPE = re.compile(rb"%([0-9A-F]{2})")
_ESCAPE_LIKE = re.compile(r"%(?=[0-9A-F]{2})")

# The columns that may name a picture in a list, the first that is there counts; `id` overrules them as the id.
LOCATION_COLUMNS = ("path", "file_name", "image", "file", "location")
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


def id_of_row(values: Mapping[str, object], place: str, list_path: str | Path) -> str:
    """The id of a row of a list: its ``id``, or else its address, or made from its path.

    An absolute path that lies within the list's own folder gives the id of its relative path.

    Args:
        values: the row's columns.
        place: where the row stands, for the error message.
        list_path: the list.

    Raises:
        UserError: if there is neither an id nor a path, or one that is no text in Unicode.
    """
    given = values.get(ID_COLUMN, "")
    column = next((c for c in LOCATION_COLUMNS if c in values), LOCATION_COLUMNS[0])
    path = values.get(column, "")
    try:
        if given != "":
            if isinstance(given, bool) or not isinstance(given, str | int):
                raise UserError(f"The id in {place} of '{list_path}' is {given!r}; it must be text or a whole number.")
            str(given).encode("utf-8")
            return str(given)
        if path == "":
            raise UserError(
                f"In {place} of '{list_path}' nothing names the picture: it needs text in {ID_COLUMN!r} or in one of "
                f"{', '.join(LOCATION_COLUMNS)}."
            )
        if not isinstance(path, str) or "\0" in path:
            raise UserError(f"The {column} in {place} of '{list_path}' is {path!r}; it must be a path as text.")
        if is_address(path):
            path.encode("utf-8")
            return path
        if path.startswith("/"):
            folder = Path(list_path).absolute().parent
            if Path(path).is_relative_to(folder):
                path = os.path.relpath(path, folder)
        return id_from_path(path)
    except UnicodeEncodeError as error:
        raise UserError(f"The id or path in {place} of '{list_path}' is not valid Unicode: mend it.") from error
