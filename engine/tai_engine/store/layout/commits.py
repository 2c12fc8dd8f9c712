"""Commit records: a group of items is in the store when its record is, and not before."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from tai_engine.errors import UserError
from tai_engine.json_documents import parse_json
from tai_engine.store.layout.spec import StoreSpec
from tai_engine.store.places.abstract_files import METADATA, StoreFiles
from tai_engine.store.places.damage import DamagedDescriptionError, DamagedRecordError, unreadable

RECORDS = "commits"
HIDDEN = f"{RECORDS}/hidden.json"
"""Says which groups do not exist although they may have records; see `read_hidden`."""
_RECORD = re.compile(r"\d{8,}\.json")


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
            (`tai_engine.store.layout.labels.contents_digest`), None in a store without texts.
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


def create_record(store: StoreFiles, record: CommitRecord) -> None:
    """Commit a group: the record appears whole and durable, or not at all.

    Raises:
        UserError: when the file system refuses, or if another process has committed a group of this number.
    """
    try:
        store.create(record_name(record.group), _as_text(record))
    except FileExistsError as error:
        raise UserError(
            f"Group {record.group} of the store {store} was committed by another process; wait for it, then run the "
            "same command again to go on."
        ) from error


def replace_record(store: StoreFiles, record: CommitRecord) -> None:
    """Change the record of a committed group.

    Raises:
        UserError: when the file system refuses.
    """
    store.write(record_name(record.group), _as_text(record))


def _as_text(record: CommitRecord) -> str:
    values = {name: value for name, value in asdict(record).items() if value is not None and value != ()}
    return json.dumps(values, ensure_ascii=False) + "\n"


def read_record(store: StoreFiles, spec: StoreSpec, group: int) -> CommitRecord:
    """The record of a group, validated as a whole.

    Raises:
        DamagedRecordError: if it is missing or damaged.
        UserError: if it cannot be read, which says nothing about it.
    """
    name = record_name(group)
    try:
        data = store.read(name)
    except FileNotFoundError as error:
        raise DamagedRecordError(store, name, "there is no such file") from error
    except OSError as error:
        raise unreadable(store, name, error) from error
    try:
        record = _parsed(parse_json(data))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DamagedRecordError(store, name, f"{type(error).__name__}: {error}") from error
    wrong = next(_contradictions(record, spec, group), None)
    if wrong is not None:
        raise DamagedRecordError(store, name, wrong)
    return record


def _parsed(values: dict[str, Any]) -> CommitRecord:
    numbers = {name: values[name] for name in ("group", "items", "done", "first_row", "rows", "bytes")}
    deleted = tuple(values.get("deleted", ()))
    for number in (*numbers.values(), *deleted):
        if type(number) is not int:
            raise TypeError(f"{number!r} is not a whole number")
    failed = {int(slot): str(reason) for slot, reason in values["failed"].items()}
    digest = values.get("digest")
    if digest is not None and not re.fullmatch(r"[0-9a-f]{32}", digest):
        raise ValueError("its digest is not one")
    return CommitRecord(**numbers, failed=failed, digest=digest, deleted=deleted)


def _contradictions(record: CommitRecord, spec: StoreSpec, group: int) -> Iterator[str]:
    """What a record says that cannot be in a store of this spec."""
    if record.group != group:
        yield f"it is of group {record.group}"
    if not 0 < record.items <= spec.group_items:
        yield f"it has {record.items} items, and a group 1 to {spec.group_items}"
    if record.done + len(record.failed) != record.items:
        yield f"{record.done} done and {len(record.failed)} failed items are not {record.items}"
    if not 0 <= record.rows <= spec.rows_per_item_max * record.done:
        yield f"it has {record.rows} fine rows, and {record.done} items up to {spec.rows_per_item_max} each"
    if record.first_row != group * spec.group_rows:
        yield f"its first row is {record.first_row}, not {group * spec.group_rows}"
    if record.bytes <= 0:
        yield f"its chunks have {record.bytes} bytes"
    if any(not 0 <= slot < record.items for slot in record.failed):
        yield "a failed item lies outside its slots"
    if any(a >= b for a, b in itertools.pairwise((-1, *record.deleted, record.items))):
        yield "its deleted slots do not rise within its items"


def record_groups(store: StoreFiles) -> list[int]:
    """The groups that have records, damaged and hidden ones among them, in order.

    Raises:
        UserError: if the folder of the records is missing or cannot be read.
    """
    try:
        names = store.names(RECORDS)
        if METADATA not in names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    except FileNotFoundError as error:
        raise UserError(
            f"The store {store} is cut short: its folder {RECORDS} is not there; copy the whole store again or make it "
            "anew."
        ) from error
    except OSError as error:
        raise unreadable(store, RECORDS, error) from error
    return sorted(int(name.removesuffix(".json")) for name in names if _RECORD.fullmatch(name))


def read_hidden(store: StoreFiles) -> range:
    """The groups that do not exist, whatever records and chunks there are of them; nearly always none.

    One file replaces many groups by others in one step: while the new ones are written they are hidden, then, by
    replacing that file, the old ones are. The next writer removes what is hidden, and the file after it.

    Raises:
        DamagedDescriptionError: if the file is damaged.
        UserError: if it cannot be read.
    """
    try:
        data = store.read(HIDDEN)
    except FileNotFoundError:
        return range(0)
    except OSError as error:
        raise unreadable(store, HIDDEN, error) from error
    try:
        values = parse_json(data)
        return range(int(values["first"]), int(values["stop"]))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        message = f"The file {store}/{HIDDEN} is damaged ({error}); run `tai verify {store} --repair` to be without it."
        raise DamagedDescriptionError(message, HIDDEN, str(error)) from error


def write_hidden(store: StoreFiles, groups: range) -> None:
    """Hide these groups, and no others; durable.

    Raises:
        UserError: when the file system refuses.
    """
    store.write(HIDDEN, json.dumps({"first": groups.start, "stop": groups.stop}) + "\n")
