"""Where the files of a store lie: a local folder, or an address that fsspec knows (``s3://``, ``memory://``, ...).

A name is the path of a file below the store, with ``/`` between its parts: ``commits/00000000.json``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from tai_engine.errors import UserError
from tai_engine.files import sync_directory, sync_file, write_atomically, write_error

METADATA = "zarr.json"
"""The file that makes a store: it is written last and read first."""
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://|[a-z0-9]+::")
_LOCAL_PROTOCOLS = ("file", "local")
_READ_ONLY_PROTOCOLS = ("http", "https")


class StoreFiles(ABC):
    """The files of one store, by name. Nothing is held in memory but what a call returns."""

    is_local: bool
    """Whether the files lie in a folder, so that `local_path` leads to them."""

    @abstractmethod
    def __str__(self) -> str:
        """The folder or the address, for messages."""

    @property
    @abstractmethod
    def path(self) -> Path | str:
        """The folder as a Path, an address as it was given."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The whole content of a file.

        Raises:
            OSError: if it cannot be read; FileNotFoundError if it is not there.
        """

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is a file of this name.

        Raises:
            OSError: if the place cannot be looked at.
        """

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            OSError: FileNotFoundError if it is not there.
        """

    @abstractmethod
    def names(self, folder: str = "") -> list[str]:
        """What lies in a folder, by its last part, in order; nothing where there is no such folder.

        Raises:
            OSError: if it cannot be looked at.
        """

    @abstractmethod
    def is_free(self) -> bool:
        """Whether a store can be made here: there is nothing, or an empty folder.

        Raises:
            OSError: if the place cannot be looked at.
        """

    @abstractmethod
    def write(self, name: str, data: bytes | str) -> None:
        """Write a file, durable and whole, or not at all; text as UTF-8.

        Raises:
            UserError: if the place refuses.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file; a missing one is fine.

        Raises:
            OSError: if the place refuses.
        """

    @abstractmethod
    def sync(self, names: Iterable[str]) -> None:
        """Make files that others wrote here durable (an address has made them so when they were written).

        Raises:
            OSError: if the place refuses.
        """

    @abstractmethod
    def new_store(self) -> contextlib.AbstractContextManager[Path]:
        """A local folder for the body to write a whole new store to; it is put in place when the body ends well.

        Raises:
            UserError: if the place refuses.
        """

    @abstractmethod
    def zarr_store(self) -> Store:
        """What zarr reads and writes the arrays through."""

    @abstractmethod
    def local_path(self, name: str = "") -> Path | None:
        """The path of a file, None at an address."""


class LocalFiles(StoreFiles):
    """The files of a store in a folder."""

    is_local = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._path

    def read(self, name: str) -> bytes:
        """See `StoreFiles.read`."""
        return (self._path / name).read_bytes()

    def exists(self, name: str) -> bool:
        """See `StoreFiles.exists`."""
        return (self._path / name).is_file()

    def size(self, name: str) -> int:
        """See `StoreFiles.size`."""
        return (self._path / name).stat().st_size

    def names(self, folder: str = "") -> list[str]:
        """See `StoreFiles.names`."""
        try:
            return sorted(entry.name for entry in (self._path / folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def is_free(self) -> bool:
        """See `StoreFiles.is_free`."""
        return not self._path.exists() or (self._path.is_dir() and not any(self._path.iterdir()))

    def write(self, name: str, data: bytes | str) -> None:
        """See `StoreFiles.write`: a temporary name, fsync, rename, fsync of the folder."""
        write_atomically(self._path / name, data)

    def remove(self, name: str) -> None:
        """See `StoreFiles.remove`."""
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
        temporary = self._path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            for folder, _, files in os.walk(temporary):
                for name in files:
                    sync_file(Path(folder, name))
                sync_directory(Path(folder))
            temporary.rename(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            raise write_error(self._path, error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def zarr_store(self) -> Store:
        """See `StoreFiles.zarr_store`."""
        return LocalStore(self._path)

    def local_path(self, name: str = "") -> Path:
        """See `StoreFiles.local_path`."""
        return self._path / name


class AddressFiles(StoreFiles):
    """The files of a store at an address. Settings of the protocol come from fsspec's own configuration.

    Whole files are put at once, so that they are there whole or not at all. Web addresses (http, https) are read only.
    """

    is_local = False

    def __init__(self, address: str) -> None:
        """Args: the address of the store.

        Raises:
            UserError: for a protocol that is unknown, or lacks its package.
        """
        from fsspec.core import url_to_fs

        self._address = address.rstrip("/")
        try:
            self._system, self._root = url_to_fs(self._address)
        except (ImportError, ValueError) as error:
            raise UserError(
                f"The address {address} cannot be opened ({error}); check how it begins, and install what it asks for."
            ) from error
        protocol = self._address.split(":", 1)[0]
        self._is_read_only = protocol in _READ_ONLY_PROTOCOLS

    def __str__(self) -> str:
        return self._address

    @property
    def path(self) -> str:
        """The address."""
        return self._address

    def read(self, name: str) -> bytes:
        """See `StoreFiles.read`."""
        with _as_os_errors():
            data: bytes = self._system.cat_file(self._place(name))
            return data

    def exists(self, name: str) -> bool:
        """See `StoreFiles.exists`."""
        # Not the file system's own exists(), which takes every failure for absence.
        try:
            with _as_os_errors():
                return bool(self._system.info(self._place(name))["type"] == "file")
        except FileNotFoundError:
            return False

    def size(self, name: str) -> int:
        """See `StoreFiles.size`."""
        with _as_os_errors():
            return int(self._system.size(self._place(name)))

    def names(self, folder: str = "") -> list[str]:
        """See `StoreFiles.names`."""
        place = self._place(folder)
        try:
            with _as_os_errors():
                self._system.invalidate_cache(place)
                found = self._system.ls(place, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted({entry.rstrip("/").rsplit("/", 1)[-1] for entry in found if entry.rstrip("/") != place})

    def is_free(self) -> bool:
        """See `StoreFiles.is_free`."""
        if self._is_read_only:
            return not self.exists(METADATA)
        return not self.names() and not self.exists("")

    def write(self, name: str, data: bytes | str) -> None:
        """See `StoreFiles.write`."""
        self._require_writable()
        try:
            with _as_os_errors():
                self._system.pipe_file(self._place(name), data.encode("utf-8") if isinstance(data, str) else data)
        except OSError as error:
            raise write_error(f"{self._address}/{name}", error) from error

    def remove(self, name: str) -> None:
        """See `StoreFiles.remove`."""
        self._require_writable()
        with contextlib.suppress(FileNotFoundError), _as_os_errors():
            self._system.rm_file(self._place(name))

    def sync(self, names: Iterable[str]) -> None:
        """Nothing is left to do: a file that was put is durable."""

    @contextlib.contextmanager
    def new_store(self) -> Iterator[Path]:
        """See `StoreFiles.new_store`: copied file by file, the one that makes it a store last."""
        self._require_writable()
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, "store")
            yield folder
            files = (path for path in folder.rglob("*") if path.is_file())
            for path in sorted(files, key=lambda path: path == folder / METADATA):
                self.write(path.relative_to(folder).as_posix(), path.read_bytes())

    def zarr_store(self) -> Store:
        """See `StoreFiles.zarr_store`."""
        return FsspecStore.from_url(self._address, read_only=self._is_read_only)

    def local_path(self, name: str = "") -> None:
        """None: nothing of it lies here."""

    def _place(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _require_writable(self) -> None:
        if self._is_read_only:
            raise UserError(
                f"The address {self._address} can be read only; give a folder or an address that takes files."
            )


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """Whatever a protocol's package raises, as an OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is an address of fsspec and no local path."""
    match = _ADDRESS.match(os.fspath(path))
    return match is not None and match.group(1) not in _LOCAL_PROTOCOLS


def open_files(path: str | os.PathLike[str]) -> StoreFiles:
    """The files of the store at a local path or an address; nothing is looked at yet.

    Raises:
        UserError: for an address whose protocol is unknown, or lacks its package.
    """
    text = os.fspath(path)
    if is_address(text):
        return AddressFiles(text)
    match = _ADDRESS.match(text)
    return LocalFiles(Path(text[match.end() :] if match else text))
