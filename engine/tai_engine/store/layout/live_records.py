"""The records of the groups that exist, with what was deleted since they were written.

Under a file lock a deletion changes the record of its group, which is replaced as a whole. Under a lease it is a file
of its own beside the record, ``00000003.deleted.1.json``: such files are only ever made, on the condition that there is
none of the name, and what they say adds up. So nothing that a writer does which slept, and does not know yet that
another one has taken the store over, undoes what that one has deleted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tai_engine.errors import UserError
from tai_engine.json_documents import parse_json
from tai_engine.store.layout.commits import (
    RECORDS,
    CommitRecord,
    read_hidden,
    read_record,
    record_groups,
    record_name,
    replace_record,
)
from tai_engine.store.layout.labels import add_digests, subtract_digest
from tai_engine.store.layout.spec import StoreSpec
from tai_engine.store.places.abstract_files import StoreFiles
from tai_engine.store.places.damage import DamagedRecordError, unreadable

_DELETION = re.compile(r"(\d{8,})\.deleted\.(\d+)\.json")


def read_summaries(store: StoreFiles, spec: StoreSpec) -> dict[int, CommitRecord]:
    """The records of all groups that exist, in order and without their reasons: about 200 bytes of memory per group,
    and 8 for each item that was deleted.

    Raises:
        UserError: if one is damaged or cannot be read.
    """
    # The list first: a group that is hidden later was there when it was made.
    groups, hidden, deletions = record_groups(store), read_hidden(store), deletion_names(store)
    return {
        group: read_live_record(store, spec, group, deletions.get(group, ())).summary()
        for group in groups
        if group not in hidden
    }


def deletion_names(store: StoreFiles) -> dict[int, list[str]]:
    """The files of deletions that there are, by group.

    Raises:
        UserError: if the folder cannot be read.
    """
    try:
        names = store.names(RECORDS)
    except OSError as error:
        raise unreadable(store, RECORDS, error) from error
    found: dict[int, list[str]] = {}
    for name in names:
        match = _DELETION.fullmatch(name)
        if match is not None:
            found.setdefault(int(match[1]), []).append(f"{RECORDS}/{name}")
    return found


def read_live_record(store: StoreFiles, spec: StoreSpec, group: int, deletions: Sequence[str]) -> CommitRecord:
    """The record of a group together with the files of its deletions.

    Args:
        store: its files.
        spec: of the store.
        group: its number.
        deletions: the names of these, from `deletion_names`.

    Raises:
        DamagedRecordError: if the record, or a file of deletions, is damaged.
        UserError: if one cannot be read.
    """
    record = read_record(store, spec, group)
    gone: dict[int, str | None] = {}
    for name in deletions:
        gone |= _read_deletions(store, name, record.items)
    new = {slot: digest for slot, digest in gone.items() if slot not in record.deleted}
    if not new:
        return record
    digest = record.digest
    if digest is not None:
        digest = subtract_digest(digest, add_digests(part for part in new.values() if part is not None))
    return replace(record, deleted=tuple(sorted((*record.deleted, *new))), digest=digest)


def _read_deletions(store: StoreFiles, name: str, items: int) -> dict[int, str | None]:
    try:
        data = store.read(name)
    except FileNotFoundError:
        return {}  # the group is being removed
    except OSError as error:
        raise unreadable(store, name, error) from error
    try:
        found = {int(slot): digest for slot, digest in parse_json(data)["deleted"].items()}
        if not all(0 <= slot < items for slot in found):
            raise ValueError("a slot lies outside the group")
        if not all(digest is None or re.fullmatch(r"[0-9a-f]{32}", digest) for digest in found.values()):
            raise ValueError("a digest is not one")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedRecordError(store, name, f"{type(error).__name__}: {error}") from error
    return found


def delete_slots(
    store: StoreFiles, record: CommitRecord, slots: Mapping[int, str | None], *, can_replace: bool
) -> CommitRecord:
    """Delete some slots of a group for good; the record as it counts then.

    Args:
        store: its files.
        record: of the group, with its reasons, as it counts now.
        slots: each with the digest of its item in a store with texts.
        can_replace: whether no other process can be about to replace the record.

    Raises:
        UserError: when the file system refuses, or another process has deleted at the same time.
    """
    digest = record.digest
    if digest is not None:
        digest = subtract_digest(digest, add_digests(part for part in slots.values() if part is not None))
    after = replace(record, deleted=tuple(sorted((*record.deleted, *slots))), digest=digest)
    if can_replace:
        replace_record(store, after)
        return after
    before = deletion_names(store).get(record.group, ())
    number = 1 + max((int(name.split(".")[-2]) for name in before), default=0)
    name = f"{record_name(record.group).removesuffix('.json')}.deleted.{number}.json"
    try:
        store.create(name, json.dumps({"group": record.group, "deleted": dict(slots)}) + "\n")
    except FileExistsError as error:
        raise UserError(
            f"Items of group {record.group} of the store {store} were deleted by another process at the same time; "
            "wait for it, then run the same command again to go on."
        ) from error
    return after
