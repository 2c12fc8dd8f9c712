"""The right to write a store, and its form where there are no file locks: a lease, which is a file that is renewed.

A lease that has not been renewed for 60 seconds is void, so that a dead process does not hold it for ever. Leases are
judged by the clocks of the machines, which must agree within some seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from tai_engine.errors import UserError
from tai_engine.store.abstract_files import StoreFiles

LEASE = "lease.json"
RENEW_SECONDS = 10.0
EXPIRY_SECONDS = 60.0
# Two processes that find no lease at the same moment both write one; after this pause both see whose it is.
SETTLE_SECONDS = 0.2


@dataclass(frozen=True)
class Holder:
    """Who writes a store.

    Attributes:
        pid, host: the process.
        since: when it began, seconds since 1970.
        owner: what tells its lease from any other; empty for a file lock.
        renewed_at: when the lease was renewed last, seconds since 1970; that of ``since`` for a file lock.
    """

    pid: int
    host: str
    since: float
    owner: str = ""
    renewed_at: float = 0.0

    @classmethod
    def this_process(cls, owner: str = "") -> Holder:
        """The process that runs this."""
        now = time.time()
        return cls(os.getpid(), socket.gethostname(), now, owner, now)

    @classmethod
    def from_json(cls, data: bytes) -> Holder | None:
        """The same from a file; None if it holds nothing that makes sense (yet)."""
        try:
            values = json.loads(data)
            return cls(
                int(values["pid"]),
                str(values["host"]),
                float(values["since"]),
                str(values["owner"]),
                float(values["renewed_at"]),
            )
        except (ValueError, KeyError, TypeError):
            return None

    def to_json(self) -> str:
        """The content of the file."""
        return json.dumps(asdict(self)) + "\n"

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        return f"process {self.pid} on {self.host} since {since}"


class StoreLock(ABC):
    """The right to write a store, held by this process until `release`."""

    def __init__(self, files: StoreFiles) -> None:
        self._files = files
        self._pid = os.getpid()

    def check(self) -> None:
        """Make sure that the right is still there; to be called before every commit.

        Raises:
            UserError: if another process took it over, or it was taken away.
        """
        if os.getpid() != self._pid:
            raise RuntimeError("a forked process does not hold the lock of its parent")
        self._check()

    def release(self) -> None:
        """Give the right back; nothing happens in a forked child, whose parent holds it."""
        if os.getpid() == self._pid:
            self._release()

    @abstractmethod
    def _check(self) -> None: ...

    @abstractmethod
    def _release(self) -> None: ...


class Lease(StoreLock):
    """A file in the store, renewed by a thread until it is released.

    Raises:
        UserError: if another process has a lease that is in force, or the place cannot be written.
    """

    def __init__(self, files: StoreFiles) -> None:
        super().__init__(files)
        self._me = Holder.this_process(owner=secrets.token_hex(16))
        with self._readable():
            found = live_lease(files)
        if found is not None:
            raise busy(files, found)
        try:
            self._renew()
            time.sleep(SETTLE_SECONDS)
            with self._readable():
                found = _read_lease(files)
            if found is not None and found.owner != self._me.owner:
                raise busy(files, found)
        except BaseException:
            self._remove()
            raise
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, name="store lease", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        self._files.write(LEASE, replace(self._me, renewed_at=time.time()).to_json())

    def _keep_renewing(self) -> None:
        while not self._is_over.wait(RENEW_SECONDS):
            # A failure may pass by the next time; `check` finds a lease that was lost.
            with contextlib.suppress(OSError, UserError):
                self._check_and_renew()

    def _check(self) -> None:
        with self._readable():
            self._check_and_renew()

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"The lease {self._files}/{LEASE} cannot be read ({error}); check the connection, then run the same "
                "command again to go on."
            ) from error

    def _check_and_renew(self) -> None:
        found = _read_lease(self._files)
        if found is not None and found.owner != self._me.owner:
            raise UserError(
                f"The store {self._files} was taken over by {found}, since this process gave no sign of life for "
                f"{EXPIRY_SECONDS:.0f} seconds; wait for the other one, then run the same command again to go on."
            )
        self._renew()

    def _release(self) -> None:
        self._is_over.set()
        self._thread.join()
        self._remove()

    def _remove(self) -> None:
        # What cannot be removed now is void in a minute.
        with contextlib.suppress(OSError, UserError):
            found = _read_lease(self._files)
            if found is not None and found.owner == self._me.owner:
                self._files.remove(LEASE)


def _read_lease(files: StoreFiles) -> Holder | None:
    try:
        return Holder.from_json(files.read(LEASE))
    except FileNotFoundError:
        return None


def live_lease(files: StoreFiles) -> Holder | None:
    """The lease if it is in force. One from the future is as void as an old one: its clock cannot be trusted."""
    found = _read_lease(files)
    return found if found is not None and abs(time.time() - found.renewed_at) < EXPIRY_SECONDS else None


def busy(files: StoreFiles, holder: Holder | None) -> UserError:
    """The error for a store that somebody else writes."""
    who = "another process" if holder is None else str(holder)
    lease = ""
    if holder is not None and holder.owner:
        lease = f" (a process that died lets go {EXPIRY_SECONDS:.0f} seconds after its last sign of life)"
    return UserError(f"The store {files} is being written by {who}; wait for it or stop it{lease}.")
