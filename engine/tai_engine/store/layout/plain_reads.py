"""Entries of a local array whose chunks are plain numbers, read from their places in its files.

zarr reads and checks whole chunks for every entry; here a chunk is read whole once, for its checksum, and from then on
only what is asked for, straight into its destination.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias, cast

import google_crc32c
import numpy as np

from tai_engine.processors import available_cpus
from tai_engine.store.layout.spec import CHECKSUM_BYTES

# More than processors would only be in each other's way while files are in memory; those who read ahead add their own.
_THREADS = min(8, available_cpus())
# Checksums are taken block by block, while a block is still in the processor's cache.
_BLOCK_BYTES = 256 * 1024
# Less than this is read faster than it is shared out.
_SHARED_BYTES = 1024 * 1024


class DamagedChunkError(Exception):
    """A chunk is missing, of another length, or not what its checksum says.

    Attributes:
        number: of the chunk in its array.
    """

    def __init__(self, number: int, what: str) -> None:
        super().__init__(what)
        self.number = number


class _WrongBytesError(Exception):
    """What was read is not what was written."""


_Piece: TypeAlias = tuple[int, int, int]
"""Place, size and target: bytes ``place:place + size`` of a chunk go to ``target`` of the destination."""


class PlainChunks:
    """The chunks of one array.

    A chunk's checksum is tested when it is touched for the first time by this object. Memory: a byte for each chunk
    that was touched, and while reading a block of 256 KiB for each of up to 8 threads.
    """

    def __init__(self, path_of: Callable[[int], str], chunk_entries: int, entry_bytes: int) -> None:
        """Args: where a chunk lies by its number, entries of a chunk, bytes of an entry."""
        self._path_of = path_of
        self._chunk_entries = chunk_entries
        self._entry_bytes = entry_bytes
        self._tested = bytearray()

    def read(self, starts: Sequence[int], lengths: Sequence[int], out: np.ndarray) -> None:
        """Fill ``out`` with runs of entries, one after another.

        Args:
            starts: where each run begins in the array.
            lengths: how many entries it has.
            out: C-contiguous, with as many entries as all runs together.

        Raises:
            DamagedChunkError: for a chunk that is missing, of a wrong length or with a wrong checksum.
            OSError: for one that cannot be read, which says nothing about it.
        """
        if out.nbytes != sum(lengths) * self._entry_bytes:
            raise ValueError(f"the runs have {sum(lengths)} entries, and there is room for {len(out)}")
        if not out.nbytes:
            return
        view = out.reshape(-1).view(np.uint8).data
        chunks = sorted(self._pieces(starts, lengths).items())
        shares = _THREADS if out.nbytes >= _SHARED_BYTES else 1
        parts = [part for part in (chunks[i::shares] for i in range(shares)) if part]
        others = [_pool().submit(self._read_chunks, part, view) for part in parts[1:]]
        try:
            self._read_chunks(parts[0], view)
        finally:
            # Nothing writes into ``out`` any more when this returns, however it does.
            errors = [future.exception() for future in others]
        for error in errors:
            if error is not None:
                raise error

    def forget(self, start: int, stop: int) -> None:
        """Test the chunks of these entries again: they were written anew."""
        first, last = start // self._chunk_entries, -(-stop // self._chunk_entries)
        known = range(first, min(last, len(self._tested)))
        self._tested[first : first + len(known)] = bytes(len(known))

    def _pieces(self, starts: Sequence[int], lengths: Sequence[int]) -> dict[int, list[_Piece]]:
        """What is wanted of each chunk."""
        pieces: dict[int, list[_Piece]] = {}
        size, target = self._entry_bytes, 0
        for start, length in zip(starts, lengths, strict=True):
            stop = start + length
            while start < stop:
                number, place = divmod(start, self._chunk_entries)
                taken = min(stop - start, self._chunk_entries - place)
                pieces.setdefault(number, []).append((place * size, taken * size, target))
                start += taken
                target += taken * size
        return pieces

    def _read_chunks(self, chunks: Sequence[tuple[int, list[_Piece]]], view: memoryview) -> None:
        scratch: list[memoryview] = []
        for number, pieces in chunks:
            try:
                descriptor = os.open(self._path_of(number), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    if number < len(self._tested) and self._tested[number]:
                        for place, size, target in pieces:
                            _read_exactly(descriptor, view[target : target + size], place)
                    else:
                        if not scratch:
                            scratch.append(memoryview(mmap.mmap(-1, _BLOCK_BYTES)))
                        self._read_and_test(descriptor, pieces, view, scratch[0])
                        self._mark(number)
                finally:
                    os.close(descriptor)
            except FileNotFoundError as error:
                raise DamagedChunkError(number, "is missing") from error
            except _WrongBytesError as error:
                raise DamagedChunkError(number, str(error)) from error

    def _read_and_test(self, descriptor: int, pieces: Sequence[_Piece], view: memoryview, scratch: memoryview) -> None:
        """Read a whole chunk for its checksum, and what is wanted of it to its destination."""
        length = self._chunk_entries * self._entry_bytes
        found = os.fstat(descriptor).st_size
        if found != length + CHECKSUM_BYTES:
            raise _WrongBytesError(f"is damaged: it has {found} bytes, not {length + CHECKSUM_BYTES}")
        checksum = 0
        for begin in range(0, length, _BLOCK_BYTES):
            end = min(begin + _BLOCK_BYTES, length)
            wanted = list(_within(pieces, begin, end))
            is_whole = len(wanted) == 1 and wanted[0][1] == end - begin
            block = view[wanted[0][2] :][: end - begin] if is_whole else scratch[: end - begin]
            _read_exactly(descriptor, block, begin)
            # It takes NumPy's buffers too, though its annotations say bytes; zarr counts on that as well.
            checksum = google_crc32c.extend(checksum, cast("bytes", np.frombuffer(block, np.uint8)))
            if not is_whole:
                for place, size, target in wanted:
                    view[target : target + size] = block[place - begin :][:size]
        stored = int.from_bytes(os.pread(descriptor, CHECKSUM_BYTES, length), "little")
        if checksum != stored:
            raise _WrongBytesError(f"is damaged: its checksum is {checksum:08x}, not {stored:08x}")

    def _mark(self, number: int) -> None:
        missing = number + 1 - len(self._tested)
        if missing > 0:
            # Several threads may do so at once: too many bytes do no harm.
            self._tested.extend(bytes(missing + 1024))
        self._tested[number] = 1


def _within(pieces: Sequence[_Piece], begin: int, end: int) -> Iterator[_Piece]:
    """The parts of pieces between two places of their chunk."""
    for place, size, target in pieces:
        first, last = max(place, begin), min(place + size, end)
        if first < last:
            yield first, last - first, target + first - place


def _read_exactly(descriptor: int, view: memoryview, place: int) -> None:
    while len(view):
        count = os.preadv(descriptor, [view], place)
        if count == 0:
            raise _WrongBytesError("is damaged: it ends too soon")
        view, place = view[count:], place + count


_pools: dict[int, ThreadPoolExecutor] = {}


def _pool() -> ThreadPoolExecutor:
    """The threads of this process; a forked one has none of its parent's."""
    pool = _pools.get(os.getpid())
    if pool is None:
        pool = _pools.setdefault(os.getpid(), ThreadPoolExecutor(_THREADS, thread_name_prefix="tai-read"))
    return pool


def share_out(calls: Sequence[Callable[[], object]]) -> None:
    """Make calls on the reading threads and wait for all of them; the first error is raised.

    They must not wait for the threads themselves.
    """
    futures: list[Future[object]] = [_pool().submit(call) for call in calls]
    errors = [future.exception() for future in futures]
    for error in errors:
        if error is not None:
            raise error
