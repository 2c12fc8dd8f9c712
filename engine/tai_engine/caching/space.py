"""Whether what is to come fits on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from tai_engine.errors import UserError
from tai_engine.store.spec import StoreSpec
from tai_engine.store.store_files import open_files


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
