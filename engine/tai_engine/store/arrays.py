"""The Zarr side of a feature store: its arrays, and the chunks that a commit group has in them.

All knowledge of zarr-python and of chunk files is here; `tai_engine.store.feature_store` thinks in groups and items.

Shape legend: T rows, D embedding size.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore

from tai_engine.atomic import sync_directory, sync_file, write_atomically
from tai_engine.errors import UserError
from tai_engine.store.commits import RECORDS, damaged_group
from tai_engine.store.spec import ATTRIBUTE, CHECKSUM_BYTES, StoreSpec

# Without this, chunks of nothing but zeros are left out, and a lost one could not be told from them.
_ARRAY_CONFIG: Any = {"write_empty_chunks": True}


@dataclass(frozen=True)
class _Layout:
    chunks: tuple[int, ...]
    dtype: Any


def _layouts(spec: StoreSpec) -> dict[str, _Layout]:
    per_group = (spec.group_items,)
    vectors = _Layout((spec.chunk_items, spec.dim), spec.row_dtype)
    layouts = {
        "id": _Layout(per_group, str),
        "status": _Layout(per_group, "uint8"),
        "count": _Layout(per_group, "int32"),
        "size": _Layout(per_group, "int64"),
        "modified_ns": _Layout(per_group, "int64"),
        "coarse": vectors,
    }
    if spec.has_coarse_clip:
        layouts["coarse_clip"] = vectors
    if spec.has_text:
        layouts["text"] = _Layout(per_group, str)
    if spec.labels is not None:
        layouts["labels"] = _Layout((spec.group_items, spec.labels.packed_bytes), "uint8")
    if spec.has_fine:
        layouts["fine"] = _Layout((spec.fine_chunk_rows, spec.dim), spec.row_dtype)
    return layouts


def create_arrays(path: Path, spec: StoreSpec) -> None:
    """Write the Zarr group of an empty store into the folder ``path``, durably.

    Raises:
        OSError: when the file system refuses.
    """
    created = datetime.now(UTC).isoformat(timespec="seconds")
    attributes = {ATTRIBUTE: {**spec.to_attributes(), "created": created}}
    group = zarr.create_group(LocalStore(path), zarr_format=3, attributes=attributes)
    for name, layout in _layouts(spec).items():
        group.create_array(
            name,
            shape=(0, *layout.chunks[1:]),
            chunks=layout.chunks,
            dtype=layout.dtype,
            # No compression (it saves 6-8% and costs the speed of the disk); four bytes of checksum tell damage.
            compressors=[Crc32cCodec()],
            # One folder per array, not one per chunk.
            chunk_key_encoding={"name": "default", "separator": "."},
            config=_ARRAY_CONFIG,
        )
    # A Zarr group of its own, since Zarr readers warn of folders that they do not know.
    group.create_group(RECORDS)
    for folder, _, files in os.walk(path):
        for name in files:
            sync_file(Path(folder, name))
        sync_directory(Path(folder))


def open_group(path: Path) -> tuple[zarr.Group, dict[str, Any] | None]:
    """The Zarr group at ``path`` and its attributes of ours, None if it has none.

    Raises:
        UserError: if there is no such group, or its metadata is damaged.
    """
    if not path.exists():
        raise UserError(f"There is no store at {path}; check the path, or make it with `tai cache`.")
    metadata = path / "zarr.json"
    if not metadata.exists():
        raise UserError(f"{path} is not a feature store (it has no zarr.json); give one that `tai cache` made.")
    try:
        group = zarr.open_group(LocalStore(path), mode="r+", zarr_format=3, use_consolidated=False)
        attributes: Any = group.attrs.asdict().get(ATTRIBUTE)
    except Exception as error:  # zarr raises whatever its parsing of JSON raises
        raise UserError(
            f"The store {path} is damaged: {metadata} cannot be read ({error}); "
            "copy the whole store again or make it anew."
        ) from error
    return group, attributes if isinstance(attributes, dict) else None


class StoreArrays:
    """The arrays of one store, read and written within single groups."""

    def __init__(self, path: Path, spec: StoreSpec, group: zarr.Group) -> None:
        """Open all arrays that ``spec`` asks for.

        Raises:
            UserError: if one is missing, damaged or of another chunk shape or dtype.
        """
        self._path = path
        self._spec = spec
        self._group = group
        self._layouts = _layouts(spec)
        self._arrays = {name: self._open(name) for name in self._layouts}
        # Chunks whose checksum held, by array and number.
        self._tested: set[tuple[str, int]] = set()

    def _open(self, name: str) -> zarr.Array[Any]:
        layout = self._layouts[name]
        try:
            array = self._group[name]
            if not isinstance(array, zarr.Array) or array.chunks != layout.chunks:
                raise TypeError(f"it is not an array in chunks of {layout.chunks}")
            if layout.dtype is not str and array.dtype != layout.dtype:
                raise TypeError(f"its dtype is {array.dtype}, not {layout.dtype}")
        except Exception as error:  # zarr raises whatever its parsing of JSON raises
            raise UserError(
                f"The store {self._path} is cut short: {name}/zarr.json is missing or damaged ({error}); "
                "copy the whole store again or make it anew."
            ) from error
        return array.with_config(_ARRAY_CONFIG)

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Entries ``start:stop`` of an array, all of them written by one committed group.

        Raises:
            UserError: naming the chunk that is missing or damaged.
        """
        array = self._arrays[name]
        if start == stop:
            return np.empty((0, *array.shape[1:]), dtype=array.dtype)
        group = start // self._group_length(name)
        if stop > array.shape[0]:
            what = f"{name}/zarr.json says {array.shape[0]} entries, but {stop} were written"
            raise damaged_group(self._path, group, what)
        chunks = range(start // array.chunks[0], -(-stop // array.chunks[0]))
        for index in chunks:
            # Zarr takes a missing chunk for zeros.
            if not self._chunk_path(name, index).is_file():
                raise damaged_group(self._path, group, f"the chunk {self._chunk_name(name, index)} is missing")
        try:
            return np.asarray(array[start:stop])
        except MemoryError:
            raise
        except Exception as error:  # codecs raise whatever they raise; all of it means damage
            bad = [self._chunk_name(name, index) for index in chunks if not self._is_readable(name, index)]
            what = f"the chunk {', '.join(bad) or name} cannot be read: {error}"
            raise damaged_group(self._path, group, what) from error

    def read_into(self, name: str, start: int, out: np.ndarray) -> None:
        """Fill ``out`` [n, D] with entries from ``start``, all of them written by one committed group.

        A chunk is plain numbers, so rows are read from their place in its file. The first time that it is touched it is
        read whole all the same, for its checksum.

        Raises:
            UserError: naming the chunk that is missing or damaged.
        """
        length = self._arrays[name].chunks[0]
        while len(out):
            number, place = divmod(start, length)
            rows = out[: length - place]
            if (name, number) in self._tested:
                self._read_plain(name, number, place, rows)
            else:
                stop = min((number + 1) * length, self._arrays[name].shape[0])
                rows[:] = self.read(name, number * length, max(stop, start + len(rows)))[place : place + len(rows)]
                size = self._chunk_path(name, number).stat().st_size
                if size == length * rows[0].nbytes + CHECKSUM_BYTES and sys.byteorder == "little":
                    self._tested.add((name, number))
            start, out = start + len(rows), out[len(rows) :]

    def _read_plain(self, name: str, number: int, place: int, rows: np.ndarray) -> None:
        try:
            with self._chunk_path(name, number).open("rb", buffering=0) as file:
                file.seek(place * rows[0].nbytes)
                if file.readinto(rows.data.cast("B")) != rows.nbytes:
                    raise OSError("it ends too soon")
        except OSError as error:
            group = number * self._arrays[name].chunks[0] // self._group_length(name)
            what = f"the chunk {self._chunk_name(name, number)} cannot be read: {error}"
            raise damaged_group(self._path, group, what) from error

    def write(self, name: str, start: int, values: np.ndarray) -> None:
        """Write entries from ``start``, the first of a chunk, and lengthen the array where it is too short.

        The chunks are durable after `sync` only, which must come before the commit.

        Raises:
            OSError, UserError: when the file system refuses.
        """
        if start + len(values) > self._arrays[name].shape[0]:
            self._lengthen(name, start + len(values))
        self._arrays[name][start : start + len(values)] = values

    def _lengthen(self, name: str, length: int) -> None:
        # Not by zarr's resize: it is not durable, and it goes through all chunks in search of some to delete.
        path = self._path / name / "zarr.json"
        metadata = json.loads(path.read_text(encoding="utf-8"))
        metadata["shape"][0] = length
        write_atomically(path, json.dumps(metadata, indent=2))
        self._arrays[name] = self._open(name)

    def write_pieces(self, name: str, start: int, pieces: Iterable[np.ndarray]) -> int:
        """Write entries that come in pieces of any length, a whole chunk at a time; returns how many.

        Memory: two chunks, beside one piece.

        Raises:
            OSError, UserError: when the file system refuses.
        """
        written = 0
        for chunk in _whole_chunks(pieces, self._arrays[name].chunks[0]):
            self.write(name, start + written, chunk)
            written += len(chunk)
        return written

    def sync(self, group: int) -> int:
        """Make the chunks of a group durable; returns their size in bytes.

        Raises:
            OSError: when the file system refuses.
        """
        size = 0
        for path in self.group_chunks(group):
            sync_file(path)
            size += path.stat().st_size
        for name in self._arrays:
            sync_directory(self._path / name)
        return size

    def group_chunks(self, group: int) -> Iterator[Path]:
        """The chunk files that there are in a group's part of the arrays."""
        for name, array in self._arrays.items():
            per_group = self._group_length(name) // array.chunks[0]
            for index in range(group * per_group, (group + 1) * per_group):
                path = self._chunk_path(name, index)
                if path.is_file():
                    yield path

    def _group_length(self, name: str) -> int:
        return self._spec.group_rows if name == "fine" else self._spec.group_items

    def _chunk_name(self, name: str, index: int) -> str:
        return f"{name}/c.{index}" + ".0" * (self._arrays[name].ndim - 1)

    def _chunk_path(self, name: str, index: int) -> Path:
        return self._path / self._chunk_name(name, index)

    def _is_readable(self, name: str, index: int) -> bool:
        array = self._arrays[name]
        try:
            array[index * array.chunks[0] : (index + 1) * array.chunks[0]]
        except Exception:
            return False
        return True


def _whole_chunks(pieces: Iterable[np.ndarray], chunk_rows: int) -> Iterator[np.ndarray]:
    """The rows of all pieces cut into chunks of ``chunk_rows`` rows, the last one shorter."""
    held: list[np.ndarray] = []
    held_rows = 0
    for piece in pieces:
        start = 0
        while start < len(piece):
            taken = piece[start : start + chunk_rows - held_rows]
            held.append(taken)
            held_rows += len(taken)
            start += len(taken)
            if held_rows == chunk_rows:
                yield np.concatenate(held)
                held, held_rows = [], 0
    if held:
        yield np.concatenate(held)
