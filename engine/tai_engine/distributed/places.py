"""What other processes and machines call the place of a store."""

from __future__ import annotations

from pathlib import Path

from tai_engine.store.store_files import open_files


def everywhere(path: str | Path) -> str:
    """A path or address that means the same in every working folder."""
    local = open_files(path).local_path()
    return str(path) if local is None else str(local.absolute())
