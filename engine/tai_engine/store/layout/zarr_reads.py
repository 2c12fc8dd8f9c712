"""Entries of an array whose chunks zarr reads: at an address, of texts, or as other programs compress them.

zarr says of no chunk that it is missing or damaged; here each read finds that out. Arrays of plain numbers in a folder
are read by `plain_reads`.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr

from tai_engine.store.layout.chunk_files import ChunkFiles
from tai_engine.store.layout.plain_reads import share_out
from tai_engine.store.places.abstract_files import StoreFiles
from tai_engine.store.places.damage import DamagedGroupError, unreadable


class ZarrChunks:
    """The chunks of one array. Memory: those that a read touches, whole, for each of up to 8 threads."""

    def __init__(self, files: StoreFiles, array: zarr.Array[Any], name: str, chunk_files: ChunkFiles) -> None:
        """Args: the files of the store, the array as it is open, its name, the chunk files of the store."""
        self._files = files
        self._array = array
        self._name = name
        self._chunk_files = chunk_files
        self._per_chunk: int = array.chunks[0]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Entries ``start:stop``, all of them written by one committed group and within the array's length.

        Raises:
            UserError: naming the chunk that is missing or damaged.
        """
        group = start // self._chunk_files.group_length(self._name)
        chunks = range(start // self._per_chunk, -(-stop // self._per_chunk))
        for number in chunks:
            place = self._files.local_path(self._file(number))
            if place is not None and place.exists() and not place.is_file():  # zarr would wait for a pipe's writer
                raise DamagedGroupError(self._files, group, f"the chunk {self._file(number)} is no file")
        try:
            values = np.asarray(self._array[start:stop])
        except MemoryError:
            raise
        except Exception as error:  # of the place or of a codec, which both raise whatever they raise
            bad = [self._file(number) for number in chunks if self._is_damaged(number)]
            if not bad:
                cause = error if isinstance(error, OSError) else OSError(errno.EIO, f"{type(error).__name__}: {error}")
                raise unreadable(self._files, self._name, cause) from error
            what = f"the chunk {', '.join(bad)} is damaged: {error}"
            raise DamagedGroupError(self._files, group, what) from error
        for number in chunks:
            if not np.any(values[max(0, number * self._per_chunk - start)]):  # zarr takes a missing chunk for zeros
                self._require(number, group)
        return values

    def read_runs(self, starts: Sequence[int], lengths: Sequence[int], out: np.ndarray) -> None:
        """Fill ``out`` with runs of entries, one after another, each of them as `read` gives it.

        There is one read for each run, and one for all short runs that lie in the same chunk.

        Args:
            starts: where each run begins in the array.
            lengths: how many entries it has.
            out: with as many entries as all runs together.

        Raises:
            UserError: naming the chunk that is missing or damaged.
        """
        wanted: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        target = 0
        for start, length in zip(starts, lengths, strict=True):
            if length:
                chunks = (start // self._per_chunk, -(-(start + length) // self._per_chunk))
                wanted.setdefault(chunks, []).append((start, length, target))
                target += length

        def read(pieces: list[tuple[int, int, int]]) -> None:
            first = min(start for start, _, _ in pieces)
            values = self.read(first, max(start + length for start, length, _ in pieces))
            for start, length, place in pieces:
                out[place : place + length] = values[start - first :][:length]

        share_out([functools.partial(read, pieces) for _, pieces in sorted(wanted.items())])

    def _file(self, number: int) -> str:
        return self._chunk_files.name(self._name, number)

    def _require(self, number: int, group: int) -> None:
        chunk = self._file(number)
        try:
            is_there = self._files.exists(chunk)
        except OSError as error:
            raise unreadable(self._files, chunk, error) from error
        if not is_there:
            raise DamagedGroupError(self._files, group, f"the chunk {chunk} is missing")

    def _is_damaged(self, number: int) -> bool:
        """Whether a chunk is missing, or its bytes are there and not what was written.

        Raises:
            UserError: if its bytes cannot be had.
        """
        chunk = self._file(number)
        try:
            self._files.read(chunk)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise unreadable(self._files, chunk, error) from error
        try:
            self._array[number * self._per_chunk : (number + 1) * self._per_chunk]
        except MemoryError:
            raise
        except OSError:
            return False  # its bytes were there a moment ago
        except Exception:
            return True
        return False
