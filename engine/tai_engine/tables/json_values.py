"""JSON that strangers wrote: lines and large files, read a value at a time with bounds on size and depth.

Large files are parsed by ijson. It is asked for events alone and the values are put together here, since the depth and
the size of a value have to be bounded while it is built: its own prefixes take all memory there is on 100,000 open
brackets. Numbers of more digits than Python allows end its C parser, and the process with it (ijson 3.6), so they are
looked for before it sees them.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from typing import IO, Any

import ijson

from tai_engine.errors import UserError

MAX_VALUE_BYTES = 16 * 2**20
MAX_DEPTH = 100
MAX_DIGITS = 4300
"""Python's own limit: turning digits into a number takes time by the square of their count."""

_DIGITS = bytes(ord("0") if chr(byte).isdecimal() and byte < 128 else ord(" ") for byte in range(256))
_TOO_MANY_DIGITS = b"0" * (MAX_DIGITS + 1)
_BLOCK_BYTES = 64 * 1024
_TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels, the most that tai-engine reads"


def parse_json(text: str) -> Any:
    """One JSON value of a text; whole numbers of more than `MAX_DIGITS` digits stay text, and what an object has
    under one key twice is a `WrittenTwice`.

    Raises:
        ValueError: for text that is no JSON or too deep, with a reason for people.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at column {error.colno}") from None


def read_list(text: str) -> Any:
    """What a list stands for that JSON or Python wrote into a field; None for what is neither."""
    try:
        return parse_json(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text) if len(text) < 100_000 else None
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _whole_number(digits: str) -> int | str:
    return int(digits) if len(digits) <= MAX_DIGITS else digits


class WrittenTwice:
    """In the place of a value under a key that an object has again with another one: neither text, number nor list."""

    def __init__(self, one: object, other: object) -> None:
        self._values = (one, other)

    def __repr__(self) -> str:
        return " and ".join(map(repr, self._values))


def _put(holder: dict[str, Any], key: str, value: Any) -> None:
    before = holder.get(key, value)
    # Of a third one nothing is kept: what is wrong is told by two.
    is_other = not isinstance(before, WrittenTwice) and before != value
    holder[key] = WrittenTwice(before, value) if is_other else before


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        found = {}
        for key, value in pairs:
            _put(found, key, value)
    return found


_DECODER = json.JSONDecoder(parse_int=_whole_number, object_pairs_hook=_object)


class JsonArrays:
    """The elements of arrays of one large JSON file, each read whole and then forgotten.

    An array may be the file itself (key ``""``) or stand under a key of the object that the file is.

    Memory: one element, of at most `MAX_VALUE_BYTES` bytes of text.

    Args:
        file: bytes in UTF-8, without a byte order mark.
        what: what messages call the file, with its name.

    Attributes:
        found: whether one of the arrays has come by.

    Raises:
        UserError: while reading, for text that is no JSON, and for values that are too large or too deep.
    """

    def __init__(self, file: IO[bytes], what: str) -> None:
        self.found = False
        self._bytes = _CountedBytes(file, what)
        self._what = what

    @property
    def is_empty(self) -> bool:
        """Whether nothing but blanks has come by."""
        return self._bytes.is_blank

    def elements(self, keys: frozenset[str]) -> Iterator[tuple[str, Any]]:
        """Key and element of every array under one of these keys, in the order of the file."""
        try:
            yield from self._elements(keys)
        except ijson.JSONError as error:
            if self.is_empty:
                return
            reason = str(error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else error)
            advice = ": save it as UTF-8, or name its encoding with --encoding" if "UTF8" in reason else ""
            raise UserError(f"The {self._what} is not valid JSON ({reason.splitlines()[0]}){advice}.") from None
        except UnicodeError as error:
            raise UserError(
                f"The {self._what} is not of its encoding ({error}): save it as UTF-8, or name its encoding with "
                "--encoding."
            ) from None

    def _elements(self, keys: frozenset[str]) -> Iterator[tuple[str, Any]]:
        source = self._bytes
        events = ijson.basic_parse(source, buf_size=_BLOCK_BYTES, multiple_values=True)
        depth, key = 0, ""
        array: str | None = None
        for event, value in events:
            source.begin()
            if array is not None:
                if event == "end_array":
                    array = None
                    depth -= 1
                else:
                    yield array, self._value(event, value, events)
            elif event == "map_key":
                if depth == 1:
                    key = value
            elif event in ("start_map", "start_array"):
                depth += 1
                self._check_depth(depth)
                is_top = event == "start_array" and (depth == 1 or (depth == 2 and key))
                if is_top and (found := key if depth == 2 else "") in keys:
                    array = found
                    self.found = True
                elif depth == 1:
                    key = ""
            elif event in ("end_map", "end_array"):
                depth -= 1
                if depth == 1:
                    key = ""

    def _value(self, event: str, value: Any, events: Iterator[tuple[str, Any]]) -> Any:
        """The value that begins with this event."""
        if event not in ("start_map", "start_array"):
            return _plain(value) if event == "number" else value
        whole: Any = {} if event == "start_map" else []
        holder, key = whole, ""
        outer: list[tuple[Any, str]] = []
        for inner, item in events:
            if inner == "map_key":
                key = item
                continue
            if inner in ("end_map", "end_array"):
                if not outer:
                    return whole
                holder, key = outer.pop()
                continue
            is_open = inner in ("start_map", "start_array")
            if is_open:
                item = {} if inner == "start_map" else []
            elif inner == "number":
                item = _plain(item)
            if isinstance(holder, dict):
                _put(holder, key, item)
            else:
                holder.append(item)
            if is_open:
                outer.append((holder, key))
                holder = item
                self._check_depth(len(outer) + 1)
        raise AssertionError("unreachable: a cut file raises while its events are read")

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise UserError(f"The {self._what} cannot be read: {_TOO_DEEP}.")


def _plain(number: Any) -> int | float:
    """A number as `json` gives it: ijson's own are decimal."""
    return number if isinstance(number, int) else float(number)


class _CountedBytes:
    """A file that refuses to go on in a value without end, or a number that the parser does not survive."""

    def __init__(self, file: IO[bytes], what: str) -> None:
        self._file, self._what = file, what
        self.is_blank = True
        self._count = self._begun = 0
        self._tail = b""

    def begin(self) -> None:
        """A value, or a word between values, begins or has ended here."""
        self._begun = self._count

    def read(self, size: int) -> bytes:
        """The next bytes."""
        data = self._file.read(size)
        self._count += len(data)
        self.is_blank = self.is_blank and not data.strip()
        if self._count - self._begun > MAX_VALUE_BYTES + _BLOCK_BYTES:
            raise UserError(
                f"The {self._what} holds a value of more than {MAX_VALUE_BYTES // 2**20} MiB, the most that tai-engine "
                "reads as one."
            )
        window = self._tail + data
        if _TOO_MANY_DIGITS in window.translate(_DIGITS):
            raise UserError(
                f"The {self._what} holds more than {MAX_DIGITS:,} digits in a row, the most that tai-engine reads as a "
                "number."
            )
        self._tail = window[-MAX_DIGITS:]
        return data
