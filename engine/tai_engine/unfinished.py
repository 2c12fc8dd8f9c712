"""Files and folders under temporary names while they are made, and what killed processes have left of them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

FILE_SUFFIX = ".tmp"
FOLDER_SUFFIX = ".folder.tmp"
"""Of folders that are written under a temporary name."""
_TEMPORARY = re.compile(rf"\.[0-9a-f]{{16}}({re.escape(FILE_SUFFIX)}|{re.escape(FOLDER_SUFFIX)})")
_UNTOUCHED_SECONDS = 60.0


def temporary_name(folder: Path, suffix: str = FILE_SUFFIX) -> Path:
    """A name in ``folder``; it has no part of the final one, which may already be as long as may be."""
    return folder / f".{secrets.token_hex(8)}{suffix}"


@contextlib.contextmanager
def temporary_folder(final: Path) -> Iterator[Path]:
    """A folder beside ``final`` for the body to fill and to rename; it goes if it is still there afterwards.

    Missing parent folders are made.

    Raises:
        OSError: when the file system refuses.
    """
    temporary = temporary_name(final.parent, FOLDER_SUFFIX)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        clear_dead(final.parent)
        temporary.mkdir()
        with alive(temporary):
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def alive(temporary: Path) -> Iterator[None]:
    """Mark a temporary file, or a folder of `FOLDER_SUFFIX`, as being written, for the time of the body.

    The mark is a lock, which the system takes back when a process ends, however it ends.
    """
    descriptor = -1
    try:
        with contextlib.suppress(OSError):  # no locks here: then `clear_dead` gets none either
            descriptor = os.open(temporary, os.O_RDONLY)
            _lock(descriptor)
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


@lru_cache(maxsize=1024)  # once a process: it is for what others left
def clear_dead(folder: Path) -> None:
    """Remove the temporary files and folders in ``folder`` whose writers were killed.

    That is what has our names, was not touched for a minute, and is not `alive`. Where there are no locks, nothing is.
    """
    with contextlib.suppress(OSError):
        names = [entry.name for entry in os.scandir(folder) if _TEMPORARY.fullmatch(entry.name)]
        for path in (folder / name for name in names):
            with contextlib.suppress(OSError):
                _remove_if_dead(path)


def _remove_if_dead(path: Path) -> None:
    found = path.lstat()
    is_folder = stat.S_ISDIR(found.st_mode)
    if is_folder != path.name.endswith(FOLDER_SUFFIX) or not (is_folder or stat.S_ISREG(found.st_mode)):
        return
    if time.time() - found.st_mtime < _UNTOUCHED_SECONDS:
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _lock(descriptor)
        if is_folder:
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Raises OSError when another process has the lock, or there are none."""
    if fcntl is None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
