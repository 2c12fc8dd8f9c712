"""The bytes of an item, or one exception that says why not. Processes that decode import this; it is light."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tai_engine.addresses import is_address
from tai_engine.errors import ItemError
from tai_engine.regular_files import check_size, open_regular, read_range
from tai_engine.sources.items import SourceItem
from tai_engine.sources.remote import PAUSES, fetch

MAX_ITEM_BYTES = 2**30
"""Larger files are not read as pictures: reading holds the whole file in memory."""


@dataclass(frozen=True)
class ItemReader:
    """Gets the bytes of an item, wherever they are.

    Memory: the file.

    Attributes:
        pauses: seconds to wait before each further try, when a network or a server fails.
        max_bytes: larger files are refused.
    """

    pauses: tuple[float, ...] = PAUSES
    max_bytes: int = MAX_ITEM_BYTES

    def __call__(self, item: SourceItem) -> bytes:
        """The bytes of ``item``, never empty.

        Raises:
            ItemError: whatever is in the way.
        """
        if item.failure is not None:
            reason, _, detail = item.failure.partition(": ")
            raise ItemError(reason, detail)
        if item.data is not None:
            data = item.data
        elif is_address(item.location):
            data = fetch(item.location, item.size, self.max_bytes, self.pauses)
        else:
            data = _read_file(item, self.max_bytes)
        if not data:
            raise ItemError("empty", "the file has no bytes")
        return data


def _read_file(item: SourceItem, max_bytes: int) -> bytes:
    with open_regular(item.location) as file:
        size = os.fstat(file.fileno()).st_size if item.offset is None else item.size or 0
        check_size(size, max_bytes)
        data = read_range(file, item.offset or 0, size)
    if len(data) < size:
        raise ItemError("truncated", f"{len(data):,} of {size:,} bytes are there")
    return data
