"""The right to write a store, and its form where there are no file locks: a lease, which is a file that is renewed.

Leases are numbered. Whoever takes the right over makes the file of the next number, which only one can make; a holder
that finds a higher number than its own, or its own file gone, or that has not renewed it for too long (it slept), has
lost the right for good. It renews and removes no file but its own, so that nothing that a sleeper does when it wakes
touches its successor's. What it was writing when it fell asleep lies in groups that nobody else will use: see
`Holder.first_group`.

A lease that has not been renewed for 60 seconds is void, so that a dead process does not hold it for ever. Leases are
judged by the clocks of the machines, which must agree within ten seconds. This is our own code since no library locks
on object stores without a server of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from tai_engine.errors import UserError
from tai_engine.json_documents import parse_json
from tai_engine.store.places.abstract_files import StoreFiles

RENEW_SECONDS = 10.0
EXPIRY_SECONDS = 60.0
# A holder gives itself up so much sooner than others do: clocks differ, and what it has sent is under way for a while.
MARGIN_SECONDS = 10.0
# Where files cannot be made on condition, two processes may both make one; after this pause both see whose it is.
SETTLE_SECONDS = 0.2
_LEASE = re.compile(r"lease\.(\d{6,})\.json")
_CLOCK_IN_SLEEP = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while the machine sleeps


@dataclass(frozen=True)
class Holder:
    """Who writes a store, or was the last to write it.

    Attributes:
        pid, host: the process.
        since: when it began, seconds since 1970.
        owner: what tells its lease from any other; empty for a file lock.
        renewed_at: when the lease was renewed last, seconds since 1970; that of ``since`` for a file lock.
        first_group: groups with lower numbers that do not exist may still be written by somebody who lost the right and
            does not know it yet; nobody makes them. 0 as long as every holder has ended well.
        ended: ``"well"``, or ``"early"`` if an error or Ctrl-C ended its work; empty while it holds the right.
    """

    pid: int
    host: str
    since: float
    owner: str = ""
    renewed_at: float = 0.0
    first_group: int = 0
    ended: str = ""

    @classmethod
    def this_process(cls, owner: str = "") -> Holder:
        """The process that runs this."""
        now = time.time()
        return cls(os.getpid(), socket.gethostname(), now, owner, now)

    @classmethod
    def from_json(cls, data: bytes) -> Holder | None:
        """The same from a file; None if it holds nothing that makes sense (yet)."""
        try:
            values = parse_json(data)
            found = cls(
                pid=int(values["pid"]),
                host=str(values["host"]),
                since=float(values["since"]),
                owner=str(values["owner"]),
                renewed_at=float(values["renewed_at"]),
                first_group=int(values["first_group"]),
                ended=str(values["ended"]),
            )
            time.localtime(found.since)  # a date that there is
            return found
        except (ValueError, KeyError, TypeError, OverflowError, OSError):
            return None

    def to_json(self) -> str:
        """The content of the file."""
        return json.dumps(asdict(self)) + "\n"

    @property
    def is_in_force(self) -> bool:
        """Whether a lease is. One from the future is as void as an old one: its clock cannot be trusted."""
        return not self.ended and abs(time.time() - self.renewed_at) < EXPIRY_SECONDS

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        return f"process {self.pid} on {self.host} since {since}"


class StoreLock(ABC):
    """The right to write a store, held by this process until `release`.

    Attributes:
        first_group: see `Holder`.
        must_skip_groups: whether the last holder may not have ended: its groups are to be kept out of use
            (`keep_out_of`) before anything is written.
        can_replace: whether no other process can be about to write to a file that is there already.
        follows_dead: whether the last holder may have been killed, so that files of temporary names may be left.
    """

    def __init__(self, files: StoreFiles) -> None:
        self._files = files
        self._pid = os.getpid()
        self.first_group = 0
        self.must_skip_groups = False
        self.can_replace = True
        self.follows_dead = False

    def check(self) -> None:
        """Make sure that the right is still there; to be called right before and after every commit.

        Raises:
            UserError: if another process took it over, or it was taken away.
        """
        if os.getpid() != self._pid:
            raise RuntimeError("a forked process does not hold the lock of its parent")
        self._check()

    @abstractmethod
    def fence(self) -> None:
        """The part of `check` that asks nobody; called before every single write.

        Raises:
            UserError: as `check`.
        """

    def keep_out_of(self, groups: int) -> None:
        """Note, durably, that groups below this number which do not exist are not to be made.

        Raises:
            UserError: as `check`, and when the place refuses.
        """
        self.first_group = max(self.first_group, groups)
        self.must_skip_groups = False

    def release(self, is_well: bool) -> None:
        """Give the right back; nothing happens in a forked child, whose parent holds it.

        Args:
            is_well: whether the work came to its end, so that nothing of it is under way any more.
        """
        if os.getpid() == self._pid:
            self._release(is_well)

    @abstractmethod
    def _check(self) -> None: ...

    @abstractmethod
    def _release(self, is_well: bool) -> None: ...


class Lease(StoreLock):
    """A file in the store, renewed by a thread until it is released.

    Raises:
        UserError: if another process has a lease that is in force, or the place cannot be written.
    """

    def __init__(self, files: StoreFiles) -> None:
        super().__init__(files)
        self.can_replace = False
        self._writing = threading.Lock()
        self._loss: UserError | None = None
        with self._readable():
            before = newest_lease(files)
        if before is not None and before.holder is not None and before.holder.is_in_force:
            raise busy(files, before.holder)
        self._number = 1 if before is None else before.number + 1
        self._name = _lease_name(self._number)
        self._me = Holder.this_process(owner=secrets.token_hex(16))
        if before is not None:
            known = before.holder
            self.first_group = 0 if known is None else known.first_group
            self.must_skip_groups = self.follows_dead = known is None or known.ended != "well"
        self._take()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, name="store lease", daemon=True)
        self._thread.start()

    def _take(self) -> None:
        self._lives_since = _clocks()
        self._me = replace(self._me, first_group=self.first_group)
        with self._readable(), contextlib.suppress(FileExistsError):
            self._files.create(self._name, self._me.to_json())
        time.sleep(SETTLE_SECONDS)
        with self._readable():
            found = newest_lease(self._files)
        if found is None or found.holder is None or found.holder.owner != self._me.owner:
            raise busy(self._files, None if found is None else found.holder)
        # Holders of older ones find a higher number as well as their own gone.
        with contextlib.suppress(OSError, UserError):
            for number in _lease_numbers(self._files):
                if number < self._number:
                    self._files.remove(_lease_name(number))

    def _age(self) -> float:
        """Seconds since the file was known to be there; by two clocks, of which one may be set back or stand still."""
        return max(now - then for now, then in zip(_clocks(), self._lives_since, strict=True))

    def fence(self) -> None:
        """See `StoreLock.fence`."""
        if self._loss is None and self._age() > EXPIRY_SECONDS - MARGIN_SECONDS:
            self._loss = UserError(
                f"This process gave no sign of life for {self._age():.0f} seconds while it was writing the store "
                f"{self._files}, so that another one may be writing it by now; run the same command again to go on."
            )
        if self._loss is not None:
            raise self._loss

    def keep_out_of(self, groups: int) -> None:
        """See `StoreLock.keep_out_of`."""
        super().keep_out_of(groups)
        self._me = replace(self._me, first_group=self.first_group)
        self.check()
        self._renew()

    def _check(self) -> None:
        self.fence()
        with self._readable():
            numbers = _lease_numbers(self._files)
        if max(numbers, default=0) > self._number:
            with self._readable():
                found = newest_lease(self._files)
            other = "another process" if found is None or found.holder is None else str(found.holder)
            self._loss = UserError(
                f"The store {self._files} was taken over by {other}, since this process gave no sign of life for "
                f"{EXPIRY_SECONDS:.0f} seconds; wait for the other one, then run the same command again to go on."
            )
        elif self._number not in numbers:
            self._loss = UserError(
                f"The lease {self._files}/{self._name} was removed while this process was writing the store, so that "
                "another one may write it as well; run the same command again, alone."
            )
        self.fence()

    def _renew(self) -> None:
        with self._writing:
            begun = _clocks()
            self._files.write(self._name, replace(self._me, renewed_at=time.time()).to_json())
            self._lives_since = begun

    def _keep_renewing(self) -> None:
        while not self._is_over.wait(RENEW_SECONDS) and self._loss is None:
            # A failure may pass by the next time; if it does not, the lease grows old and is lost.
            with contextlib.suppress(OSError, UserError):
                self._check()
                self._renew()

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"The lease of the store {self._files} cannot be looked at ({error}); check the connection, then run "
                "the same command again to go on."
            ) from error

    def _release(self, is_well: bool) -> None:
        self._is_over.set()
        self._thread.join()
        # What cannot be written now is void in a minute.
        with contextlib.suppress(OSError, UserError):
            self._check()
            is_well = is_well and not self.must_skip_groups
            if is_well and self._number == 1:
                self._files.remove(self._name)
            else:
                self._me = replace(self._me, ended="well" if is_well else "early")
                self._renew()


def _clocks() -> tuple[float, float]:
    return time.time(), time.clock_gettime(_CLOCK_IN_SLEEP)


@dataclass(frozen=True)
class FoundLease:
    """A lease as it lies there: its number, and who holds it; None if its file holds nothing that makes sense."""

    number: int
    holder: Holder | None


def newest_lease(files: StoreFiles) -> FoundLease | None:
    """The lease that counts, in force or not; None if there is none.

    Raises:
        OSError: if the place cannot be looked at.
    """
    number = max(_lease_numbers(files), default=None)
    if number is None:
        return None
    try:
        return FoundLease(number, Holder.from_json(files.read(_lease_name(number))))
    except FileNotFoundError:  # it was released in this moment
        return None


def _lease_numbers(files: StoreFiles) -> list[int]:
    return [int(match[1]) for name in files.names() if (match := _LEASE.fullmatch(name))]


def _lease_name(number: int) -> str:
    return f"lease.{number:06d}.json"


def live_lease(files: StoreFiles) -> Holder | None:
    """The holder of the lease if it is in force."""
    found = newest_lease(files)
    return None if found is None or found.holder is None or not found.holder.is_in_force else found.holder


def busy(files: StoreFiles, holder: Holder | None) -> UserError:
    """The error for a store that somebody else writes."""
    who = "another process" if holder is None else str(holder)
    lease = ""
    if holder is not None and holder.owner:
        lease = f" (a process that died lets go {EXPIRY_SECONDS:.0f} seconds after its last sign of life)"
    return UserError(f"The {files.what} {files} is being written by {who}; wait for it or stop it{lease}.")
