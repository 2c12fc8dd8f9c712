"""Pictures to commit groups: read and decoded ahead by workers, encoded in slices, written and not yet committed.

The same function serves the command on one machine, a process for each GPU, and the nodes of a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tai_engine.caching.groups import GroupStore, Prepared, SliceCallback, write_groups
from tai_engine.caching.report import CacheOptions
from tai_engine.caching.stages import Stages
from tai_engine.decoding.feed import DirectFeed, Feed, GroupTask, WaitingFeed
from tai_engine.decoding.pool import Decoded, DecodePool
from tai_engine.decoding.worker import Preparation
from tai_engine.features import FeatureBatch
from tai_engine.processors import available_cpus
from tai_engine.store import StoredItem
from tai_engine.store.layout.commits import CommitRecord

SLICE_PICTURES = 128
CPU_SLICE_PICTURES = 32
"""A whole number of the batches that an encoder chooses there: more would take memory and be no faster."""


class PixelEncoder(Protocol):
    """What `encode_groups` needs of an encoder; `tai_engine.encoders.Encoder` has it."""

    def encode_pixels(self, pixels: Tensor, ids: Sequence[str], /) -> FeatureBatch:
        """uint8 [N, 3, S, S] to features; the pixels may be on its device already."""


def encode_groups(
    tasks: Iterable[GroupTask],
    store: GroupStore,
    encoder: PixelEncoder,
    prepare: Preparation,
    options: CacheOptions,
    stages: Stages,
    on_slice: SliceCallback | None = None,
    *,
    tasks_may_wait: bool = True,
) -> Iterator[CommitRecord]:
    """Read, decode, encode and write groups; a record comes out, in the tasks' order, when it can be committed.

    Decoding goes ahead over the borders of tasks, but no task is waited for while there is anything to give out. To be
    closed or walked through to its end, for it holds processes.

    Memory: the rows of two groups in the store's dtype, the pixels of three slices, the features of one slice, what
    `DecodePool` says of files that items carry, and in each worker a file and its decoded picture.

    Args:
        tasks: what to make; the store has these groups reserved, and nobody else writes them.
        store: that the groups are prepared in; not committed.
        encoder: makes the features.
        prepare: makes the pixels.
        options: sizes and workers.
        stages: the seconds are added to.
        on_slice: called after each slice with how many of its items are done, and how many failed.
        tasks_may_wait: whether the next task may have to be waited for; False saves a thread.

    Raises:
        UserError: when the disk is full or the encoder gives up.
        WorkerStartError: if decoding processes cannot be started.
    """
    slice_items = options.slice_items or _slice_pictures(encoder)
    with closing(_feed(tasks, tasks_may_wait)) as feed:
        pool = DecodePool(
            prepare,
            workers=options.workers or available_cpus(),
            window=2 * slice_items,
            timeout_seconds=options.timeout_seconds,
        )
        with closing(pool), closing(pool.decode(feed)) as decoded:
            pixels = PixelSlice(encoder, slice_items, prepare.to_pixels.shape)
            prepared = (None if one is None else _prepared(one, stages) for one in decoded)
            yield from write_groups(prepared, store, pixels.cleared, slice_items, stages, on_slice)


def _device_of(encoder: PixelEncoder) -> torch.device:
    device: torch.device = getattr(encoder, "device", torch.device("cpu"))
    return device


def _slice_pictures(encoder: PixelEncoder) -> int:
    return CPU_SLICE_PICTURES if _device_of(encoder).type == "cpu" else SLICE_PICTURES


def _feed(tasks: Iterable[GroupTask], may_wait: bool) -> Feed:
    return WaitingFeed(tasks) if may_wait else DirectFeed(tasks)


def _prepared(decoded: Decoded, stages: Stages) -> Prepared[np.ndarray]:
    source_item, outcome = decoded.job.item, decoded.outcome
    stages.add({"read": outcome.read_seconds, "decode": outcome.decode_seconds})
    if outcome.remark is not None:
        stages.remarks[outcome.remark.partition(":")[0]] += 1
    item = StoredItem(
        id=source_item.id,
        status="done" if outcome.reason is None else "failed",
        reason=outcome.reason,
        size=source_item.size,
        modified_ns=source_item.modified_ns,
        content_hash=outcome.content_hash,
    )
    return Prepared(decoded.job.group, item, decoded.pixels, decoded.job.ends_group)


class PixelSlice:
    """Pixels of up to ``size`` pictures in memory that is used again and again, from where they go to the device."""

    def __init__(self, encoder: PixelEncoder, size: int, shape: tuple[int, int, int]) -> None:
        self._encoder = encoder
        self._device = _device_of(encoder)
        self._pixels = torch.empty((size, *shape), dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        self._names: list[str] = []

    def cleared(self) -> PixelSlice:
        """The same, empty."""
        self._names = []
        return self

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self._names)

    def add(self, pixels: np.ndarray, name: str) -> None:
        """Copy the pixels of one picture, uint8 of the shape."""
        np.copyto(self._pixels[len(self._names)].numpy(), pixels)
        self._names.append(name)

    def encode(self, stages: Stages) -> FeatureBatch:
        """Features of all pictures, in order."""
        with stages.timed("transfer"):
            pixels = self._pixels[: len(self._names)].to(self._device, non_blocking=True)
        with stages.timed("encode"):
            return self._encoder.encode_pixels(pixels, self._names)
