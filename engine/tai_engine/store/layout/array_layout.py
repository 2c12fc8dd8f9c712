"""Which arrays a feature store has, how they are cut into chunks, and how Zarr makes and opens them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore, MemoryStore

from tai_engine.errors import UserError
from tai_engine.store.layout.commits import RECORDS
from tai_engine.store.layout.spec import ATTRIBUTE, HASH_BYTES, StoreSpec
from tai_engine.store.places.abstract_files import METADATA, StoreFiles
from tai_engine.store.places.damage import DamagedDescriptionError, unreadable

# Without this, chunks of nothing but zeros are left out, and a lost one could not be told from them.
ARRAY_CONFIG: Any = {"write_empty_chunks": True}
SEPARATOR = "."
ROW_ARRAYS = ("fine", "fine_scale")
"""Arrays with an entry per fine row; all others have one per slot."""


@dataclass(frozen=True)
class ArrayLayout:
    """How an array of a store is cut: the shape of its chunks, and the type of its entries."""

    chunks: tuple[int, ...]
    dtype: Any


def array_layouts(spec: StoreSpec) -> dict[str, ArrayLayout]:
    """The arrays that a store of this spec has, by name."""
    per_group = (spec.group_items,)
    vectors = ArrayLayout((spec.chunk_items, spec.dim), spec.coarse_dtype)
    layouts = {
        "id": ArrayLayout(per_group, str),
        "status": ArrayLayout(per_group, "uint8"),
        "count": ArrayLayout(per_group, "int32"),
        "size": ArrayLayout(per_group, "int64"),
        "modified_ns": ArrayLayout(per_group, "int64"),
        "coarse": vectors,
    }
    if spec.has_coarse_clip:
        layouts["coarse_clip"] = vectors
    if spec.has_text:
        layouts["text"] = ArrayLayout(per_group, str)
    if spec.labels is not None:
        layouts["labels"] = ArrayLayout((spec.group_items, spec.labels.packed_bytes), "uint8")
    if spec.has_fine:
        layouts["fine"] = ArrayLayout((spec.fine_chunk_rows, spec.dim), spec.row_dtype)
    if spec.is_quantised:
        layouts["fine_scale"] = ArrayLayout((spec.fine_chunk_rows,), "float32")
    if spec.has_content_hash:
        layouts["content_hash"] = ArrayLayout((spec.group_items, HASH_BYTES), "uint8")
    return layouts


def create_arrays(path: Path, spec: StoreSpec) -> None:
    """Write the Zarr group of an empty store into the folder ``path``.

    Raises:
        OSError: when the file system refuses.
    """
    created = datetime.now(UTC).isoformat(timespec="seconds")
    attributes = {ATTRIBUTE: {**spec.to_attributes(), "created": created}}
    group = zarr.create_group(LocalStore(path), zarr_format=3, attributes=attributes)
    for name, layout in array_layouts(spec).items():
        _create_array(group, name, layout, 0)
    # A Zarr group of its own, since Zarr readers warn of folders that they do not know.
    group.create_group(RECORDS)


def _create_array(group: zarr.Group, name: str, layout: ArrayLayout, length: int) -> None:
    group.create_array(
        name,
        shape=(length, *layout.chunks[1:]),
        chunks=layout.chunks,
        dtype=layout.dtype,
        # No compression (it saves 6-8% and costs the speed of the disk); four bytes of checksum tell damage.
        compressors=[Crc32cCodec()],
        # One folder per array, not one per chunk.
        chunk_key_encoding={"name": "default", "separator": SEPARATOR},
        config=ARRAY_CONFIG,
    )


def array_description(spec: StoreSpec, name: str, length: int) -> bytes:
    """The ``zarr.json`` of an array with this many entries, for one that is new or was damaged."""
    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(files), zarr_format=3)
    _create_array(group, name, array_layouts(spec)[name], length)
    content: bytes = files[f"{name}/{METADATA}"].to_bytes()
    return content


def open_group(files: StoreFiles) -> tuple[zarr.Group, dict[str, Any] | None]:
    """The Zarr group of a store and its attributes of ours, None if it has none.

    Raises:
        UserError: if there is no such group, or its metadata is damaged.
    """
    try:
        is_there = files.exists(METADATA)
        is_nothing = not is_there and files.is_free()
    except OSError as error:
        raise UserError(
            f"The store {files} cannot be read ({error.strerror or error}), which does not say that there is none: "
            "check the path, its permissions and the connection."
        ) from error
    if is_nothing:
        raise UserError(f"There is no store at {files}; check the path, or make it with `tai cache`.")
    if not is_there:
        raise UserError(f"{files} is not a feature store (it has no {METADATA}); give one that `tai cache` made.")
    try:
        store = files.zarr_store()
        mode: Any = "r" if store.read_only else "r+"
        group = zarr.open_group(store, mode=mode, zarr_format=3, use_consolidated=False)
        attributes: Any = group.attrs.asdict().get(ATTRIBUTE)
    except Exception as error:  # zarr raises whatever its parsing of JSON raises
        _require_bytes(files, METADATA)
        message = (
            f"The store {files} is damaged: {files}/{METADATA} makes no sense ({error}); copy the whole store again or "
            "make it anew."
        )
        raise DamagedDescriptionError(message, METADATA, str(error)) from error
    return group, attributes if isinstance(attributes, dict) else None


def open_array(files: StoreFiles, group: zarr.Group, name: str, layout: ArrayLayout) -> zarr.Array[Any]:
    """Open one array.

    Raises:
        DamagedDescriptionError: if its description is missing, damaged or of another layout.
        UserError: if it cannot be read.
    """
    file = f"{name}/{METADATA}"
    if files.is_local:
        _require_bytes(files, file)  # zarr would wait for the writer of a pipe
    try:
        return _open_array(group, name, layout)
    except Exception as error:  # zarr raises whatever its parsing of JSON raises
        _require_bytes(files, file)
        what = f"{type(error).__name__}: {error}"
        raise DamagedDescriptionError(f"{files}/{file} is missing or damaged ({what}).", file, what) from error


def _require_bytes(files: StoreFiles, name: str) -> None:
    """Refuse to call a file damaged that cannot be read.

    Raises:
        UserError: if it is there, and cannot be read.
    """
    try:
        files.read(name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unreadable(files, name, error) from error


def _open_array(group: zarr.Group, name: str, layout: ArrayLayout) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array) or array.chunks != layout.chunks:
        raise TypeError(f"it is not an array in chunks of {layout.chunks}")
    if layout.dtype is not str and array.dtype != layout.dtype:
        raise TypeError(f"its dtype is {array.dtype}, not {layout.dtype}")
    return array.with_config(ARRAY_CONFIG)


def wrong_descriptions(files: StoreFiles, spec: StoreSpec, group: zarr.Group) -> dict[str, str]:
    """What is wrong with the ``zarr.json`` of each array that cannot be opened, by name.

    Raises:
        UserError: if one cannot be read.
    """
    found = {}
    for name, layout in array_layouts(spec).items():
        try:
            open_array(files, group, name, layout)
        except DamagedDescriptionError as error:
            found[name] = error.what
    return found
