"""What a file system says of a file, whichever way it says it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

_TIME_KEYS = ("mtime", "modified", "LastModified", "last_modified", "updated", "created")
_LAST_NANOSECOND = 2**63 - 1


def modified_ns(info: Mapping[str, Any]) -> int | None:
    """When a file was last changed, in nanoseconds since 1970, from what a file system says of it."""
    value = next((info[key] for key in _TIME_KEYS if info.get(key) is not None), None)
    try:
        if isinstance(value, str):
            value = parsedate_to_datetime(value) if "," in value else datetime.fromisoformat(value)
        if isinstance(value, datetime):
            moment = value if value.tzinfo else value.replace(tzinfo=UTC)
            value = moment.timestamp()
        return nanoseconds(value)
    except (ValueError, OverflowError):
        return None


def nanoseconds(seconds: object) -> int | None:
    """Seconds since 1970 as a 64-bit number of nanoseconds; None for what is none."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return None
    whole = int(seconds)
    result = whole * 10**9 + round((seconds - whole) * 10**9)
    return result if abs(result) <= _LAST_NANOSECOND else None


def size_of(info: Mapping[str, Any]) -> int | None:
    """Bytes of a file, None where its file system does not say."""
    size = info.get("size")
    return size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None
