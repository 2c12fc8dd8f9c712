"""The arrays of a feature store: reading and writing the chunks that a commit group has in them.

All knowledge of zarr-python and of chunk files is here and in the files beside it: `array_layout` has the arrays,
`chunk_files` their files, `plain_reads` and `zarr_reads` the two ways to read; `feature_store` thinks in groups and
items.

Shape legend: T rows, D embedding size.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import zarr

from tai_engine.errors import UserError
from tai_engine.json_documents import parse_json
from tai_engine.store.layout.array_layout import ARRAY_CONFIG, SEPARATOR, array_layouts, open_array
from tai_engine.store.layout.chunk_files import ChunkFiles
from tai_engine.store.layout.commits import record_groups
from tai_engine.store.layout.plain_reads import DamagedChunkError, PlainChunks
from tai_engine.store.layout.spec import StoreSpec
from tai_engine.store.layout.zarr_reads import ZarrChunks
from tai_engine.store.places.abstract_files import METADATA, StoreFiles
from tai_engine.store.places.damage import DamagedDescriptionError, DamagedGroupError, unreadable


class StoreArrays:
    """The arrays of one store, read and written within single groups.

    Attributes:
        chunk_files: of the store.
    """

    def __init__(self, files: StoreFiles, spec: StoreSpec, group: zarr.Group) -> None:
        """Open all arrays that ``spec`` asks for.

        Raises:
            UserError: if one is missing, damaged or of another chunk shape or dtype.
        """
        self._files = files
        self._spec = spec
        self._group = group
        self._layouts = array_layouts(spec)
        self.chunk_files = ChunkFiles(files, spec)
        self._arrays = {name: self._open(name) for name in self._layouts}
        self._plain = {name: self._plain_chunks(name) for name, array in self._arrays.items() if self._is_plain(array)}

    def _open(self, name: str) -> zarr.Array[Any]:
        try:
            return open_array(self._files, self._group, name, self._layouts[name])
        except DamagedDescriptionError as error:
            raise DamagedDescriptionError(
                f"The store {self._files} is cut short: {error.file} is missing or damaged ({error.what}); "
                f"run `tai verify {self._files} --repair`, or copy the whole store again.",
                error.file,
                error.what,
            ) from error

    def _is_plain(self, array: zarr.Array[Any]) -> bool:
        """Whether the chunks of an array are files of this machine, laid out as `create_arrays` does."""
        metadata: Any = array.metadata.to_dict()
        codecs = [(codec["name"], codec.get("configuration", {})) for codec in metadata["codecs"]]
        keys = (metadata["chunk_key_encoding"]["name"], metadata["chunk_key_encoding"].get("configuration"))
        return (
            self._files.is_local
            and sys.byteorder == "little"
            and codecs in ([("bytes", {"endian": "little"}), ("crc32c", {})], [("bytes", {}), ("crc32c", {})])
            and keys == ("default", {"separator": SEPARATOR})
        )

    def _plain_chunks(self, name: str) -> PlainChunks:
        array = self._arrays[name]

        # Called for every chunk of every read: text is put together faster than a Path.
        before, after = f"{self._files}/{name}/c{SEPARATOR}", f"{SEPARATOR}0" * (array.ndim - 1)

        def path_of(number: int) -> str:
            return f"{before}{number}{after}"

        entry_bytes = math.prod(array.shape[1:]) * array.dtype.itemsize
        return PlainChunks(path_of, array.chunks[0], entry_bytes)

    def _zarr_chunks(self, name: str) -> ZarrChunks:
        # Made for every read, since arrays are opened anew when they grow.
        return ZarrChunks(self._files, self._arrays[name], name, self.chunk_files)

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Entries ``start:stop`` of an array, all of them written by one committed group.

        Raises:
            UserError: naming the chunk that is missing or damaged.
        """
        array = self._arrays[name]
        if start == stop:
            return np.empty((0, *array.shape[1:]), dtype=array.dtype)
        if name not in self._plain:
            self._require_length(name, start, stop)
            return self._zarr_chunks(name).read(start, stop)
        out = np.empty((stop - start, *array.shape[1:]), dtype=array.dtype)
        self.read_runs(name, [start], [stop - start], out)
        return out

    def read_runs(self, name: str, starts: Sequence[int], lengths: Sequence[int], out: np.ndarray) -> None:
        """Fill ``out`` with runs of entries, one after another; each run was written by one committed group.

        Plain chunks on a local disk are read straight into ``out`` by several threads, and whole only the first time
        that each is touched, for its checksum. Others go through zarr; memory: eight chunks beside ``out``.

        Args:
            name: of the array.
            starts: where each run begins.
            lengths: how many entries it has.
            out: C-contiguous, of the array's dtype, with as many entries as all runs together.

        Raises:
            UserError: naming the chunk that is missing or damaged.
        """
        last = max(range(len(starts)), key=starts.__getitem__, default=None)
        if last is not None:
            self._require_length(name, starts[last], starts[last] + lengths[last])
        plain = self._plain.get(name)
        if plain is None:
            self._zarr_chunks(name).read_runs(starts, lengths, out)
            return
        try:
            plain.read(starts, lengths, out)
        except DamagedChunkError as error:
            group = error.number * self._arrays[name].chunks[0] // self.chunk_files.group_length(name)
            what = f"the chunk {self.chunk_files.name(name, error.number)} {error}"
            raise DamagedGroupError(self._files, group, what) from error
        except OSError as error:
            raise unreadable(self._files, os.path.relpath(error.filename or name, str(self._files)), error) from error

    def _require_length(self, name: str, start: int, stop: int) -> None:
        length = self._arrays[name].shape[0]
        if stop > length:
            what = f"{name}/{METADATA} says {length} entries, but {stop} were written"
            raise DamagedGroupError(self._files, start // self.chunk_files.group_length(name), what)

    def write(self, name: str, start: int, values: np.ndarray) -> None:
        """Write entries from ``start``, the first of a chunk, and lengthen the array where it is too short.

        The chunks are durable after `sync` only, which must come before the commit.

        Raises:
            OSError, UserError: when the file system refuses.
        """
        self._files.fence()
        if name in self._plain:
            self._plain[name].forget(start, start + len(values))
        if start + len(values) > self._arrays[name].shape[0]:
            self._lengthen(name, start + len(values))
        self._arrays[name][start : start + len(values)] = values

    def _lengthen(self, name: str, length: int) -> None:
        # Not by zarr's resize: it is not durable, and it goes through all chunks in search of some to delete.
        metadata = parse_json(self._files.read(f"{name}/{METADATA}"))
        metadata["shape"][0] = length
        self._files.write(f"{name}/{METADATA}", json.dumps(metadata, indent=2))
        try:
            self._files.fence()
        except UserError:
            # This process slept over it, and another one may have needed more since.
            needed = (max(record_groups(self._files), default=-1) + 1) * self.chunk_files.group_length(name)
            if needed > length:
                metadata["shape"][0] = needed
                self._files.put_right(f"{name}/{METADATA}", json.dumps(metadata, indent=2))
            raise
        self._arrays[name] = self._open(name)

    def reach(self, groups: int) -> None:
        """Read the groups below this number whatever the descriptions say of the lengths.

        A writer that slept may have put back an old length after another one had taken the store over; records count.
        """
        for name, array in self._arrays.items():
            needed = groups * self.chunk_files.group_length(name)
            if array.shape[0] < needed:
                metadata: Any = dataclasses.replace(array.metadata, shape=(needed, *array.shape[1:]))
                longer: zarr.Array[Any] = zarr.Array(zarr.AsyncArray(metadata, array.store_path))
                self._arrays[name] = longer.with_config(ARRAY_CONFIG)

    def length(self, name: str) -> int:
        """Entries that an array reaches to."""
        return int(self._arrays[name].shape[0])

    def groups_begun(self) -> int:
        """How many groups the arrays reach to, whole or not."""
        return max(-(-self.length(name) // max(1, self.chunk_files.group_length(name))) for name in self._arrays)

    def is_reserved(self, groups: int) -> bool:
        """Whether every array is long enough for the groups below this number."""
        return all(self.length(name) >= groups * self.chunk_files.group_length(name) for name in self._arrays)

    def reserve(self, groups: int) -> None:
        """Make every array long enough for the groups below this number.

        Raises:
            UserError: when the file system refuses.
        """
        for name in self._arrays:
            if self.length(name) < groups * self.chunk_files.group_length(name):
                self._lengthen(name, groups * self.chunk_files.group_length(name))

    def refresh(self) -> None:
        """Look again how long the arrays are, which another process may have changed."""
        self._arrays = {name: self._open(name) for name in self._layouts}

    def write_rows(self, start: int, pieces: Iterable[Mapping[str, np.ndarray]]) -> int:
        """Write fine rows (and their scales) that come in pieces of any length, a whole chunk at a time.

        Memory: two chunks, beside one piece.

        Args:
            start: the first row of a group.
            pieces: entries of each array of fine rows, as many of one as of the other.

        Returns:
            how many rows there were.

        Raises:
            OSError, UserError: when the file system refuses.
        """
        written = 0
        for chunk in _whole_chunks(pieces, self._spec.fine_chunk_rows):
            for name, values in chunk.items():
                self.write(name, start + written, values)
            written += len(chunk["fine"])
        return written

    def sync(self, group: int) -> None:
        """Make the chunks of a group durable.

        Raises:
            OSError: when the file system refuses.
        """
        # The folders of all arrays too: chunks of an earlier attempt were removed from them.
        self._files.sync([*self.chunk_files.existing(group), *(f"{name}/{METADATA}" for name in self._arrays)])


def _whole_chunks(pieces: Iterable[Mapping[str, np.ndarray]], chunk_rows: int) -> Iterator[dict[str, np.ndarray]]:
    """The rows of all pieces cut into chunks of ``chunk_rows`` rows, the last one shorter; for each array alike."""
    held: list[dict[str, np.ndarray]] = []
    held_rows = 0

    def joined() -> dict[str, np.ndarray]:
        return {name: np.concatenate([part[name] for part in held]) for name in held[0]}

    for piece in pieces:
        start, rows = 0, len(piece["fine"])
        while start < rows:
            stop = min(start + chunk_rows - held_rows, rows)
            held.append({name: values[start:stop] for name, values in piece.items()})
            held_rows += stop - start
            start = stop
            if held_rows == chunk_rows:
                yield joined()
                held, held_rows = [], 0
    if held:
        yield joined()
