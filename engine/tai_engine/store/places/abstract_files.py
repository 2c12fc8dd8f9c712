"""What a store asks of the place that it lies in.

A name is the path of a file below the store, with ``/`` between its parts: ``commits/00000000.json``.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path

from zarr.abc.store import Store

from tai_engine.errors import UserError

METADATA = "zarr.json"
"""The file that makes a store: it is written last and read first."""


class PlaceTakenError(UserError):
    """Something lies where a new store was to be made, perhaps since a moment."""

    def __init__(self, place: str) -> None:
        super().__init__(f"Something lies at {place} already; choose another path for the new store.")


class StoreFiles(ABC):
    """The files of one store, by name. Nothing is held in memory but what a call returns.

    Attributes:
        is_local: whether the files lie in a folder, so that `local_path` leads to them.
        what: what lies here, for messages.
        fence: called before every change; raises where another process may have taken the place over by now (see
            `tai_engine.store.places.lock.hold_lock`).
    """

    is_local: bool

    def __init__(self, what: str = "store") -> None:
        self.what = what
        self.fence: Callable[[], None] = lambda: None

    @abstractmethod
    def __str__(self) -> str:
        """The folder or the address, for messages."""

    @property
    @abstractmethod
    def path(self) -> Path | str:
        """The folder as a Path, an address as it was given."""

    @property
    def absolute(self) -> str:
        """The path or address that means the same in every working folder."""
        local = self.local_path()
        return str(self.path) if local is None else str(local.absolute())

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

    def write(self, name: str, data: bytes | str) -> None:
        """Write a file, durable and whole, or not at all; text as UTF-8. What is there is replaced.

        Raises:
            UserError: if the place refuses, or the fence does.
        """
        self.fence()
        self._write(name, _as_bytes(data))

    def create(self, name: str, data: bytes | str) -> None:
        """The same for a file that is not there yet; of two who try it, one succeeds.

        One whose reply was lost on the way has succeeded if its own content is found.

        Raises:
            FileExistsError: if there is a file with another content.
            UserError: if the place refuses, or the fence does.
        """
        self.fence()
        self._create(name, _as_bytes(data))

    def remove(self, name: str) -> None:
        """Remove a file; a missing one is fine.

        Raises:
            OSError: if the place refuses.
            UserError: if the fence does.
        """
        self.fence()
        self._remove(name)

    def take_back(self, name: str) -> None:
        """Remove a file that this process has just made, and that no other may have, whatever the fence says.

        Raises:
            OSError: if the place refuses.
        """
        self._remove(name)

    def put_right(self, name: str, data: bytes | str) -> None:
        """Write a file, whatever the fence says, to undo what this process has just done to it.

        Raises:
            UserError: if the place refuses.
        """
        self._write(name, _as_bytes(data))

    @abstractmethod
    def _write(self, name: str, data: bytes) -> None: ...

    @abstractmethod
    def _create(self, name: str, data: bytes) -> None: ...

    @abstractmethod
    def _remove(self, name: str) -> None: ...

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


def _as_bytes(data: bytes | str) -> bytes:
    return data.encode("utf-8") if isinstance(data, str) else data
