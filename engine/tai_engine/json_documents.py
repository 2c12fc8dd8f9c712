"""JSON documents that somebody else may have made: small, of ordinary depth, with numbers that are numbers.

Every module that reads JSON does it by `parse_json`, but for users' tables, which may be large: `tai_engine.tables`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from tai_engine.regular_files import check_size, open_regular


def read_json(path: str | Path, max_bytes: int) -> Any:
    """The value in a file.

    Args:
        path: of a regular file; nothing else is opened.
        max_bytes: a larger file is not read.

    Raises:
        ItemError: if there is no regular file, it cannot be read, or it is too large.
        ValueError: as `parse_json`, and for text that is not UTF-8.
    """
    with open_regular(path) as file:
        data = file.read(max_bytes + 1)
    check_size(len(data), max_bytes)
    return parse_json(data)


def parse_json(text: str | bytes) -> Any:
    """The value of a text, or of bytes that are one in UTF-8.

    Raises:
        ValueError: for what is not UTF-8 or not JSON, is nested hundreds of levels deep, has a key twice in one object,
            or holds an infinity, NaN or a number of thousands of digits.
    """
    decoded = text.decode("utf-8") if isinstance(text, bytes) else text
    try:
        return json.loads(decoded, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"it has {next(name for name, count in counts.items() if count > 1)!r} twice in one object")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"it holds {digits[:20]}, which is too large a number")
    return value
