"""JSON that is written piece by piece, however many pictures there are."""

from __future__ import annotations

import json
from typing import IO, Any


def json_text(value: Any) -> str:
    """One JSON value on one line.

    Raises:
        ValueError: for numbers that JSON does not know (infinite, NaN).
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


class JsonPieces:
    """The entries of a list or an object in a text file, one a line; the brackets around them are the caller's.

    Args:
        file: open for writing, right after the opening bracket.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._before = "\n"

    def write(self, entry: str) -> None:
        """Write one entry, as `json_text` gives it; of an object with its key and a colon before it."""
        self._file.write(self._before + entry)
        self._before = ",\n"
