"""The right to write a store: what it asks of whoever holds it, and who that is.

Its two forms are the file lock (`tai_engine.store.places.lock`) and the lease (`tai_engine.store.places.lease`).
"""

from __future__ import annotations

import json
import os
import socket
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass

from tai_engine.errors import UserError
from tai_engine.json_documents import parse_json
from tai_engine.store.places.abstract_files import StoreFiles


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


def busy(files: StoreFiles, holder: Holder | None, hint: str = "") -> UserError:
    """The error for a store that somebody else writes; ``hint`` is said at its end."""
    who = "another process" if holder is None else str(holder)
    return UserError(f"The {files.what} {files} is being written by {who}; wait for it or stop it{hint}.")
