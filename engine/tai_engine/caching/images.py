"""Pictures into a store.

Encoders and sources are known here only by the protocols below.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from tai_engine.caching.cache_run import CacheRun
from tai_engine.caching.changes import ChangeFinder, InputItem
from tai_engine.caching.encode_groups import PixelEncoder, encode_groups
from tai_engine.caching.groups import SliceCallback
from tai_engine.caching.missing import missing_of, of_this_source, why_not_to_delete
from tai_engine.caching.report import CacheOptions, CacheReport, ProgressCallback
from tai_engine.caching.sizes import group_sizes
from tai_engine.caching.stages import Stages
from tai_engine.decoding.decode import DecodeOptions
from tai_engine.decoding.feed import GroupTask
from tai_engine.decoding.worker import Preparation, ToPixels
from tai_engine.processors import available_cpus
from tai_engine.store import FeatureStore, StoreSpec
from tai_engine.store.layout.commits import CommitRecord
from tai_engine.store.origins import Origin, require_same_place


class PictureSource(Protocol):
    """Pictures in an order that is the same every time; `tai_engine.sources` has several."""

    def __iter__(self) -> Iterator[Any]:
        """Items, see `InputItem`."""

    def estimate_count(self) -> int | None:
        """How many there are, None if that is not known before they are read."""

    @property
    def reader(self) -> Callable[[Any], bytes]:
        """An item to its bytes; called in other processes, so it must be possible to pickle it."""


class HasPixels(Protocol):
    """What is done to a decoded picture."""

    @property
    def pixels(self) -> ToPixels:
        """Resize and crop; called in other processes, so it must be possible to pickle it without torch."""


class EncoderIdentity(Protocol):
    """What a store has to know of the encoder that fills it."""

    space_key: str
    recipe_key: str
    recipe: dict[str, Any]
    provenance: dict[str, str | int | float]
    dim: int
    rows_per_image: int
    has_coarse_clip: bool


class ImageEncoder(EncoderIdentity, PixelEncoder, Protocol):
    """What `cache_images` needs of an encoder; `tai_engine.encoders.Encoder` has it."""

    @property
    def preprocess(self) -> HasPixels:
        """What pictures go through before `encode_pixels`."""

    def prepare_images(self) -> None:
        """Settle how pictures are encoded; after that ``provenance`` says it truly."""


GroupRunner: TypeAlias = Callable[[Iterator[GroupTask], FeatureStore, Stages, SliceCallback], Iterator[CommitRecord]]
"""Makes groups, here or elsewhere: tasks (whose items are to be walked through before the next task is taken), the
store that they are prepared in, where seconds are added, and what is called for items that were encoded. Records may
come in any order."""


def cache_images(
    source: PictureSource,
    encoder: ImageEncoder,
    path: str | Path,
    *,
    decoding: DecodeOptions | None = None,
    options: CacheOptions | None = None,
    progress: ProgressCallback | None = None,
) -> CacheReport:
    """Bring the store at ``path`` up to date with ``source``: encode what is new or has changed.

    Memory: see `encode_groups`, and 48 bytes per item of the store or the source (64 where contents are compared); it
    does not grow otherwise.

    Args:
        source: the pictures.
        encoder: makes the features; its recipe must be of these ``decoding`` options.
        path: the store; made if there is none.
        decoding: how pictures are decoded.
        options: sizes, workers, and what is done about changes.
        progress: called after each slice.

    Raises:
        UserError: for a store of another kind, space or recipe, or one that is being written; for too little space, a
            disk that is full, an id that comes twice, or a source without pictures.
        WorkerStartError: if decoding processes cannot be started.
    """
    options = options or CacheOptions()
    if FeatureStore.is_free(path):
        encoder.prepare_images()
    prepare = Preparation(source.reader, encoder.preprocess.pixels, decoding or DecodeOptions())

    def run_here(
        tasks: Iterator[GroupTask], store: FeatureStore, stages: Stages, on_slice: SliceCallback
    ) -> Iterator[CommitRecord]:
        return encode_groups(tasks, store, encoder, prepare, options, stages, on_slice, tasks_may_wait=False)

    return update_store(source, image_spec(encoder, options), path, run_here, options=options, progress=progress)


def image_spec(encoder: EncoderIdentity, options: CacheOptions) -> StoreSpec:
    """The identity and sizes of a store of pictures that this encoder fills."""
    group_items, chunk_items = group_sizes(options, encoder.dim, encoder.rows_per_image)
    return StoreSpec(
        kind="images",
        space_key=encoder.space_key,
        recipe_key=encoder.recipe_key,
        dim=encoder.dim,
        rows_per_item_max=encoder.rows_per_image,
        row_dtype=options.row_dtype,
        has_coarse_clip=encoder.has_coarse_clip,
        group_items=group_items,
        chunk_items=chunk_items,
        provenance=dict(encoder.provenance),
        recipe=dict(encoder.recipe),
        has_content_hash=True,
    )


def update_store(
    source: PictureSource,
    spec: StoreSpec,
    path: str | Path,
    run_groups: GroupRunner,
    *,
    options: CacheOptions | None = None,
    progress: ProgressCallback | None = None,
    max_task_bytes: int | None = None,
) -> CacheReport:
    """The same as `cache_images`, with whatever runs the groups.

    What a killed run left half done is put right first. A changed item's old features go when its new ones are
    committed. Nothing is deleted as missing on weak evidence (`CacheOptions.delete_missing`), or if parts of the source
    could not be walked through: where it has an attribute ``left_out``, that is the number of these. Where it has
    ``remarks``, these come into the report.

    Args:
        source: the pictures.
        spec: of the store.
        path: the store; made if there is none.
        run_groups: makes the groups.
        options: sizes, workers, and what is done about changes.
        progress: called after each slice.
        max_task_bytes: a group ends where its items carry so many bytes with them; None for runners that take items one
            after another.

    Raises:
        UserError: see `cache_images`.
    """
    options = options or CacheOptions()
    compares_contents = options.check == "content"
    origin = Origin(options.origin, options.id_prefix) if options.origin else None
    run: CacheRun[InputItem] = CacheRun(path, spec, progress, source.estimate_count(), origin)
    if origin is not None and run.store is not None:
        require_same_place(run.store.origins, origin, options.has_moved, path)
    with run:
        inventory = None
        if run.store is not None:
            inventory = run.store.inventory(with_hashes=compares_contents)
            if len(inventory.superseded):
                run.store.delete(inventory.superseded.tolist())
        run.require_space(0 if inventory is None else len(inventory), spec.rows_per_item_max)
        changes = ChangeFinder(
            inventory,
            retry_failed=options.retry_failed,
            reader=source.reader if compares_contents else None,
            workers=options.workers or available_cpus(),
        )
        others = () if run.store is None else tuple(one.prefix for one in run.store.origins)
        tasks = run.tasks(changes.judge(of_this_source(source, options.id_prefix, others)), max_task_bytes)
        first = next(tasks, None)
        if first is not None:
            counter = run.counter
            records = run_groups(itertools.chain([first], tasks), run.create(), counter.stages, counter.encoded)
            try:
                run.commit(records)
            finally:
                # A generator holds processes, which shall not wait for the garbage collector.
                getattr(records, "close", lambda: None)()
        missing: list[int] = []
        kept_because = ""
        if inventory is not None and run.store is not None:
            missing, total = missing_of(run.store, inventory, options.id_prefix)
            if missing and options.delete_missing:
                kept_because = why_not_to_delete(run.store, source, missing, total, options.delete_many)
        report = run.end(missing, delete=options.delete_missing and not kept_because, kept_because=kept_because)
        return replace(report, remarks=(*report.remarks, *getattr(source, "remarks", ())))
