"""The files of a store in a folder of this machine: durable, and whole or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from zarr.abc.store import Store
from zarr.storage import LocalStore

from tai_engine.files import (
    create_atomically,
    sync_directory,
    sync_file,
    write_atomically,
    write_error,
)
from tai_engine.store.places.abstract_files import PlaceTakenError, StoreFiles
from tai_engine.unfinished import temporary_folder


class LocalFiles(StoreFiles):
    """The files of a store in a folder."""

    is_local = True

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._path

    def read(self, name: str) -> bytes:
        """See `StoreFiles.read`."""
        # Without O_NONBLOCK a pipe of that name would stop the run for good.
        descriptor = os.open(self._path / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file", name)
            return file.read()

    def exists(self, name: str) -> bool:
        """See `StoreFiles.exists`."""
        try:
            return stat.S_ISREG((self._path / name).stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def size(self, name: str) -> int:
        """See `StoreFiles.size`."""
        found = (self._path / name).stat()
        if stat.S_ISDIR(found.st_mode):  # somebody's, with whatever is in it: not to be measured, nor removed
            raise OSError(errno.EISDIR, "it is a folder", name)
        return found.st_size

    def names(self, folder: str = "") -> list[str]:
        """See `StoreFiles.names`."""
        try:
            return sorted(entry.name for entry in (self._path / folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def is_free(self) -> bool:
        """See `StoreFiles.is_free`."""
        return not self._path.exists() or (self._path.is_dir() and not any(self._path.iterdir()))

    def _write(self, name: str, data: bytes) -> None:
        write_atomically(self._path / name, data)

    def _create(self, name: str, data: bytes) -> None:
        try:
            create_atomically(self._path / name, data)
        except FileExistsError:
            if self.read(name) != data:
                raise

    def _remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)

    def sync(self, names: Iterable[str]) -> None:
        """See `StoreFiles.sync`."""
        folders = set()
        for name in names:
            path = self._path / name
            sync_file(path)
            folders.add(path.parent)
        for folder in sorted(folders):
            sync_directory(folder)

    @contextlib.contextmanager
    def new_store(self) -> Iterator[Path]:
        """See `StoreFiles.new_store`: a sibling of the store that is renamed, all of it durable before."""
        try:
            with temporary_folder(self._path) as temporary:
                yield temporary
                for folder, _, files in os.walk(temporary):
                    for name in files:
                        sync_file(Path(folder, name))
                    sync_directory(Path(folder))
                self._take_place(temporary)
            sync_directory(self._path.parent)
        except OSError as error:
            raise write_error(self._path, error) from error

    def _take_place(self, folder: Path) -> None:
        """Rename a whole store to where it belongs."""
        try:
            folder.rename(self._path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise PlaceTakenError(str(self)) from error
            raise

    def zarr_store(self) -> Store:
        """See `StoreFiles.zarr_store`."""
        return LocalStore(self._path)

    def local_path(self, name: str = "") -> Path:
        """See `StoreFiles.local_path`."""
        return self._path / name
