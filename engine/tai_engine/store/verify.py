"""Whether a store is what it says: descriptions, records, every chunk against its checksum, every id once.

`tai_engine.store.repair` mends what is found here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import zarr

from tai_engine.errors import UserError
from tai_engine.store.array_layout import open_group, wrong_descriptions
from tai_engine.store.arrays import StoreArrays
from tai_engine.store.chunk_files import ChunkFiles
from tai_engine.store.commits import (
    HIDDEN,
    RECORDS,
    CommitRecord,
    read_hidden,
    read_record,
    record_groups,
    record_name,
)
from tai_engine.store.group_checks import GroupChecker, Problem
from tai_engine.store.id_set import IdSet
from tai_engine.store.lock import find_writer
from tai_engine.store.spec import SCHEMA_VERSION, StoreSpec
from tai_engine.store.store_files import METADATA, StoreFiles, open_files

ProgressCallback = Callable[[int, int], None]
"""Gets how many groups were checked, and how many there are."""

DESCRIPTION = "damaged description"
_TEMPORARY = re.compile(r"\..*\.tmp|.*\.partial")


@dataclass(frozen=True)
class VerifyReport:
    """What was found in a store, and what was done about it.

    Attributes:
        path: the store.
        is_deep: whether all vectors were read.
        groups, done, failed, deleted, bytes: what the records say that could be read.
        problems: in the order of the groups.
        leftovers: files that killed writers left; they take space and do no harm.
        removed_leftovers: whether they were removed.
        writer: who was writing the store meanwhile; what he is about is not looked for then.
    """

    path: str
    is_deep: bool
    groups: int = 0
    done: int = 0
    failed: int = 0
    deleted: int = 0
    bytes: int = 0
    problems: tuple[Problem, ...] = ()
    leftovers: tuple[str, ...] = ()
    removed_leftovers: bool = False
    writer: str | None = None

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong, or no longer."""
        return all(problem.mended for problem in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        values = asdict(self)
        for problem in values["problems"]:
            del problem["slots"]
        return {"is_sound": self.is_sound, **values}


def verify_store(store: str | Path, *, deep: bool = True, progress: ProgressCallback | None = None) -> VerifyReport:
    """Look for everything that can be wrong with a store; nothing is changed.

    Memory: the columns of a group and one chunk, 16 bytes for each id, 200 for each group, and the names of the files
    in one folder, 100 bytes each (about 40 files a group).

    Args:
        store: its path or address.
        deep: False leaves the vectors unread; their chunks are only measured.
        progress: called after every group.

    Raises:
        UserError: if there is no store, a newer version made it, or it cannot be read.
    """
    files = open_files(store)
    try:
        writer = find_writer(files)
        examination = Examination(files, deep)
        if examination.look_at_records():
            examination.look_at_groups(progress)
            if writer is None:
                examination.look_for_leftovers()
    except OSError as error:
        raise unreadable(files, error) from error
    return replace(examination.report(), writer=None if writer is None else str(writer))


def unreadable(files: StoreFiles, error: OSError) -> UserError:
    """The error for a store whose files cannot be looked at."""
    return UserError(
        f"The store {files} cannot be read ({error.strerror or error}); check the path and its permissions."
    )


class Examination:
    """One walk through a store.

    Attributes:
        problems: what is wrong.
        leftovers: what killed writers left.
        records: summaries of the records that make sense, by group.
        damaged: groups that hold problems.
        short: arrays that are too short for their groups: the length that they need.
    """

    def __init__(self, files: StoreFiles, deep: bool) -> None:
        """Args: as `verify_store`."""
        self._files = files
        self._deep = deep
        self.problems: list[Problem] = []
        self.leftovers: list[str] = []
        self.records: dict[int, CommitRecord] = {}
        self.damaged: set[int] = set()
        self.short: dict[str, int] = {}
        self._chunks: ChunkFiles
        self._checker: GroupChecker

    def look_at_records(self) -> bool:
        """Look at the descriptions and, if these are sound, at the records; whether the groups can be looked at.

        Raises:
            OSError, UserError: as `verify_store`.
        """
        opened = self.open()
        if opened is None:
            return False
        spec, group = opened
        arrays, problems = open_arrays(self._files, spec, group)
        self.problems += problems
        if arrays is None or problems:  # without descriptions nothing can be read
            return False
        self._chunks = ChunkFiles(self._files, spec)
        self._checker = GroupChecker(self._files, spec, arrays)
        hidden = read_hidden(self._files)
        for number in record_groups(self._files):
            if number not in hidden:
                self._look_at_record(number)
        self.short = self._checker.short_arrays(self.records.values())
        for array, needed in self.short.items():
            self.problems.append(Problem("array too short", f"{array}/{METADATA}", f"{needed} entries were written"))
        return True

    def open(self) -> tuple[StoreSpec, zarr.Group] | None:
        """The spec of the store and its Zarr group; None, and a problem, if its own description is damaged."""
        attributes: dict[str, Any] | None = None
        try:
            group, attributes = open_group(self._files)
            return StoreSpec.from_attributes(attributes, self._files), group
        except UserError as error:
            version = (attributes or {}).get("schema_version")
            is_newer = isinstance(version, int) and version > SCHEMA_VERSION
            if is_newer or not self._files.names(RECORDS):
                raise
            self.problems.append(Problem(DESCRIPTION, METADATA, str(error)))
            return None

    def _look_at_record(self, number: int) -> None:
        try:
            record = read_record(self._files, number)
            found = list(self._checker.record_problems(record))
        except UserError as error:
            found = [Problem("damaged record", record_name(number), str(error.__cause__ or error), number)]
        if found:
            self._note(found)
        else:
            self.records[number] = record.summary()

    def look_at_groups(self, progress: ProgressCallback | None = None) -> None:
        """Look at what the groups hold; after `look_at_records`.

        Raises:
            OSError, UserError: as `verify_store`.
        """
        known = IdSet()
        # From the back, since of items with one id the last one counts.
        for count, number in enumerate(sorted(self.records, reverse=True), 1):
            found, ids = self._checker.check(read_record(self._files, number), self._deep)
            if found:
                # Its items are to be cached again: no other group's are doubled by them.
                self._note(found)
            else:
                self._look_for_doubles(number, ids, known)
            if progress is not None:
                progress(count, len(self.records))

    def _look_for_doubles(self, number: int, ids: list[tuple[int, str]], known: IdSet) -> None:
        doubled = [(slot, name) for slot, name in reversed(ids) if not known.add(name)]
        if doubled:
            detail = f"ids that come again further back: {len(doubled)}, the last is {doubled[0][1]!r}"
            slots = tuple(slot for slot, _ in doubled)
            self.problems.append(Problem("duplicate ids", record_name(number), detail, number, slots))

    def _note(self, problems: list[Problem]) -> None:
        self.problems += problems
        self.damaged |= {problem.group for problem in problems if problem.group is not None}

    def look_for_leftovers(self) -> None:
        """Look for chunks and temporary files that no record counts with; after `look_at_records`.

        Raises:
            OSError: if a folder cannot be read.
        """
        hidden = read_hidden(self._files)
        if self._files.exists(HIDDEN):
            self.leftovers.append(HIDDEN)
        self.leftovers += [record_name(number) for number in record_groups(self._files) if number in hidden]
        for folder in ("", RECORDS, *self._chunks.arrays):
            names = (name for name in self._files.names(folder) if _TEMPORARY.fullmatch(name))
            self.leftovers += [f"{folder}/{name}" if folder else name for name in names]
        for array in self._chunks.arrays:
            used = {number: len(self._chunks.of_group(array, record)) for number, record in self.records.items()}
            for name, number, place in self._chunks.found(array):
                if number not in self.damaged and place >= used.get(number, 0):
                    self.leftovers.append(name)

    def report(self) -> VerifyReport:
        """What was found."""
        records = self.records.values()
        return VerifyReport(
            path=str(self._files),
            is_deep=self._deep,
            groups=len(records),
            done=sum(record.live_done for record in records),
            failed=sum(record.live_failed for record in records),
            deleted=sum(len(record.deleted) for record in records),
            bytes=sum(record.bytes for record in records),
            problems=in_order(self.problems),
            leftovers=tuple(self.leftovers),
        )


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Problems of the whole store, then those of the groups in their order."""
    return tuple(sorted(problems, key=lambda problem: -1 if problem.group is None else problem.group))


def open_arrays(files: StoreFiles, spec: StoreSpec, group: zarr.Group) -> tuple[StoreArrays | None, list[Problem]]:
    """The arrays, if they can be opened, and what is wrong with the files that say how to read the others."""
    arrays, found = None, []
    try:
        arrays = StoreArrays(files, spec, group)
    except UserError:
        wrong = wrong_descriptions(spec, group)
        found = [Problem(DESCRIPTION, f"{array}/{METADATA}", detail) for array, detail in wrong.items()]
    if not files.exists(f"{RECORDS}/{METADATA}"):
        found.append(Problem(DESCRIPTION, f"{RECORDS}/{METADATA}", "there is no such file"))
    try:
        read_hidden(files)
    except UserError as error:
        found.append(Problem(DESCRIPTION, HIDDEN, str(error.__cause__ or error)))
    return arrays, found
