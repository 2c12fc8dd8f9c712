"""Exports that are a folder: it appears under its name whole, or not at all."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from tai_engine.errors import UserError
from tai_engine.files import sync_directory, sync_file, write_error


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A folder under a temporary name for the body to fill; renamed to ``path`` when the body ends well.

    Raises:
        UserError: when something lies at ``path`` already (an empty folder may), or the place cannot be written.
    """
    final = Path(path)
    if final.exists() and not (final.is_dir() and not any(final.iterdir())):
        raise UserError(f"'{final}' exists already: choose another place with --out, or move it away.")
    temporary = final.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            (sync_directory if file.is_dir() else sync_file)(file)
        if final.exists():
            final.rmdir()
        temporary.rename(final)
        sync_directory(final.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise write_error(path, error) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
