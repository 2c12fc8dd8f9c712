"""Whether a store is what it says: descriptions, records, every chunk against its checksum, every id once.

`tai_engine.store.upkeep.repair` mends what is found here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tai_engine.store.inventory import IdSet
from tai_engine.store.layout.array_layout import open_group, wrong_descriptions
from tai_engine.store.layout.arrays import StoreArrays
from tai_engine.store.layout.commits import (
    HIDDEN,
    RECORDS,
    CommitRecord,
    read_hidden,
    record_groups,
    record_name,
)
from tai_engine.store.layout.live_records import deletion_names, read_live_record
from tai_engine.store.layout.spec import StoreSpec
from tai_engine.store.places.abstract_files import METADATA, StoreFiles
from tai_engine.store.places.damage import DamagedDescriptionError, DamagedRecordError, unreadable
from tai_engine.store.places.lock import find_writer
from tai_engine.store.places.store_files import open_files
from tai_engine.store.upkeep.group_checks import GroupChecker, StoreProblem

ProgressCallback = Callable[[int, int], None]
"""Gets how many groups were checked, and how many there are."""

DESCRIPTION = "damaged description"


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
    problems: tuple[StoreProblem, ...] = ()
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
    with readable(files):
        writer = find_writer(files)
        report = _examined(files, deep, progress, look_for_leftovers=writer is None)
    return replace(report, writer=None if writer is None else str(writer))


def _examined(
    files: StoreFiles, deep: bool, progress: ProgressCallback | None, *, look_for_leftovers: bool
) -> VerifyReport:
    descriptions = look_at_descriptions(files)
    if descriptions.spec is None or descriptions.arrays is None or descriptions.problems:
        # Without descriptions nothing can be read.
        return VerifyReport(str(files), deep, problems=descriptions.problems)
    examination = Examination(files, descriptions.spec, descriptions.arrays, deep)
    examination.look_at_groups(progress)
    if look_for_leftovers:
        examination.look_for_leftovers()
    return examination.report()


@contextlib.contextmanager
def readable(files: StoreFiles) -> Iterator[None]:
    """Whatever cannot be read in the body, in a sentence: it is no damage."""
    try:
        yield
    except OSError as error:
        raise unreadable(files, str(error.filename or ""), error) from error


@dataclass(frozen=True)
class Descriptions:
    """What the files of a store that say how to read the others are like.

    Attributes:
        spec: of the store, None if its own description is damaged.
        arrays: if all of them can be opened.
        problems: what is wrong.
    """

    spec: StoreSpec | None
    arrays: StoreArrays | None
    problems: tuple[StoreProblem, ...]


def look_at_descriptions(files: StoreFiles) -> Descriptions:
    """Look at everything that must be sound before records and groups can be looked at.

    Raises:
        OSError, UserError: as `verify_store`.
    """
    try:
        group, attributes = open_group(files)
        spec = StoreSpec.from_attributes(attributes, files)
    except DamagedDescriptionError as error:
        if not files.names(RECORDS):
            raise
        return Descriptions(None, None, (StoreProblem(DESCRIPTION, METADATA, str(error)),))
    arrays, found = None, []
    try:
        arrays = StoreArrays(files, spec, group)
    except DamagedDescriptionError:
        wrong = wrong_descriptions(files, spec, group)
        found = [StoreProblem(DESCRIPTION, f"{array}/{METADATA}", detail) for array, detail in wrong.items()]
    if not files.exists(f"{RECORDS}/{METADATA}"):
        found.append(StoreProblem(DESCRIPTION, f"{RECORDS}/{METADATA}", "there is no such file"))
    try:
        read_hidden(files)
    except DamagedDescriptionError as error:
        found.append(StoreProblem(DESCRIPTION, HIDDEN, error.what))
    return Descriptions(spec, arrays, tuple(found))


class Examination:
    """One walk through a store whose descriptions are sound.

    Attributes:
        problems: what is wrong.
        leftovers: what killed writers left.
        records: summaries of the records that make sense, by group.
        damaged: groups that hold problems.
        short: arrays that are too short for their groups: the length that they need.
    """

    def __init__(self, files: StoreFiles, spec: StoreSpec, arrays: StoreArrays, deep: bool) -> None:
        """Look at the records.

        Args:
            files: of the store.
            spec: of the store.
            arrays: of the store.
            deep: as `verify_store`.

        Raises:
            OSError, UserError: as `verify_store`.
        """
        self._files = files
        self._spec = spec
        self._deep = deep
        self._chunks = arrays.chunk_files
        self._checker = GroupChecker(files, spec, arrays)
        self.problems: list[StoreProblem] = []
        self.leftovers: list[str] = []
        self.records: dict[int, CommitRecord] = {}
        self.damaged: set[int] = set()
        self._deletions = deletion_names(files)
        hidden = read_hidden(files)
        for number in record_groups(files):
            if number not in hidden:
                self._look_at_record(number)
        self.short = self._checker.short_arrays(self.records.values())
        for array, needed in self.short.items():
            self.problems.append(
                StoreProblem("array too short", f"{array}/{METADATA}", f"{needed} entries were written")
            )

    def _read_record(self, number: int) -> CommitRecord:
        return read_live_record(self._files, self._spec, number, self._deletions.get(number, ()))

    def _look_at_record(self, number: int) -> None:
        try:
            self.records[number] = self._read_record(number).summary()
        except DamagedRecordError as error:
            self._note([StoreProblem("damaged record", record_name(number), error.what, number)])

    def look_at_groups(self, progress: ProgressCallback | None = None) -> None:
        """Look at what the groups hold.

        Raises:
            OSError, UserError: as `verify_store`.
        """
        known = IdSet()
        # From the back, since of items with one id the last one counts.
        for count, number in enumerate(sorted(self.records, reverse=True), 1):
            found, ids = self._checker.check(self._read_record(number), self._deep)
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
            self.problems.append(StoreProblem("duplicate ids", record_name(number), detail, number, slots))

    def _note(self, problems: list[StoreProblem]) -> None:
        self.problems += problems
        self.damaged |= {problem.group for problem in problems if problem.group is not None}

    def look_for_leftovers(self) -> None:
        """Look for chunks and temporary files that no record counts with.

        Raises:
            OSError: if a folder cannot be read.
        """
        hidden = read_hidden(self._files)
        if self._files.exists(HIDDEN):
            self.leftovers.append(HIDDEN)
        self.leftovers += [record_name(number) for number in record_groups(self._files) if number in hidden]
        for number, deletions in self._deletions.items():
            if number not in self.records and number not in self.damaged:
                self.leftovers += deletions
        self.leftovers += self._chunks.temporaries()
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


def in_order(problems: Iterable[StoreProblem]) -> tuple[StoreProblem, ...]:
    """Problems of the whole store, then those of the groups in their order."""
    return tuple(sorted(problems, key=lambda problem: -1 if problem.group is None else problem.group))
