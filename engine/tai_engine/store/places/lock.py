"""One writer per store: a file lock in a local folder, a lease elsewhere.

The kernel takes a file lock back when the process that holds it ends, however it ends; for leases see
`tai_engine.store.places.lease`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from tai_engine.errors import UserError
from tai_engine.files import write_error
from tai_engine.store.places.abstract_files import StoreFiles
from tai_engine.store.places.abstract_lock import Holder, StoreLock, busy
from tai_engine.store.places.lease import Lease, live_lease

try:
    import fcntl
except ImportError:  # not a POSIX system: leases are all there is
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
# `find_writer` takes the lock for an instant; that is not to be taken for a writer.
_PROBE_TRIES = 3
_PROBE_SECONDS = 0.01
_HOLDER_BYTES = 4096
_NO_FILE_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextlib.contextmanager
def hold_lock(files: StoreFiles) -> Iterator[StoreLock]:
    """The right to write a store, or whatever else lies in a folder or at an address, for the time of the body.

    All changes by ``files`` are fenced meanwhile: they fail when the right was lost.

    Raises:
        UserError: at once, if another process has it or the place cannot be written.
    """
    lock = _take_lock(files)
    is_well = False
    try:
        with fenced(files, lock):
            yield lock
        is_well = True
    finally:
        lock.release(is_well)


@contextlib.contextmanager
def fenced(files: StoreFiles, lock: StoreLock) -> Iterator[None]:
    """Let changes by ``files`` happen only as long as the lock is ours; may be nested."""
    before, files.fence = files.fence, lock.fence
    try:
        yield
    finally:
        files.fence = before


def _take_lock(files: StoreFiles) -> StoreLock:
    path = files.local_path(LOCK)
    if path is not None and fcntl is not None:
        try:
            return _FileLock(files, path)
        except OSError as error:
            if error.errno not in _NO_FILE_LOCKS:
                raise
    return Lease(files)


def find_writer(files: StoreFiles) -> Holder | None:
    """Who writes the store now, None if nobody does.

    Raises:
        OSError: if the place cannot be looked at.
    """
    path = files.local_path(LOCK)
    if path is not None and fcntl is not None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe of that name would stop the run for good
        except (FileNotFoundError, NotADirectoryError):
            return live_lease(files)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = Holder.from_json(os.pread(descriptor, _HOLDER_BYTES, 0))
            return holder or Holder(0, "an unknown host", path.stat().st_mtime)
        except OSError as error:
            if error.errno not in _NO_FILE_LOCKS:
                raise
        finally:
            os.close(descriptor)
    return live_lease(files)


class _FileLock(StoreLock):
    def __init__(self, files: StoreFiles, path: Path) -> None:
        super().__init__(files)
        self._path = path
        self._descriptor = self._acquire()
        _file_locks.add(self)

    def _acquire(self) -> int:
        attempts = 1 + _PROBE_TRIES
        while True:
            descriptor = -1
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Who releases the lock removes the file: what was locked here may be a file that is gone.
                if _is_at(descriptor, self._path):
                    self.follows_dead = os.fstat(descriptor).st_size > 0
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, Holder.this_process().to_json().encode(), 0)
                    return descriptor
                os.close(descriptor)
            except BlockingIOError as error:
                holder = Holder.from_json(os.pread(descriptor, _HOLDER_BYTES, 0))
                os.close(descriptor)
                attempts -= 1
                if not attempts:
                    raise busy(self._files, holder) from error
                time.sleep(_PROBE_SECONDS)
            except OSError as error:
                if descriptor >= 0:
                    os.close(descriptor)
                if error.errno in _NO_FILE_LOCKS:
                    raise
                raise write_error(self._path, error) from error

    def fence(self) -> None:
        """See `StoreLock.fence`."""
        if not _is_at(self._descriptor, self._path):
            raise UserError(
                f"The file {self._path} was removed while this process was writing the {self._files.what}, so that "
                "another one may write it as well; run the same command again, alone."
            )

    def _check(self) -> None:
        self.fence()

    def _release(self, is_well: bool) -> None:  # noqa: ARG002 - a file lock ends with what it protects
        if _is_at(self._descriptor, self._path):
            self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close this process's hold on the file; what a forked child has to do, or it would outlive its parent."""
        _file_locks.discard(self)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


_file_locks: weakref.WeakSet[_FileLock] = weakref.WeakSet()


def _close_in_child() -> None:
    for lock in list(_file_locks):
        lock.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the file that is open, if it is, is the one at ``path``."""
    try:
        return descriptor >= 0 and os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
