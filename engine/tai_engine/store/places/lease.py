"""The right to write a store where there are no file locks: a lease, which is a file that is renewed.

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
import re
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tai_engine.errors import UserError
from tai_engine.store.places.abstract_files import StoreFiles
from tai_engine.store.places.abstract_lock import Holder, StoreLock, busy

RENEW_SECONDS = 10.0
EXPIRY_SECONDS = 60.0
# A holder gives itself up so much sooner than others do: clocks differ, and what it has sent is under way for a while.
MARGIN_SECONDS = 10.0
# Where files cannot be made on condition, two processes may both make one; after this pause both see whose it is.
SETTLE_SECONDS = 0.2
_LEASE = re.compile(r"lease\.(\d{6,})\.json")
_CLOCK_IN_SLEEP = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while the machine sleeps


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
        if before is not None and before.is_in_force:
            raise _taken(files, before)
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
            raise _taken(self._files, found)
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

    @property
    def is_in_force(self) -> bool:
        """Whether it holds the right. One from the future is as void as an old one: its clock cannot be trusted."""
        holder = self.holder
        return holder is not None and not holder.ended and abs(time.time() - holder.renewed_at) < EXPIRY_SECONDS


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
    return found.holder if found is not None and found.is_in_force else None


def _taken(files: StoreFiles, found: FoundLease | None) -> UserError:
    if found is None or found.holder is None:
        return busy(files, None)
    hint = f" (a process that died lets go {EXPIRY_SECONDS:.0f} seconds after its last sign of life)"
    return busy(files, found.holder, hint)
