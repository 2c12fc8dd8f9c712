"""The chunk files of a store: which of them are whose, how large they are, and removing them; no chunk is read."""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Container, Iterator

import numpy as np

from tai_engine.store.layout.array_layout import ROW_ARRAYS, SEPARATOR, array_layouts
from tai_engine.store.layout.commits import (
    HIDDEN,
    RECORDS,
    CommitRecord,
    read_hidden,
    record_groups,
    record_name,
)
from tai_engine.store.layout.live_records import deletion_names
from tai_engine.store.layout.spec import CHECKSUM_BYTES, StoreSpec
from tai_engine.store.places.abstract_files import METADATA, StoreFiles

_CHUNK = re.compile(r"c\.(\d+)(\.0)*")
# Ours, and those that zarr writes chunks to.
_TEMPORARY = re.compile(r"\..*\.tmp|.*\.partial")


class ChunkFiles:
    """The chunk files of one store.

    Attributes:
        arrays: names of the arrays.
    """

    def __init__(self, files: StoreFiles, spec: StoreSpec) -> None:
        self._files = files
        self._spec = spec
        self._layouts = array_layouts(spec)
        self.arrays = tuple(self._layouts)

    def name(self, array: str, number: int) -> str:
        """The file of a chunk."""
        return f"{array}/c{SEPARATOR}{number}" + f"{SEPARATOR}0" * (len(self._layouts[array].chunks) - 1)

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
        return [self.name(array, number) for number in range(first, first + count)]

    def existing(self, group: int) -> Iterator[str]:
        """Names of the chunks that lie in a group's part of the arrays, committed or not; no folder is listed.

        Raises:
            OSError: if the place cannot be looked at.
        """
        for array in self.arrays:
            per_group = self.group_length(array) // self.length(array)
            for number in range(group * per_group, (group + 1) * per_group):
                if self._files.exists(self.name(array, number)):
                    yield self.name(array, number)

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

    def temporaries(self) -> list[str]:
        """Names of the files of temporary names, which a writer is at work on or a killed one has left.

        Raises:
            OSError: if a folder cannot be read.
        """
        return [
            f"{folder}/{name}" if folder else name
            for folder in ("", RECORDS, *self.arrays)
            for name in self._files.names(folder)
            if _TEMPORARY.fullmatch(name)
        ]

    def remove_temporaries(self) -> None:
        """Remove them, where whoever wrote them is gone.

        Raises:
            OSError: if the place refuses.
        """
        for name in self.temporaries():
            self._files.remove(name)

    def total_bytes(self, record: CommitRecord) -> int:
        """Bytes of the chunks that a group must have.

        Raises:
            OSError: FileNotFoundError if one of them is missing, or is not of the length that it must have.
        """
        total = 0
        for array in self.arrays:
            wanted = self.bytes(array)
            for name in self.of_group(array, record):
                size = self._files.size(name)
                if size != wanted and (wanted is not None or size == 0):
                    raise FileNotFoundError(errno.ENOENT, f"it has {size} bytes, not {wanted or 'some'}", name)
                total += size
        return total

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
        for group, names in deletion_names(self._files).items():
            if group in hidden:
                for name in names:
                    self._files.remove(name)
        # A record must not come back after a power cut when nothing hides it any more.
        self._files.sync([f"{RECORDS}/{METADATA}"])
        self.remove_groups(hidden)
        self._files.remove(HIDDEN)
