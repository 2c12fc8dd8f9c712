"""Tagging in other processes and on other machines: each commit group becomes a Parquet file in a folder.

The folder, a path or an address, is a data set for whatever reads Parquet: one file per group, ``_job.json`` for going
on with it, and ``_manifest.json``, written last, which says that it is whole (readers pass over names with ``_``).
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from tai_engine.calibration.calibration import Calibration
from tai_engine.distributed.work import Workplace
from tai_engine.errors import UserError
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore
from tai_engine.store.places.abstract_files import StoreFiles
from tai_engine.store.places.abstract_lock import StoreLock
from tai_engine.store.places.lock import find_writer, hold_lock
from tai_engine.store.places.store_files import open_files
from tai_engine.tagging.batch_loop import Progress, TagReport
from tai_engine.tagging.parts_folder import is_lock, is_own
from tai_engine.tagging.scoring import ScoringConfig
from tai_engine.tagging.tag_job import TagJob, TagPart, part_name
from tai_engine.tagging.tag_selection import Selection

JOB = "_job.json"
MANIFEST = "_manifest.json"


@dataclass(frozen=True)
class TagRecipe:
    """How a worker that tags is made; picklable.

    Attributes:
        store: path or address, the same for all machines.
        prompts: the class vectors.
        scoring: how to score.
        selection: which tags to keep.
        calibration: of the scores; None for none.
        folder: path or address of the parts.
    """

    store: str
    prompts: PromptSet
    scoring: ScoringConfig
    selection: Selection
    calibration: Calibration | None
    folder: str

    def start(self, place: Workplace) -> GroupTagger:
        """Open the store."""
        return GroupTagger(self, place.device)


class GroupTagger:
    """A worker: number of a commit group in, `TagPart` out when its file is written."""

    def __init__(self, recipe: TagRecipe, device: str) -> None:
        self._device = device
        self._job = TagJob(
            FeatureStore.open(recipe.store), recipe.prompts, recipe.scoring, recipe.selection, recipe.calibration
        )
        self._files = open_files(recipe.folder)

    def describe(self) -> str:
        """The store's fingerprint: all workers must see the same."""
        return self._job.store.fingerprint

    def run(self, groups: Iterable[int]) -> Generator[TagPart]:
        """Write the parts of some groups.

        Raises:
            UserError: for a damaged group, or when the file system refuses.
        """
        for group in groups:
            data, part = self._job.tag_group(group, self._device)
            self._files.write(part_name(group), data)
            yield part


class TagPool(Protocol):
    """Workers on `TagRecipe`, here or elsewhere."""

    def run(self, tasks: Iterable[int], /) -> Iterator[TagPart]:
        """The results of all tasks, in any order."""


class TagPoolMaker(Protocol):
    """Makes the pool of a recipe, as a context manager: ``ProcessPool`` and ``RayPool`` with the rest filled in."""

    def __call__(self, recipe: TagRecipe, /) -> AbstractContextManager[TagPool]:
        """The pool; it is entered, and left when all is done."""


def run_on_pool(make_pool: TagPoolMaker, job: TagJob, folder: Path | str, groups: Sequence[int]) -> Iterator[TagPart]:
    """Have the parts of these groups made in a folder by a pool, which is made if there are any.

    With its first argument filled in it is a `tai_engine.tagging.batch_loop.PartsRunner`.
    """
    if not groups:
        return
    store, place = open_files(job.store.path).absolute, open_files(folder).absolute
    recipe = TagRecipe(store, job.prompts, job.scoring, job.selection, job.calibration, place)
    with make_pool(recipe) as pool:
        yield from pool.run(groups)


