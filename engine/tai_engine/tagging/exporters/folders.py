"""Exports that are a folder: it appears under its name whole, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tai_engine.errors import UserError
from tai_engine.files import sync_directory, sync_file, write_error
from tai_engine.unfinished import temporary_folder


def require_free(path: Path) -> None:
    """Refuse a place that is taken; an empty folder may lie there.

    Raises:
        UserError: when something does.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"'{path}' exists already: choose another place with --out, or move it away.")


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A folder under a temporary name for the body to fill; renamed to ``path`` when the body ends well.

    Raises:
        UserError: when something lies at ``path`` already (an empty folder may), or the place cannot be written.
    """
    final = Path(path)
    require_free(final)
    try:
        with temporary_folder(final) as temporary:
            yield temporary
            for file in temporary.rglob("*"):
                (sync_directory if file.is_dir() else sync_file)(file)
            if final.exists():
                final.rmdir()
            temporary.rename(final)
        sync_directory(final.parent)
    except OSError as error:
        raise write_error(path, error) from error
