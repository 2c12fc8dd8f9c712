"""JSON documents that somebody else may have made: small, of ordinary depth, with numbers that are numbers.

What is read line by line or streamed (users' tables, sentences) is not read here.
"""

from __future__ import annotations

import json
import math
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
    return parse_json(data.decode("utf-8"))


def parse_json(text: str) -> Any:
    """The value of a text.

    Raises:
        ValueError: for what is not JSON, is nested hundreds of levels deep, or holds an infinity, NaN or a number of
            thousands of digits.
    """
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"it holds {digits[:20]}, which is too large a number")
    return value
