"""Commit records: a group of items is in the store when its record is, and not before."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from tai_engine.errors import UserError
from tai_engine.store.abstract_files import METADATA, StoreFiles

RECORDS = "commits"
HIDDEN = f"{RECORDS}/hidden.json"
"""Says which groups do not exist although they may have records; see `read_hidden`."""
_ADVICE = "run `tai verify {store} --repair`, then run the same `tai cache` command again to redo its items"
_RECORD = re.compile(r"\d{8,}\.json")


class DamagedGroupError(UserError):
    """A committed group cannot be read.

    Attributes:
        what: what is wrong with it.
    """

    def __init__(self, store: StoreFiles, group: int, what: str) -> None:
        super().__init__(f"Group {group} of the store {store} is damaged ({what}); {_ADVICE.format(store=store)}.")
        self.what = what


@dataclass(frozen=True)
class CommitRecord:
    """One committed group.

    Attributes:
        group: its number.
        items: slots in use, done and failed ones.
        done: items with features.
        first_row: where its fine rows begin.
        rows: how many there are.
        bytes: size of its chunks.
        failed: slot within the group -> reason; empty in the summaries that a store keeps in memory.
        digest: of the ids, texts and labels of the items that are not deleted
            (`tai_engine.store.labels.contents_digest`), None in a store without texts.
        deleted: slots within the group that were deleted after it was written, rising. The other numbers stay as they
            were written.
    """

    group: int
    items: int
    done: int
    first_row: int
    rows: int
    bytes: int
    failed: Mapping[int, str]
    digest: str | None = None
    deleted: tuple[int, ...] = ()

    @property
    def live_failed(self) -> int:
        """Failed items that were not deleted."""
        return self.items - self.done - sum(slot in self.failed for slot in self.deleted)

    @property
    def live_done(self) -> int:
        """Items with features that were not deleted."""
        return self.items - len(self.deleted) - self.live_failed

    def summary(self) -> CommitRecord:
        """The same with no reasons, and of the failed slots those only that were deleted."""
        return replace(self, failed={slot: "" for slot in self.deleted if slot in self.failed})


def record_name(group: int) -> str:
    """Which file of a store is the record of a group."""
    return f"{RECORDS}/{group:08d}.json"


def write_record(store: StoreFiles, record: CommitRecord) -> None:
    """Commit a group: the record appears whole and durable, or not at all.

    Raises:
        UserError: when the file system refuses.
    """
    values = {name: value for name, value in asdict(record).items() if value is not None and value != ()}
    store.write(record_name(record.group), json.dumps(values, ensure_ascii=False) + "\n")


def read_record(store: StoreFiles, group: int) -> CommitRecord:
    """The record of a group.

    Raises:
        UserError: if it is damaged.
    """
    name = record_name(group)
    try:
        values = json.loads(store.read(name).decode("utf-8"))
        failed = {int(slot): str(reason) for slot, reason in values["failed"].items()}
        numbers = {name: int(values[name]) for name in ("group", "items", "done", "first_row", "rows", "bytes")}
        if numbers["group"] != group or numbers["done"] + len(failed) != numbers["items"]:
            raise ValueError("its numbers do not fit together")
        digest = values.get("digest")
        if digest is not None and not re.fullmatch(r"[0-9a-f]{32}", digest):
            raise ValueError("its digest is not one")
        deleted = tuple(map(int, values.get("deleted", ())))
        if any(a >= b for a, b in itertools.pairwise((-1, *deleted, numbers["items"]))):
            raise ValueError("its deleted slots do not rise within its items")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"The commit record {store}/{name} is damaged ({error}); {_ADVICE.format(store=store)}."
        ) from error
    return CommitRecord(**numbers, failed=failed, digest=digest, deleted=deleted)


def record_groups(store: StoreFiles) -> list[int]:
    """The groups that have records, damaged and hidden ones among them, in order.

    Raises:
        UserError: if the folder of the records is missing or cannot be read.
    """
    try:
        names = store.names(RECORDS)
        if METADATA not in names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    except OSError as error:
        raise UserError(
            f"The store {store} is cut short: its folder {RECORDS} cannot be read ({error.strerror or error}); "
            "copy the whole store again or make it anew."
        ) from error
    return sorted(int(name.removesuffix(".json")) for name in names if _RECORD.fullmatch(name))


def read_hidden(store: StoreFiles) -> range:
    """The groups that do not exist, whatever records and chunks there are of them; nearly always none.

    One file replaces many groups by others in one step: while the new ones are written they are hidden, then, by
    replacing that file, the old ones are. The next writer removes what is hidden, and the file after it.

    Raises:
        UserError: if the file is damaged.
    """
    try:
        values = json.loads(store.read(HIDDEN))
        return range(int(values["first"]), int(values["stop"]))
    except FileNotFoundError:
        return range(0)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"The file {store}/{HIDDEN} is damaged ({error}); run `tai verify {store} --repair` to be without it."
        ) from error


def write_hidden(store: StoreFiles, groups: range) -> None:
    """Hide these groups, and no others; durable.

    Raises:
        UserError: when the file system refuses.
    """
    store.write(HIDDEN, json.dumps({"first": groups.start, "stop": groups.stop}) + "\n")


def read_summaries(store: StoreFiles) -> dict[int, CommitRecord]:
    """The records of all groups that exist, in order and without their reasons: about 200 bytes of memory per group,
    and 8 for each item that was deleted.

    Raises:
        UserError: if one is damaged or the folder cannot be read.
    """
    # The list first: a group that is hidden later was there when it was made.
    groups, hidden = record_groups(store), read_hidden(store)
    return {group: read_record(store, group).summary() for group in groups if group not in hidden}
