"""What became of every input: done, failed with a reason, or still pending."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tai_engine.errors import UserError
from tai_engine.files import atomic_open

STATUSES = ("done", "failed", "pending")


@dataclass(frozen=True)
class LedgerEntry:
    """What became of one input.

    Attributes:
        id: the item.
        status: one of `STATUSES`.
        reason: why it failed, ``"category"`` or ``"category: detail"``; None unless it failed.

    Raises:
        ValueError: for another status, or a reason that is missing or not called for.
    """

    id: str
    status: str
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"the status of {self.id!r} is {self.status!r}, expected one of {', '.join(STATUSES)}")
        if (self.status == "failed") != bool(self.reason):
            raise ValueError(f"{self.id!r} is {self.status} with the reason {self.reason!r}; only failures have one")

    @property
    def category(self) -> str | None:
        """The reason without its detail: what failures are counted by."""
        return None if self.reason is None else self.reason.partition(":")[0]


@dataclass(frozen=True)
class LedgerSummary:
    """How many inputs ended in which way.

    Attributes:
        done, failed, pending: counts of items.
        reasons: failures per category, the most frequent first, equal counts by name.
    """

    done: int = 0
    failed: int = 0
    pending: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def items(self) -> int:
        """All of them."""
        return self.done + self.failed + self.pending


def summarise(entries: Iterable[LedgerEntry]) -> LedgerSummary:
    """Counts per status and reason; reads the entries once and keeps none."""
    statuses: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for entry in entries:
        statuses[entry.status] += 1
        if entry.category is not None:
            reasons[entry.category] += 1
    ordered = dict(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0])))
    return LedgerSummary(**{status: statuses[status] for status in STATUSES}, reasons=ordered)


def write_ledger(path: str | Path, entries: Iterable[LedgerEntry]) -> LedgerSummary:
    """Write JSON lines ``{"id", "status"}``, with ``"reason"`` for failures; the file appears whole or not at all.

    Memory: one entry.

    Raises:
        UserError: when the file system refuses; an older file then stays as it was.
    """
    with atomic_open(path) as file:

        def written() -> Iterator[LedgerEntry]:
            for entry in entries:
                row = {"id": entry.id, "status": entry.status}
                if entry.reason is not None:
                    row["reason"] = entry.reason
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                yield entry

        return summarise(written())


def read_ledger(path: str | Path) -> Iterator[LedgerEntry]:
    """The entries of a ledger, one at a time.

    Raises:
        UserError: if the file is missing, or a line is no entry (says which).
    """
    number = 0
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):  # noqa: B007 - the error below names it
                row = json.loads(line)
                yield LedgerEntry(str(row["id"]), row["status"], row.get("reason"))
    except OSError as error:
        raise UserError(f"The ledger '{path}' cannot be read ({error.strerror or error}): check the path.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"The ledger '{path}' is damaged after line {max(number - 1, 0)} ({error}): remove it; "
            "the next run writes it anew."
        ) from error
