"""One large JSON file, read an element at a time: neither the text nor the values are ever held whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tai_engine.errors import UserError

MAX_VALUE_CHARACTERS = 1 << 24
_BLOCK_CHARACTERS = 1 << 20
_AFTER_VALUE = frozenset(",]}: \t\r\n")


class _JsonScanner:
    """Decodes a JSON text piece by piece; what has been read is dropped."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self._path, self._file = path, file
        self._buffer, self._position, self._at_end = "", 0, False
        self._decode = json.JSONDecoder().raw_decode

    def _grow(self) -> None:
        block = self._file.read(_BLOCK_CHARACTERS)
        self._at_end = not block
        self._buffer = self._buffer[self._position :] + block
        self._position = 0

    def peek(self) -> str:
        """The next character that is not blank, "" at the end."""
        while True:
            while self._position < len(self._buffer):
                character = self._buffer[self._position]
                if character not in " \t\r\n":
                    return character
                self._position += 1
            if self._at_end:
                return ""
            self._grow()

    def expect(self, allowed: str) -> str:
        """Read one of these characters."""
        character = self.peek()
        if not character or character not in allowed:
            found = repr(character) if character else "the file ends"
            raise UserError(f"{self._path} is not valid JSON: {found} where one of {allowed!r} belongs.")
        self._position += 1
        return character

    def value(self) -> Any:
        """Read one whole value."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._buffer, self._position)
            except json.JSONDecodeError as error:
                if self._at_end:
                    raise UserError(f"{self._path} is not valid JSON ({error.msg}).") from None
            else:
                # A number that the block cuts ("12|34", "0.|5") decodes too; what may follow a value tells.
                if self._at_end or self._buffer[end : end + 1] in _AFTER_VALUE:
                    self._position = end
                    return value
            if len(self._buffer) - self._position > MAX_VALUE_CHARACTERS:
                raise UserError(
                    f"{self._path} is not valid JSON, or holds a value of more than {MAX_VALUE_CHARACTERS} characters."
                )
            self._grow()

    def elements(self) -> Iterator[Any]:
        """Read an array one element at a time."""
        self.expect("[")
        if self.peek() == "]":
            self.expect("]")
            return
        while True:
            yield self.value()
            if self.expect(",]") == "]":
                return


def json_elements(path: Path, file: IO[str]) -> Iterator[Any]:
    """The elements of the array that a JSON file is, or of its "annotations" as in COCO's caption files.

    An empty file has no elements. What follows the annotations is not looked at.

    Args:
        path: named in errors.
        file: the text, from its beginning.

    Raises:
        UserError: for text that is not JSON or has neither array.
    """
    scanner = _JsonScanner(path, file)
    if not scanner.peek():
        return
    if scanner.peek() == "[":
        yield from scanner.elements()
        return
    scanner.expect("{")
    found = False
    while not found and scanner.peek() != "}":
        key = scanner.value()
        scanner.expect(":")
        if key == "annotations" and scanner.peek() == "[":
            found = True
            yield from scanner.elements()
        elif scanner.peek() == "[":
            for _ in scanner.elements():
                pass
        else:
            scanner.value()
        if scanner.peek() != "}":
            scanner.expect(",")
    if not found:
        raise UserError(
            f"{path} has no sentences: expected an array, or an object with an array 'annotations' as in COCO's "
            "caption files; one JSON object a line is read when the file's name ends in .jsonl."
        )
