"""Where the files of a store lie, from what users write: in a folder (`local_files`), or at an address that fsspec
knows (``s3://``, ``memory://``, ...), as here."""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zarr.abc.store import Store
from zarr.storage import FsspecStore

from tai_engine.addresses import (
    cause_of,
    file_system_options,
    is_address,
    is_http,
    local_path,
    open_file_system,
    words_of,
)
from tai_engine.errors import UserError
from tai_engine.files import write_error
from tai_engine.store.places.abstract_files import METADATA, PlaceTakenError, StoreFiles
from tai_engine.store.places.local_files import LocalFiles

_BEGUN = ".new-store.tmp"
"""A store that has this file at an address, and no description of its own, is one that was never made."""

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


def open_files(path: str | os.PathLike[str]) -> StoreFiles:
    """The files of the store at a local path or an address; nothing is looked at yet.

    Raises:
        UserError: for an address whose protocol is unknown, or lacks its package.
    """
    text = os.fspath(path)
    if not is_address(text):
        return LocalFiles(Path(text))
    local = local_path(text)
    return AddressFiles(text) if local is None else LocalFiles(Path(local))


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
        super().__init__()
        self._address = address.rstrip("/")
        self._system, self._root = open_file_system(self._address)
        self._is_read_only = is_http(self._address)

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
            return bool(self._info(name)["type"] == "file")
        except FileNotFoundError:
            return False

    def size(self, name: str) -> int:
        """See `StoreFiles.size`."""
        size = self._info(name)["size"]
        if size is None:
            raise OSError(errno.EIO, "the place does not say how large the file is", name)
        return int(size)

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
        names = self.names()
        if _BEGUN in names:
            return METADATA not in names  # what somebody began who was killed is nothing
        return not names and not self.exists("")

    def _write(self, name: str, data: bytes) -> None:
        self._check_place()
        try:
            with _as_os_errors():
                self._system.pipe_file(self._place(name), data)
        except OSError as error:
            raise write_error(f"{self._address}/{name}", error) from error

    def _create(self, name: str, data: bytes) -> None:
        self._check_place()
        # Where the file system knows no condition, this is all that can be done: who takes the right to write a store
        # looks again after a pause.
        condition = {"mode": "create"} if _can_create(self._system) else {}
        try:
            if not condition and self.exists(name):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            with _as_os_errors():
                self._system.pipe_file(self._place(name), data, **condition)
        except OSError as error:
            found = self._content(name)
            if found == data:
                return
            if found is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from error
            raise write_error(f"{self._address}/{name}", error) from error

    def _content(self, name: str) -> bytes | None:
        """What a file holds, None if it is not there or cannot be read."""
        try:
            return self.read(name)
        except OSError:
            return None

    def _remove(self, name: str) -> None:
        self._check_place()
        with contextlib.suppress(FileNotFoundError), _as_os_errors():
            self._system.rm_file(self._place(name))

    def sync(self, names: Iterable[str]) -> None:
        """Nothing is left to do: a file that was put is durable."""

    @contextlib.contextmanager
    def new_store(self) -> Iterator[Path]:
        """See `StoreFiles.new_store`: copied file by file, the one that makes it a store last; of two who do so at
        once, one succeeds."""
        self._check_place()
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, "store")
            folder.mkdir()
            yield folder
            self.write(_BEGUN, "")
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                if path != folder / METADATA:
                    self.write(path.relative_to(folder).as_posix(), path.read_bytes())
            try:
                self.create(METADATA, (folder / METADATA).read_bytes())
            except FileExistsError as error:
                raise PlaceTakenError(str(self)) from error
            with contextlib.suppress(OSError):  # then `tai verify --repair` removes it
                self._remove(_BEGUN)

    def zarr_store(self) -> Store:
        """See `StoreFiles.zarr_store`."""
        options = file_system_options(self._address)
        return FsspecStore.from_url(self._address, options, read_only=self._is_read_only)

    def local_path(self, name: str = "") -> None:
        """None: nothing of it lies here."""

    def _info(self, name: str) -> dict[str, Any]:
        """What is known of a file; never what was known of it once.

        Raises:
            OSError: FileNotFoundError if it is not there.
        """
        with _as_os_errors():
            self._system.invalidate_cache(self._place(name))
            found: dict[str, Any] = self._system.info(self._place(name))
            return found

    def _place(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _check_place(self) -> None:
        if self._is_read_only:
            raise UserError(
                f"The address {self._address} can be read only; give a folder or an address that takes files."
            )


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """Whatever a protocol's package raises, as an OSError; what does not answer is not taken for what is not there."""
    try:
        yield
    except Exception as error:
        cause = cause_of(error)
        if isinstance(cause, OSError):
            raise cause from error.__cause__
        raise OSError(errno.EIO, f"{type(cause).__name__}: {words_of(cause)}") from error


def _can_create(system: AbstractFileSystem) -> bool:
    """Whether a file system takes ``mode="create"``: s3fs, gcsfs and those of fsspec itself do."""
    # Of an asynchronous one, what others call is made of what it has written itself.
    call = getattr(system, "_pipe_file", None) or system.pipe_file
    return "mode" in inspect.signature(call).parameters
