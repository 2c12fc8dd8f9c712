"""Pictures to commit groups in other processes and on other machines: what travels there, and what comes back.

A worker prepares whole groups of the store; only the process that holds the store's lock commits them.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import torch

from tai_engine.caching.encode_groups import encode_groups
from tai_engine.caching.groups import SliceCallback
from tai_engine.caching.images import ImageEncoder, PictureSource, image_spec, update_store
from tai_engine.caching.report import CacheOptions, CacheReport, ProgressCallback
from tai_engine.caching.stages import Stages
from tai_engine.decoding.decode import DecodeOptions
from tai_engine.decoding.feed import GroupTask
from tai_engine.decoding.worker import Preparation
from tai_engine.distributed.work import Workplace
from tai_engine.features import FeatureBatch
from tai_engine.processors import available_cpus
from tai_engine.store import FeatureStore, StoredItem, StoreSpec
from tai_engine.store.layout.commits import CommitRecord, read_record, record_name
from tai_engine.store.places.abstract_files import StoreFiles
from tai_engine.store.places.store_files import open_files

MAX_TASK_BYTES = 32 * 2**20
"""Of files that the items of a task carry with them, and one file more. A task is a group of the store: smaller ones
would make small groups, which `tai compact` fills."""


@dataclass(frozen=True)
class EncoderDescription:
    """What a store has to know of an encoder that is loaded elsewhere (`tai_engine.caching.images.EncoderIdentity`).

    Two of them are equal if their encoders make the same features; provenance, with the device's name, does not count.
    """

    space_key: str
    recipe_key: str
    dim: int
    rows_per_image: int
    has_coarse_clip: bool
    recipe: dict[str, Any] = field(compare=False)
    provenance: dict[str, str | int | float] = field(compare=False)

    @classmethod
    def of(cls, encoder: ImageEncoder) -> EncoderDescription:
        """The description of an encoder that is loaded here."""
        encoder.prepare_images()
        return cls(
            space_key=encoder.space_key,
            recipe_key=encoder.recipe_key,
            dim=encoder.dim,
            rows_per_image=encoder.rows_per_image,
            has_coarse_clip=encoder.has_coarse_clip,
            recipe=dict(encoder.recipe),
            provenance=dict(encoder.provenance),
        )


@dataclass(frozen=True)
class EncodedGroup:
    """A group that a worker prepared.

    Attributes:
        record: to be committed.
        seconds: by stage, since the worker's group before.
        remarks: counted likewise (see `tai_engine.caching.stages.Stages`).
    """

    record: CommitRecord
    seconds: Mapping[str, float]
    remarks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class EncodeRecipe:
    """How a worker that encodes is made; picklable.

    Attributes:
        open_encoder: a device's name to an encoder; a function of a module that can be imported, or a partial of one.
        store: path or address, the same everywhere; it need not exist before the first task comes.
        reader: an item of the source to its bytes.
        decoding: how pictures are decoded.
        options: sizes and workers; the decoding workers are those of a machine, and shared among its processes.
    """

    open_encoder: Callable[[str], ImageEncoder]
    store: str
    reader: Callable[[Any], bytes]
    decoding: DecodeOptions = field(default_factory=DecodeOptions)
    options: CacheOptions = field(default_factory=CacheOptions)

    def start(self, place: Workplace) -> GroupEncoder:
        """Load the encoder."""
        return GroupEncoder(self, place)


class GroupEncoder:
    """A worker: `GroupTask` in, `EncodedGroup` out; memory as `tai_engine.caching.encode_groups` says."""

    def __init__(self, recipe: EncodeRecipe, place: Workplace) -> None:
        if place.device == "cpu" and place.workers > 1:
            torch.set_num_threads(max(1, available_cpus() // place.workers))
        self._recipe = recipe
        self._encoder = recipe.open_encoder(place.device)
        decoders = (recipe.options.workers or available_cpus()) // place.workers
        self._options = replace(recipe.options, workers=max(1, decoders))

    def describe(self) -> EncoderDescription:
        """What the store has to know of the encoder."""
        return EncoderDescription.of(self._encoder)

    def run(self, tasks: Iterable[GroupTask]) -> Generator[EncodedGroup]:
        """Prepare groups, in the tasks' order; can be called again when it is through.

        Raises:
            UserError: as `encode_groups` does.
        """
        tasks = map(_giving_away, tasks)
        first = next(tasks, None)
        if first is None:
            return
        recipe, stages = self._recipe, Stages()
        store = PreparedOnce(FeatureStore.open(recipe.store))
        prepare = Preparation(recipe.reader, self._encoder.preprocess.pixels, recipe.decoding)
        records = encode_groups(
            itertools.chain([first], tasks), store, self._encoder, prepare, self._options, stages, tasks_may_wait=True
        )
        before, remarked = dict(stages.seconds), stages.remarks.copy()
        with contextlib.closing(cast("Generator[CommitRecord]", records)):
            for record in records:
                now = dict(stages.seconds)
                seconds = {name: now[name] - before[name] for name in now}
                yield EncodedGroup(record, seconds, stages.remarks - remarked)
                before, remarked = now, stages.remarks.copy()


def _giving_away(task: GroupTask) -> GroupTask:
    """The same task, which holds of its items those alone that were not taken yet."""

    def taken(items: Iterable[Any]) -> Iterator[Any]:
        left = deque(items)
        del items
        while left:
            yield left.popleft()

    return GroupTask(task.group, taken(task.items))


class PreparedOnce:
    """A store whose groups are prepared unless they are committed.

    A task that is given again since its worker was lost may have been done all the same, and committed: the chunks of a
    committed group must never be touched.
    """

    def __init__(self, store: FeatureStore) -> None:
        self.spec: StoreSpec = store.spec
        self._store = store
        self._files: StoreFiles = open_files(store.path)

    def prepare_group(self, group: int, items: Sequence[StoredItem], batches: Sequence[FeatureBatch]) -> CommitRecord:
        """See `FeatureStore.prepare_group`; of a committed group the record that it has."""
        if self._files.exists(record_name(group)):
            return read_record(self._files, self.spec, group)
        return self._store.prepare_group(group, items, batches)


class GroupPool(Protocol):
    """Workers on `EncodeRecipe`, here or elsewhere."""

    def run(self, tasks: Iterable[GroupTask], /) -> Iterator[EncodedGroup]:
        """The results of all tasks, in any order."""


class PooledGroups:
    """Has the groups made by a pool; a `tai_engine.caching.GroupRunner`."""

    def __init__(self, pool: GroupPool) -> None:
        self._pool = pool

    def __call__(
        self, tasks: Iterator[GroupTask], _store: FeatureStore, stages: Stages, on_slice: SliceCallback
    ) -> Iterator[CommitRecord]:
        """The records of all tasks, to be committed."""
        # Items come from the source as they are walked through. A task travels as a whole, so its bytes are bounded.
        whole = (GroupTask(task.group, tuple(task.items)) for task in tasks)
        for encoded in self._pool.run(whole):
            stages.add(encoded.seconds)
            stages.remarks.update(encoded.remarks)
            on_slice(encoded.record.done, len(encoded.record.failed))
            yield encoded.record


def cache_on_pool(
    make_pool: Callable[[EncodeRecipe], Any],
    recipe: EncodeRecipe,
    source: PictureSource,
    *,
    progress: ProgressCallback | None = None,
) -> CacheReport:
    """Bring the recipe's store up to date with ``source``, as `tai_engine.caching.cache_images` does.

    No encoder is loaded here. Memory: that of `tai_engine.caching.update_store` and of the pool, which holds two tasks
    for each worker; where items carry their files, a task has `MAX_TASK_BYTES` of them and one more file.

    Args:
        make_pool: a recipe to the pool of its workers, a context manager.
        recipe: of the workers.
        source: the pictures.
        progress: called after each group.

    Raises:
        UserError: as `cache_images` does, and as the pool does.
    """
    with make_pool(recipe) as pool:
        spec = image_spec(pool.describe(), recipe.options)
        groups = PooledGroups(pool)
        return update_store(
            source,
            spec,
            recipe.store,
            groups,
            options=recipe.options,
            progress=progress,
            max_task_bytes=MAX_TASK_BYTES,
        )
