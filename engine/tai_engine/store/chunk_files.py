"""Which files of a store are chunks, and of which group: worked out from its spec, without opening the arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator

import numpy as np

from tai_engine.store.array_layout import ROW_ARRAYS, array_layouts
from tai_engine.store.commits import HIDDEN, RECORDS, CommitRecord, read_hidden, record_groups, record_name
from tai_engine.store.spec import CHECKSUM_BYTES, StoreSpec
from tai_engine.store.store_files import METADATA, StoreFiles

_CHUNK = re.compile(r"c\.(\d+)(\.0)*")


class ChunkFiles:
    """The chunk files of one store, looked at and removed; no chunk is read.

    Attributes:
        arrays: names of the arrays.
    """

    def __init__(self, files: StoreFiles, spec: StoreSpec) -> None:
        self._files = files
        self._spec = spec
        self._layouts = array_layouts(spec)
        self.arrays = tuple(self._layouts)

    def length(self, array: str) -> int:
        """Entries of a chunk."""
        return self._layouts[array].chunks[0]

    def group_length(self, array: str) -> int:
        """Entries that a group owns."""
        return self._spec.group_rows if array in ROW_ARRAYS else self._spec.group_items

    def entries(self, array: str, record: CommitRecord) -> int:
        """Entries that a group uses."""
        return record.rows if array in ROW_ARRAYS else record.items

    def bytes(self, array: str) -> int | None:
        """Bytes of a chunk; None for texts, which are of any length."""
        layout = self._layouts[array]
        if layout.dtype is str:
            return None
        return math.prod(layout.chunks) * np.dtype(layout.dtype).itemsize + CHECKSUM_BYTES

    def of_group(self, array: str, record: CommitRecord) -> list[str]:
        """Names of the chunks that a committed group has in an array, in order."""
        per_group = self.group_length(array) // self.length(array)
        first, count = record.group * per_group, -(-self.entries(array, record) // self.length(array))
        ending = ".0" * (len(self._layouts[array].chunks) - 1)
        return [f"{array}/c.{index}{ending}" for index in range(first, first + count)]

    def found(self, array: str) -> Iterator[tuple[str, int, int]]:
        """Every chunk file of an array: its name, its group, and its place among that group's chunks.

        Memory: the names of the array's files, 100 bytes each.

        Raises:
            OSError: if the folder cannot be read.
        """
        per_group = self.group_length(array) // self.length(array)
        for name in self._files.names(array):
            match = _CHUNK.fullmatch(name)
            if match is not None:
                yield (f"{array}/{name}", *divmod(int(match.group(1)), per_group))

    def total_bytes(self, record: CommitRecord) -> int:
        """Bytes of the chunks that a group must have.

        Raises:
            OSError: FileNotFoundError if one of them is missing.
        """
        return sum(self._files.size(name) for array in self.arrays for name in self.of_group(array, record))

    def remove_groups(self, groups: Container[int]) -> None:
        """Remove all chunks of some groups.

        Raises:
            OSError: if the place refuses.
        """
        for array in self.arrays:
            for name, group, _ in list(self.found(array)):
                if group in groups:
                    self._files.remove(name)

    def remove_hidden(self) -> None:
        """Remove the groups that are hidden, whose records go first, and then what hides them.

        Raises:
            OSError: if the place refuses.
            UserError: if the file that names them is damaged.
        """
        hidden = read_hidden(self._files)
        for group in record_groups(self._files):
            if group in hidden:
                self._files.remove(record_name(group))
        # A record must not come back after a power cut when nothing hides it any more.
        self._files.sync([f"{RECORDS}/{METADATA}"])
        self.remove_groups(hidden)
        self._files.remove(HIDDEN)
