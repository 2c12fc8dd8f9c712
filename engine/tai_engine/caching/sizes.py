"""How large groups and stores get, and whether what is to come fits on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from tai_engine.caching.report import CacheOptions
from tai_engine.errors import UserError
from tai_engine.store.layout.spec import DEFAULT_CHUNK_ITEMS, DEFAULT_GROUP_ITEMS, ROW_DTYPES, StoreSpec
from tai_engine.store.places.store_files import open_files

MAX_GROUP_BYTES = 256 * 2**20
"""Rows of a commit group, at most, where its size is chosen automatically."""


def group_sizes(options: CacheOptions, dim: int, rows_per_item_max: int) -> tuple[int, int]:
    """``group_items`` and ``chunk_items`` of a new store, see `CacheOptions`."""
    group_items = options.group_items
    if not group_items:
        item_bytes = (rows_per_item_max + 2) * dim * ROW_DTYPES[options.row_dtype]
        group_items = DEFAULT_GROUP_ITEMS
        while group_items > DEFAULT_CHUNK_ITEMS and group_items * item_bytes > MAX_GROUP_BYTES:
            group_items //= 2
    # A group is whole chunks; of an odd size the chunk is the largest divisor.
    chunk_items = next(n for n in range(min(DEFAULT_CHUNK_ITEMS, group_items), 0, -1) if group_items % n == 0)
    return group_items, chunk_items


def free_bytes(path: str | Path) -> int | None:
    """Bytes free where a store at ``path`` lies or would be made; None at an address, which does not say."""
    folder = _existing_folder(path)
    return None if folder is None else shutil.disk_usage(folder).free


def require_space(path: str | Path, spec: StoreSpec, items: int, rows_per_item: float) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        UserError: saying how much is missing and what would help.
    """
    needed, free = spec.estimate_bytes(items, rows_per_item), free_bytes(path)
    if free is not None and needed > free:
        coarse = spec.estimate_bytes(items, 0)
        way_out = f", keep coarse vectors alone (--coarse-only, {_gigabytes(coarse)})" if spec.has_fine else ""
        raise UserError(
            f"The store {path} will take about {_gigabytes(needed)} for {items:,} items, but {_existing_folder(path)} "
            f"has {_gigabytes(free)} free: {_gigabytes(needed - free)} are missing; free some space, choose another "
            f"place{way_out} or cache fewer items."
        )


def _existing_folder(path: str | Path) -> Path | None:
    local = open_files(path).local_path()
    if local is None:
        return None
    return next(folder for folder in (local, *local.absolute().parents) if folder.exists())


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.3g} GB"
