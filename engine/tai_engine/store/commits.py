"""Commit records: a group of items is in the store when its record is, and not before."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tai_engine.atomic import write_atomically
from tai_engine.errors import UserError

RECORDS = "commits"
_ADVICE = "remove {record} and run the same `tai cache` command again to redo its items"


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
        digest: of the ids, texts and labels (`tai_engine.store.labels.contents_digest`), None in a store without texts.
    """

    group: int
    items: int
    done: int
    first_row: int
    rows: int
    bytes: int
    failed: Mapping[int, str]
    digest: str | None = None


def record_path(store: Path, group: int) -> Path:
    """Where the record of a group lies."""
    return store / RECORDS / f"{group:08d}.json"


def damaged_group(store: Path, group: int, what: str) -> UserError:
    """The error for a committed group that cannot be read."""
    advice = _ADVICE.format(record=record_path(store, group))
    return UserError(f"Group {group} of the store {store} is damaged ({what}); {advice}.")


def write_record(store: Path, record: CommitRecord) -> None:
    """Commit a group: the record appears whole and durable, or not at all.

    Raises:
        UserError: when the file system refuses.
    """
    values = {name: value for name, value in asdict(record).items() if value is not None}
    write_atomically(record_path(store, record.group), json.dumps(values, ensure_ascii=False) + "\n")


def read_record(store: Path, group: int) -> CommitRecord:
    """The record of a group.

    Raises:
        UserError: if it is damaged.
    """
    path = record_path(store, group)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        failed = {int(slot): str(reason) for slot, reason in values["failed"].items()}
        numbers = {name: int(values[name]) for name in ("group", "items", "done", "first_row", "rows", "bytes")}
        if numbers["group"] != group or numbers["done"] + len(failed) != numbers["items"]:
            raise ValueError("its numbers do not fit together")
        digest = values.get("digest")
        if digest is not None and not re.fullmatch(r"[0-9a-f]{32}", digest):
            raise ValueError("its digest is not one")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"The commit record {path} is damaged ({error}); {_ADVICE.format(record='it')}.") from error
    return CommitRecord(**numbers, failed=failed, digest=digest)


def read_summaries(store: Path) -> dict[int, CommitRecord]:
    """All records by group, in order and without their reasons: about 200 bytes of memory per group.

    Raises:
        UserError: if one is damaged or the folder cannot be read.
    """
    folder = store / RECORDS
    try:
        groups = sorted(int(p.stem) for p in folder.iterdir() if re.fullmatch(r"\d{8,}\.json", p.name))
    except OSError as error:
        raise UserError(
            f"The store {store} is cut short: its folder {folder} cannot be read ({error.strerror}); "
            "copy the whole store again or make it anew."
        ) from error
    return {group: replace(read_record(store, group), failed={}) for group in groups}
