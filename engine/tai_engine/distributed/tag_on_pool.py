"""Tagging in other processes and on other machines: each commit group becomes a Parquet file in a folder.

The folder, a path or an address, is a data set for whatever reads Parquet: one file per group, ``_job.json`` for going
on with it, and ``_manifest.json``, written last, which says that it is whole (readers pass over names with ``_``).
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from tai_engine.distributed.work import Workplace
from tai_engine.errors import UserError
from tai_engine.features import require_same_space
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore
from tai_engine.store.abstract_files import StoreFiles
from tai_engine.store.store_files import open_files
from tai_engine.tagging.batch_loop import Progress, Selection, TagPart, TagReport, part_name, tag_group, tag_provenance
from tai_engine.tagging.scoring import ScoringConfig, default_scoring, in_effect

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
        folder: path or address of the parts.
    """

    store: str
    prompts: PromptSet
    scoring: ScoringConfig
    selection: Selection
    folder: str

    def start(self, place: Workplace) -> GroupTagger:
        """Open the store."""
        return GroupTagger(self, place.device)


class GroupTagger:
    """A worker: number of a commit group in, `TagPart` out when its file is written."""

    def __init__(self, recipe: TagRecipe, device: str) -> None:
        self._recipe = recipe
        self._device = device
        self._store = FeatureStore.open(recipe.store)
        self._files = open_files(recipe.folder)

    def describe(self) -> str:
        """The store's fingerprint: all workers must see the same."""
        return self._store.fingerprint

    def run(self, groups: Iterable[int]) -> Generator[TagPart]:
        """Write the parts of some groups.

        Raises:
            UserError: for a damaged group, or when the file system refuses.
        """
        recipe = self._recipe
        for group in groups:
            data, part = tag_group(self._store, group, recipe.prompts, recipe.scoring, recipe.selection, self._device)
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


@dataclass(frozen=True)
class PooledParts:
    """Has parts made by a pool; a `tai_engine.tagging.PartsRunner` for `tai_engine.tagging.tag_store`."""

    store: FeatureStore
    prompts: PromptSet
    scoring: ScoringConfig
    selection: Selection
    make_pool: TagPoolMaker

    def __call__(self, folder: Path | str, groups: Sequence[int]) -> Iterator[TagPart]:
        """Write the parts of these groups into the folder."""
        if not groups:
            return
        recipe = TagRecipe(
            open_files(self.store.path).absolute,
            self.prompts,
            self.scoring,
            self.selection,
            open_files(folder).absolute,
        )
        with self.make_pool(recipe) as pool:
            yield from pool.run(groups)


def tag_to_folder(
    store: FeatureStore,
    prompts: PromptSet,
    out: str | Path,
    make_pool: TagPoolMaker,
    scoring: ScoringConfig | None = None,
    selection: Selection | None = None,
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
        progress: called with items done and in all after every group.

    Raises:
        UserError: for another space, a folder that holds something else, or a place that cannot be written; what was
            done so far is kept for the next run.
    """
    started = time.perf_counter()
    require_same_space(store.spec.space_key, prompts.space_key, f"the store '{store.path}'", "the prompt set")
    scoring = in_effect(scoring or default_scoring(prompts, "merged" if store.spec.has_fine else "coarse"), prompts)
    selection = selection or Selection()
    provenance = tag_provenance(store, prompts, scoring, selection)
    files = open_files(out)
    parts = {part.group: part for part in _begin(files, {**provenance, "store": store.fingerprint}, store.groups())}
    items = store.counts()["done"]
    done = resumed = sum(part.items for part in parts.values())
    missing = [group for group in store.groups() if group not in parts]
    if progress and resumed:
        progress(done, items)
    for part in PooledParts(store, prompts, scoring, selection, make_pool)(str(out), missing):
        parts[part.group] = part
        done += part.items
        if progress:
            progress(done, items)
    tags = sum(part.tags for part in parts.values())
    manifest = {
        "format": "tai-engine tags, one Parquet file per commit group",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "items": items,
        "tags": tags,
        "provenance": provenance,
        "parts": [
            {"file": part_name(group), "items": parts[group].items, "tags": parts[group].tags}
            for group in sorted(parts)
        ],
    }
    files.write(MANIFEST, json.dumps(manifest, indent=1))
    failed = store.counts()["failed"]
    return TagReport(str(out), items, tags, failed, resumed, time.perf_counter() - started)


def _begin(files: StoreFiles, job: dict[str, str], groups: Sequence[int]) -> list[TagPart]:
    """The parts of this very job that there are; those of another one that was not finished are removed."""
    text = json.dumps(job, sort_keys=True)
    try:
        names = set(files.names())
        if JOB in names and files.read(JOB).decode("utf-8") == text:
            return [_read_part(files, group) for group in groups if part_name(group) in names]
        if names and (JOB not in names or MANIFEST in names):
            what = "tags of another run" if JOB in names else "something else"
            raise UserError(
                f"The folder '{files}' holds {what}: choose another one with --out, or remove it to make it anew."
            )
        for name in sorted(names - {JOB}):
            if name.endswith(".parquet"):
                files.remove(name)
        files.write(JOB, text)
    except OSError as error:
        raise UserError(
            f"Tags cannot be written to '{files}' ({error.strerror or error}): choose another place with --out."
        ) from error
    return []


def _read_part(files: StoreFiles, group: int) -> TagPart:
    data = files.read(part_name(group))
    try:
        metadata = pq.read_metadata(io.BytesIO(data))
        return TagPart(group, int(metadata.metadata[b"items"]), metadata.num_rows)
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"'{files}/{part_name(group)}' is not a whole file of tags ({error}): remove it and run the same command "
            "again."
        ) from error
