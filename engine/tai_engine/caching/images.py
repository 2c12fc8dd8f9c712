"""Pictures into a store.

Encoders and sources are known here only by the protocols below.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from PIL import Image
from torch import Tensor

from tai_engine.caching.filling import Prepared, StoreFiller, group_sizes
from tai_engine.caching.report import CacheOptions, CacheReport, ProgressCallback
from tai_engine.features import FeatureBatch
from tai_engine.store import StoredItem, StoreSpec

logger = logging.getLogger(__name__)

_SLICE_PICTURES = 128
_MAX_REASON = 500  # characters

Input = TypeVar("Input")
Output = TypeVar("Output")


class InputItem(Protocol):
    """One picture of a source: `tai_engine.sources.SourceItem` is one."""

    @property
    def id(self) -> str:
        """Its name, UTF-8, unique in the source."""

    @property
    def location(self) -> str:
        """What ``decode`` is called with."""

    @property
    def size(self) -> int | None:
        """Bytes."""

    @property
    def modified_ns(self) -> int | None:
        """When it was last changed, in nanoseconds since 1970."""


class Source(Protocol):
    """Pictures in an order that is the same every time."""

    def __iter__(self) -> Iterator[InputItem]: ...

    def estimate_count(self) -> int | None:
        """How many there are, None if that is not known before they are read."""


class ImageEncoder(Protocol):
    """What `cache_images` needs of an encoder; `tai_engine.encoders.Encoder` has it."""

    space_key: str
    recipe_key: str
    recipe: dict[str, Any]
    provenance: dict[str, str | int | float]
    dim: int
    rows_per_image: int
    has_coarse_clip: bool

    @property
    def preprocess(self) -> Callable[[Image.Image], Tensor]:
        """A picture to uint8 [3, H, W]; called in worker threads."""

    def encode_pixels(self, pixels: Tensor, ids: Sequence[str], /) -> FeatureBatch:
        """uint8 [N, 3, H, W] to features."""


def cache_images(
    source: Source,
    encoder: ImageEncoder,
    path: str | Path,
    *,
    decode: Callable[[str], Image.Image],
    options: CacheOptions | None = None,
    progress: ProgressCallback | None = None,
) -> CacheReport:
    """Encode the pictures of ``source`` that are not in the store at ``path`` yet.

    Memory: the rows of one commit group in the store's dtype, pixels of four slices, a decoded picture per worker, the
    features of one slice, and 32 bytes per input for the ids; it does not grow with the source otherwise.

    Args:
        source: the pictures.
        encoder: makes the features.
        path: the store; made if there is none.
        decode: opens a picture by its location, in a worker thread; an exception with a ``reason`` is a failed picture.
        options: sizes and workers.
        progress: called after each slice.

    Raises:
        UserError: for a store of another kind, space or recipe, too little space, a disk that is full, an id that comes
            twice, or a source without pictures.
    """
    options = options or CacheOptions()
    group_items, chunk_items = group_sizes(options, encoder.dim, encoder.rows_per_image)
    spec = StoreSpec(
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
    )
    slice_items = options.slice_items or _SLICE_PICTURES
    run = StoreFiller(path, spec, slice_items, progress, source.estimate_count(), encoder.rows_per_image)
    prepare = functools.partial(_prepare_picture, decode=decode, preprocess=encoder.preprocess)
    workers = options.workers or _available_cpus()
    new_items = run.new_items((StoredItem(item.id), item) for item in source)
    with closing(decode_ahead(prepare, new_items, workers, 2 * slice_items)) as prepared:
        return run.fill(prepared, lambda pixels, ids: encoder.encode_pixels(torch.stack(pixels), ids))


def _prepare_picture(
    source_item: InputItem, decode: Callable[[str], Image.Image], preprocess: Callable[[Image.Image], Tensor]
) -> Prepared[Tensor]:
    """Decode and resize one picture. It never raises: whatever is wrong with a picture is its own reason to fail."""
    begun = time.perf_counter()
    decoded = None
    pixels, reason = None, None
    try:
        picture = decode(source_item.location)
        decoded = time.perf_counter()
        pixels = preprocess(picture)
    except Exception as error:
        reason = _reason(error)
        if reason.startswith("unexpected"):
            logger.debug("unexpected error for %s", source_item.id, exc_info=True)
    ended = time.perf_counter()
    item = StoredItem(
        id=source_item.id,
        status="done" if reason is None else "failed",
        reason=reason,
        size=source_item.size,
        modified_ns=source_item.modified_ns,
    )
    decoded = ended if decoded is None else decoded
    return Prepared(item, pixels, {"decode": decoded - begun, "preprocess": ended - decoded})


def _reason(error: Exception) -> str:
    """Category, colon, detail; in valid Unicode, since messages may quote file names that are not."""
    category = getattr(error, "reason", None)
    if not isinstance(category, str):
        text = f"unexpected: {type(error).__name__}: {error}"
    else:
        text = str(error) if str(error).startswith(category) else f"{category}: {error}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")[:_MAX_REASON]


def decode_ahead(
    function: Callable[[Input], Output], inputs: Iterable[Input], workers: int, window: int
) -> Generator[Output]:
    """``function`` of every input, in order, computed by ``workers`` threads up to ``window`` inputs ahead.

    Memory: ``window`` results. Closing the iterator waits for the calls under way and drops the rest.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    ahead: deque[Future[Output]] = deque()
    try:
        for item in inputs:
            ahead.append(pool.submit(function, item))
            if len(ahead) >= window:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
