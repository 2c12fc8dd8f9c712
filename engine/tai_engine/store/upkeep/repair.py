"""Mend a store so that caching the same inputs again makes it whole.

What is damaged beyond doubt is not patched: a group's record goes to the folder ``damaged``, and with it the group; the
next `tai cache` finds its items missing and makes them again. Every step leaves a store that can be repaired again, so
that a repair which is cut off is simply run once more.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from tai_engine.files import write_error
from tai_engine.store.feature_store import FeatureStore
from tai_engine.store.layout.array_layout import array_description
from tai_engine.store.layout.chunk_files import ChunkFiles
from tai_engine.store.layout.commits import HIDDEN, RECORDS, record_name
from tai_engine.store.layout.live_records import deletion_names, read_summaries
from tai_engine.store.layout.spec import StoreSpec
from tai_engine.store.places.abstract_files import METADATA, StoreFiles
from tai_engine.store.places.abstract_lock import StoreLock
from tai_engine.store.places.lock import hold_lock
from tai_engine.store.places.store_files import open_files
from tai_engine.store.upkeep.group_checks import StoreProblem
from tai_engine.store.upkeep.verify import (
    Examination,
    ProgressCallback,
    VerifyReport,
    in_order,
    look_at_descriptions,
    readable,
    verify_store,
)

DAMAGED = "damaged"
TAKEN_OUT = "taken out, to be cached again"
"""What was done about the problems of a group that no longer exists."""
_EMPTY_GROUP = '{"attributes": {}, "zarr_format": 3, "node_type": "group"}\n'


def repair_store(store: str | Path, *, deep: bool = True, progress: ProgressCallback | None = None) -> VerifyReport:
    """Look for everything that can be wrong with a store, as `verify_store` does with the same memory, and mend it.

    - A damaged group's record is moved to the folder ``damaged``, and its chunks are removed.
    - The description of an array (its ``zarr.json``) is written anew.
    - Of items with the same id the last one stays, the others are deleted: a writer that replaces an item and is killed
      before it deletes the old one leaves such.
    - What killed writers left is removed.

    Args:
        store: its path or address.
        deep: False leaves the vectors unread; their chunks are only measured.
        progress: called after every group.

    Returns:
        what was found, and what was done about each; a store whose own ``zarr.json`` is damaged cannot be mended.

    Raises:
        UserError: if there is no store, another process is writing it, the file system refuses, or anything cannot be
            read just now: then nothing is removed.
    """
    files = open_files(store)
    with readable(files):
        spec = look_at_descriptions(files).spec
    if spec is None:
        return verify_store(store, deep=deep)
    with hold_lock(files) as lock:
        return _repair(files, spec, deep, progress, lock)


def _repair(
    files: StoreFiles, spec: StoreSpec, deep: bool, progress: ProgressCallback | None, lock: StoreLock
) -> VerifyReport:
    # Everything is looked at before anything is removed: what cannot be read ends it all here.
    with readable(files):
        mended = _mend_descriptions(files, spec)
        leftovers = [HIDDEN] if files.exists(HIDDEN) else []
        descriptions = look_at_descriptions(files)
        if descriptions.arrays is None or descriptions.problems:
            return VerifyReport(str(files), deep, problems=(*mended, *descriptions.problems))
        examination = Examination(files, spec, descriptions.arrays, deep)
        if examination.short:
            known = {problem.file for problem in mended}
            mended += [problem for problem in _lengthen(files, spec, examination) if problem.file not in known]
            descriptions.arrays.refresh()
            examination = Examination(files, spec, descriptions.arrays, deep)
        examination.look_at_groups(progress)
        examination.look_for_leftovers()
    try:
        _remove(files, spec, examination, lock)
    except OSError as error:
        raise write_error(str(files), error) from error
    mended += [
        replace(problem, mended="all but the last deleted" if problem.slots else TAKEN_OUT)
        for problem in examination.problems
    ]
    examination.records = read_summaries(files, spec)
    return replace(
        examination.report(),
        problems=in_order(mended),
        leftovers=tuple(dict.fromkeys((*leftovers, *examination.leftovers))),
        removed_leftovers=True,
    )


def _remove(files: StoreFiles, spec: StoreSpec, examination: Examination, lock: StoreLock) -> None:
    """Take damaged groups out, and remove what killed writers left and all but the last of items with one id."""
    chunks = ChunkFiles(files, spec)
    if files.exists(HIDDEN):
        chunks.remove_hidden()
    for number in sorted(examination.damaged):
        _take_out(files, number)
    chunks.remove_groups(examination.damaged)
    for name in examination.leftovers:
        files.remove(name)
    doubles = [
        problem.group * spec.group_items + slot
        for problem in examination.problems
        if problem.group is not None
        for slot in problem.slots
    ]
    if doubles:
        with FeatureStore.open(files.path).writing_under(lock) as store:
            store.delete(doubles)


def _mend_descriptions(files: StoreFiles, spec: StoreSpec) -> list[StoreProblem]:
    """Write damaged descriptions anew; what they were. Lengths are set to nothing, `_lengthen` comes after."""
    mended = []
    for problem in look_at_descriptions(files).problems:
        array = problem.file.removesuffix(f"/{METADATA}")
        if problem.file == HIDDEN:
            # Without it both the old and the new groups of a compaction exist; half of the items are doubles then.
            _set_aside(files, HIDDEN)
            mended.append(replace(problem, mended=f"moved to {DAMAGED}"))
        elif array == RECORDS:
            # Where all records are gone as well, taking all chunks for leftovers would finish the store.
            if files.names(RECORDS):
                files.write(problem.file, _EMPTY_GROUP)
                mended.append(replace(problem, mended="written anew"))
        else:
            files.write(problem.file, array_description(spec, array, 0))
            mended.append(replace(problem, mended="written anew"))
    return mended


def _lengthen(files: StoreFiles, spec: StoreSpec, examination: Examination) -> list[StoreProblem]:
    """Make arrays reach to the end of their groups again."""
    for array, length in examination.short.items():
        files.write(f"{array}/{METADATA}", array_description(spec, array, length))
    short = {f"{array}/{METADATA}" for array in examination.short}
    return [replace(problem, mended="lengthened") for problem in examination.problems if problem.file in short]


def _take_out(files: StoreFiles, group: int) -> None:
    """Let a group no longer exist; its record is kept for people to look at."""
    _set_aside(files, record_name(group))
    # Chunks must not go before the record has gone for good.
    files.sync([f"{RECORDS}/{METADATA}"])
    for name in deletion_names(files).get(group, ()):
        files.remove(name)


def _set_aside(files: StoreFiles, name: str) -> None:
    # A Zarr group of its own, since Zarr readers warn of folders that they do not know.
    if not files.exists(f"{DAMAGED}/{METADATA}"):
        files.write(f"{DAMAGED}/{METADATA}", _EMPTY_GROUP)
    plain = name.rsplit("/", 1)[-1]
    taken = set(files.names(DAMAGED))
    names = itertools.chain([plain], (f"{number}.{plain}" for number in itertools.count(2)))
    free = next(free for free in names if free not in taken)
    files.write(f"{DAMAGED}/{free}", files.read(name))
    files.remove(name)
