"""The part of caching that pictures and sentences share: skip what is there, encode slices, commit groups, count."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import torch

from tai_engine.caching.report import CacheOptions, CacheProgress, CacheReport, ProgressCallback
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.store import FeatureStore, IdSet, StoredItem, StoreSpec, content_of
from tai_engine.store.spec import DEFAULT_CHUNK_ITEMS, DEFAULT_GROUP_ITEMS, ROW_DTYPES

MAX_GROUP_BYTES = 256 * 2**20
"""Rows of a commit group, at most, where its size is chosen automatically."""

_PROGRESS_EVERY = 1000  # skipped items

Input = TypeVar("Input")
Payload = TypeVar("Payload")


@dataclass(frozen=True)
class Prepared(Generic[Payload]):
    """An input on its way to the encoder; without a payload if it failed."""

    item: StoredItem
    payload: Payload | None
    stage_seconds: Mapping[str, float] = field(default_factory=dict)


class StoreFiller:
    """One run of either kind: skips what is there, encodes slices, commits groups, counts."""

    def __init__(
        self,
        path: str | Path,
        spec: StoreSpec,
        slice_items: int,
        progress: ProgressCallback | None,
        total: int | None,
        rows_per_item: float,
    ) -> None:
        self._begun = time.perf_counter()
        self._path = Path(path)
        self._slice_items = slice_items
        self._progress = progress
        self._total = total
        self._stage_seconds = dict.fromkeys(("decode", "preprocess", "wait", "encode", "write"), 0.0)
        self._done = self._failed = self._skipped = self._bytes = 0
        self._reasons: Counter[str] = Counter()
        # An existing store is checked before any work; a new one is made when the first input has been found.
        self._spec = spec
        self._store = None if FeatureStore.is_free(path) else FeatureStore.open_or_create(path, spec)
        if self._store is not None:
            self._spec = self._store.spec
        self._known = IdSet() if self._store is None else self._store.known_ids()
        # Where texts are kept, an input that is in the store already must also be the same.
        self._contents: IdSet | None = None
        if self._store is not None and self._spec.has_text:
            self._contents = self._store.known_contents()
        self._new = IdSet()
        # The group that is being filled.
        self._items: list[StoredItem] = []
        self._batches: list[FeatureBatch] = []
        self._estimated_bytes: int | None = None
        if total is not None:
            remaining = max(0, total - len(self._known))
            self._estimated_bytes = self._spec.estimate_bytes(remaining, rows_per_item)
            require_space(self._path, self._spec, remaining, rows_per_item)

    def new_items(self, inputs: Iterable[tuple[StoredItem, Input]]) -> Iterator[Input]:
        """The inputs that are not in the store yet; what is said of each counts as far as it is known."""
        for item, value in inputs:
            name = item.id
            if name in self._known:
                if self._contents is not None and content_of(name, item.text, item.labels) not in self._contents:
                    raise UserError(
                        f"The store {self._path} was made from other sentences: the one with the id {name!r} is "
                        f"{item.text!r:.60} now, with another text or other labels than before; give the same files in "
                        "the same order, or choose another store."
                    )
                self._skipped += 1
                if self._skipped % _PROGRESS_EVERY == 0:
                    self._report_progress()
                continue
            if not self._new.add(name):
                raise UserError(f"The id {name!r} comes twice in the input; every item needs an id of its own.")
            if self._store is None:
                self._store = FeatureStore.create(self._path, self._spec)
            yield value

    def fill(
        self,
        prepared: Iterable[Prepared[Payload]],
        encode: Callable[[list[Payload], list[str]], FeatureBatch],
    ) -> CacheReport:
        """Encode and commit everything that comes, in its order."""
        self._report_progress()
        slice_: list[Prepared[Payload]] = []
        waiting = time.perf_counter()
        for one in prepared:
            self._stage_seconds["wait"] += time.perf_counter() - waiting
            slice_.append(one)
            # Slices end where groups end, so that the same inputs always give the same slices.
            is_group_full = len(self._items) + len(slice_) == self._spec.group_items
            if is_group_full or len(slice_) == self._slice_items:
                self._encode(slice_, encode)
                slice_ = []
            if is_group_full:
                self._commit()
            waiting = time.perf_counter()
        if slice_:
            self._encode(slice_, encode)
        if self._items:
            self._commit()
        if self._store is None:
            raise UserError("There is nothing to cache: the input holds no items; check its path.")
        self._report_progress()
        return CacheReport(
            items=self._done + self._failed + self._skipped,
            done=self._done,
            failed=self._failed,
            skipped=self._skipped,
            seconds=time.perf_counter() - self._begun,
            stage_seconds=dict(self._stage_seconds),
            bytes_written=self._bytes,
            reasons=dict(self._reasons.most_common()),
        )

    def _encode(
        self,
        slice_: list[Prepared[Payload]],
        encode: Callable[[list[Payload], list[str]], FeatureBatch],
    ) -> None:
        begun = time.perf_counter()
        good = [(one.payload, one.item.id) for one in slice_ if one.payload is not None]
        if good:
            payloads, ids = ([pair[i] for pair in good] for i in (0, 1))
            batch = encode(payloads, ids)  # type: ignore[arg-type]
            self._batches.append(batch.to("cpu", getattr(torch, self._spec.row_dtype)))
        for one in slice_:
            self._items.append(one.item)
            for stage, seconds in one.stage_seconds.items():
                self._stage_seconds[stage] += seconds
            if one.item.reason is not None:
                self._reasons[one.item.reason.partition(":")[0]] += 1
        self._done += len(good)
        self._failed += len(slice_) - len(good)
        self._stage_seconds["encode"] += time.perf_counter() - begun
        self._report_progress()

    def _commit(self) -> None:
        begun = time.perf_counter()
        assert self._store is not None
        record = self._store.write_group(self._store.next_group(), self._items, self._batches)
        self._bytes += record.bytes
        self._items, self._batches = [], []
        self._stage_seconds["write"] += time.perf_counter() - begun

    def _report_progress(self) -> None:
        if self._progress is not None:
            self._progress(
                CacheProgress(
                    done=self._done,
                    failed=self._failed,
                    skipped=self._skipped,
                    total=self._total,
                    seconds=time.perf_counter() - self._begun,
                    stage_seconds=dict(self._stage_seconds),
                    estimated_bytes=self._estimated_bytes,
                )
            )


def free_bytes(path: str | Path) -> int:
    """Bytes free where a store at ``path`` lies or would be made."""
    return shutil.disk_usage(_existing_folder(Path(path))).free


def _existing_folder(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def require_space(path: Path, spec: StoreSpec, items: int, rows_per_item: float) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        UserError: saying how much is missing and what would help.
    """
    needed, free = spec.estimate_bytes(items, rows_per_item), free_bytes(path)
    if needed > free:
        coarse = spec.estimate_bytes(items, 0)
        way_out = f", keep coarse vectors alone (--coarse-only, {_gigabytes(coarse)})" if spec.has_fine else ""
        raise UserError(
            f"The store {path} will take about {_gigabytes(needed)} for {items:,} items, but {_existing_folder(path)} "
            f"has {_gigabytes(free)} free: {_gigabytes(needed - free)} are missing; free some space, choose another "
            f"place{way_out} or cache fewer items."
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.3g} GB"


def group_sizes(options: CacheOptions, dim: int, rows_per_item_max: int) -> tuple[int, int]:
    """``group_items`` and ``chunk_items`` of a new store, see `CacheOptions`."""
    group_items = options.group_items
    if not group_items:
        item_bytes = (rows_per_item_max + 2) * dim * ROW_DTYPES[options.row_dtype]
        group_items = DEFAULT_GROUP_ITEMS
        while group_items > DEFAULT_CHUNK_ITEMS and group_items * item_bytes > MAX_GROUP_BYTES:
            group_items //= 2
    # A group is whole chunks; of an odd size the chunk is the largest divisor.
    chunk_items = next(n for n in range(min(DEFAULT_CHUNK_ITEMS, group_items), 0, -1) if group_items % n == 0)
    return group_items, chunk_items
