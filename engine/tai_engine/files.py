"""Files that are either whole or not there: temporary name, fsync, rename, fsync of the folder.

What the operating system says of a file becomes a sentence here, for reading and for writing.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tai_engine.errors import UserError
from tai_engine.unfinished import alive, clear_dead, temporary_name

_WRITE_CAUSES = {
    errno.ENOSPC: "the disk is full; free some space or choose another place, then run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another place, then run the same command again",
    errno.EACCES: "permission is denied; choose a folder that you may write to",
    errno.EPERM: "permission is denied; choose a folder that you may write to",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EISDIR: "it is a folder; give the name of a file",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another place",
    errno.EEXIST: "a file of that name is in the way; choose another name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EFBIG: "the file system allows no file of this size; choose another place",
    errno.EIO: "the device reports an input/output error; check the disk",
}


def write_error(path: str | os.PathLike[str], error: OSError) -> UserError:
    """The sentence for a failed write to ``path``: what the operating system said, and what to do.

    Words of a server, which come as EIO, are told as they stand.
    """
    said = error.strerror or str(error)
    is_of_server = error.errno == errno.EIO and said != os.strerror(errno.EIO)
    known = None if is_of_server else _WRITE_CAUSES.get(error.errno or 0)
    return UserError(f"Cannot write {os.fspath(path)}: {known or f'{said}; check the place and try again'}.")


def sync_file(path: Path) -> None:
    """Make the content of a file durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(folder: Path) -> None:
    """Make the names in ``folder`` durable; file systems that cannot sync a folder are left alone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def check_place(path: str | os.PathLike[str], *, folder: bool = False) -> None:
    """Find out before the work whether its result can be written to ``path``. Nothing is left there.

    Args:
        path: the final name, of a file that `atomic_path` will write; missing parent folders are made then.
        folder: whether it is a folder that files go into.

    Raises:
        UserError: as `atomic_path` would in the end.
    """
    final = Path(os.path.realpath(path))
    try:
        if final.exists() and final.is_dir() != folder:
            kind = errno.EISDIR if final.is_dir() else errno.EEXIST
            raise OSError(kind, os.strerror(kind))
        if final.exists() and not (folder or final.is_file()):
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        place = final if folder else final.parent
        while not place.exists():
            place = place.parent
        _try_to_make_a_file(place)
    except OSError as error:
        raise write_error(path, error) from error


_NO_NAMELESS_FILES = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT}


def _try_to_make_a_file(folder: Path) -> None:
    """A file without a name where there are such: a process that is killed leaves nothing. Else one that goes at once.

    Raises:
        OSError: when the folder takes no file.
    """
    if nameless := getattr(os, "O_TMPFILE", 0):
        try:
            os.close(os.open(folder, nameless | os.O_WRONLY))
        except OSError as error:
            if error.errno not in _NO_NAMELESS_FILES:
                raise
        else:
            return
    probe = temporary_name(folder)
    os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    probe.unlink()


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside ``path`` for the body to write a file to; renamed to ``path`` when the body ends well.

    The file is fsynced before the rename and its folder after it. If the body raises, the temporary file goes and
    whatever was at ``path`` stays as it was; what a killed process leaves goes with a later write (`clear_dead`).
    Missing parent folders are made. A symbolic link at ``path`` stays a link: the file that it names is replaced.

    Args:
        path: the final name.

    Raises:
        UserError: when the file system refuses: full, not writable, a folder of that name, ...
    """
    final = Path(os.path.realpath(path))
    temporary = temporary_name(final.parent)
    try:
        if final.exists() and not final.is_file():
            kind = errno.EISDIR if final.is_dir() else errno.EEXIST
            raise OSError(kind, os.strerror(kind))
        final.parent.mkdir(parents=True, exist_ok=True)
        clear_dead(final.parent)
        temporary.touch()
        with alive(temporary):
            yield temporary
            sync_file(temporary)
            temporary.replace(final)
        sync_directory(final.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        # The body may also read: an error about another file is not a failed write and passes as it is.
        places = {None, os.fspath(temporary), os.fspath(final), *map(os.fspath, final.parents)}
        if isinstance(error, OSError) and error.filename in places:
            raise write_error(path, error) from error
        raise


@contextlib.contextmanager
def atomic_text(path: str | os.PathLike[str]) -> Iterator[IO[str]]:
    """A text file (UTF-8, line ends as they are written) for the body to write; `atomic_path` says when it appears.

    Raises:
        UserError: when the file system refuses.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield file


def write_atomically(path: str | os.PathLike[str], data: str | bytes | bytearray | memoryview) -> None:
    """Write ``data`` (text as UTF-8) to ``path`` whole, or not at all (see `atomic_path`).

    Raises:
        UserError: when the file system refuses.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


def human_bytes(count: float) -> str:
    """``1536`` as ``"1.5 KB"``, powers of 1,000."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def create_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` whole, or not at all, where nothing is; of two who try it, one succeeds.

    Raises:
        FileExistsError: if something is there.
        UserError: when the file system refuses.
    """
    final = Path(path)
    temporary = temporary_name(final.parent)
    try:
        try:
            temporary.write_bytes(data)
            sync_file(temporary)
            _link(temporary, final, data)
            sync_directory(final.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise write_error(path, error) from error


def _link(temporary: Path, final: Path, data: bytes) -> None:
    """Give a file a second name, which must be free."""
    try:
        os.link(temporary, final)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # No hard links here: the name is still taken by one alone, but a crash may leave it with half of its content.
        with final.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