def tag_to_folder(
    store: FeatureStore,
    prompts: PromptSet,
    out: str | Path,
    make_pool: TagPoolMaker,
    scoring: ScoringConfig | None = None,
    selection: Selection | None = None,
    calibration: Calibration | None = None,
    *,
    progress: Progress | None = None,
) -> TagReport:
    """Tag every item of ``store`` that has features, into a folder of Parquet files.

    The same call goes on with a folder that is not whole yet. Memory here: about 100 bytes per group.

    Args:
        store: the features.
        prompts: the class vectors, of the same space.
        out: the folder, a path or an address that all workers can write to.
        make_pool: makes the workers.
        scoring: how to score; by default as the prompt set was made.
        selection: which tags to keep; by default all.
        calibration: as for `tag_store`.
        progress: called with items done and in all after every group.

    Raises:
        UserError: for another space, a folder that holds something else or that another process writes, or a place that
            cannot be written; what was done so far is kept for the next run.
    """
    started = time.perf_counter()
    job = TagJob.of(store, prompts, scoring, selection, calibration)
    files, groups, counts = open_files(out), store.groups(), store.counts()
    items = counts["done"]
    with _held(files) as lock:
        parts = {part.group: part for part in _begin(files, job, groups)}
        done = resumed = sum(part.items for part in parts.values())
        if progress and resumed:
            progress(done, items)
        for part in run_on_pool(make_pool, job, str(out), [group for group in groups if group not in parts]):
            parts[part.group] = part
            done += part.items
            if progress:
                progress(done, items)
        if done != items or set(parts) != set(groups):
            raise UserError(
                f"The parts in '{files}' hold {done:,} pictures but the store has {items:,}: it was changed while it "
                "was tagged; run the same command again."
            )
        tags = sum(part.tags for part in parts.values())
        manifest = {
            "format": "tai-engine tags, one Parquet file per commit group",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "items": items,
            "tags": tags,
            "provenance": job.provenance,
            "parts": [
                {"file": part_name(group), "items": parts[group].items, "tags": parts[group].tags}
                for group in sorted(parts)
            ],
        }
        lock.check()
        files.write(MANIFEST, json.dumps(manifest, indent=1))
    return TagReport(str(out), items, tags, counts["failed"], resumed, time.perf_counter() - started)


@contextlib.contextmanager
def _held(files: StoreFiles) -> Iterator[StoreLock]:
    """The folder for this process alone; it is made if need be, and refused if it holds something of somebody else.

    Raises:
        UserError: saying what is in the way, or who writes there.
    """
    try:
        strange = next((name for name in files.names() if not (name in (JOB, MANIFEST) or is_own(name))), None)
        if strange is not None:
            raise UserError(f"The folder '{files}' holds something else ('{strange}'): choose another one with --out.")
        local = files.local_path()
        if local is not None:
            local.mkdir(parents=True, exist_ok=True)
        writer = find_writer(files)
    except OSError as error:
        raise UserError(
            f"Tags cannot be written to '{files}' ({error.strerror or error}): choose another place with --out."
        ) from error
    if writer is not None:
        raise UserError(f"The tags '{files}' are being written by {writer}: wait for it or stop it.")
    with hold_lock(files) as lock:
        yield lock


def _begin(files: StoreFiles, job: TagJob, groups: Sequence[int]) -> list[TagPart]:
    """The parts of this very job that there are; those of another one that was not finished are removed."""
    try:
        names = set(files.names())
        if JOB in names and files.read(JOB).decode("utf-8") == job.text:
            return [_read_part(files, job, group) for group in groups if part_name(group) in names]
        if MANIFEST in names or (JOB not in names and any(name.endswith(".parquet") for name in names)):
            what = "tags of another run" if JOB in names else "something else"
            raise UserError(
                f"The folder '{files}' holds {what}: choose another one with --out, or remove it to make it anew."
            )
        for name in sorted(names):
            if is_own(name) and not is_lock(name):
                files.remove(name)
        files.write(JOB, job.text)
    except OSError as error:
        raise UserError(
            f"Tags cannot be written to '{files}' ({error.strerror or error}): choose another place with --out."
        ) from error
    return []


def _read_part(files: StoreFiles, job: TagJob, group: int) -> TagPart:
    try:
        return job.read_part(io.BytesIO(files.read(part_name(group))), group)
    except ValueError as error:
        raise UserError(
            f"'{files}/{part_name(group)}' cannot be used ({error}): remove it and run the same command again."
        ) from error
