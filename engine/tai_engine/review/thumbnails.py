"""Thumbnails and large views of a collection's pictures, made when they are asked for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import OrderedDict
from concurrent.futures import Future
from functools import cached_property

from tai_engine.disk_cache import DiskCache
from tai_engine.review.collection import Collection, NotShownError
from tai_engine.review.on_demand import OnDemandDecoder

THUMBNAIL_SIDE = 384
LARGE_SIDE = 1600
_LARGE_KEPT = 8
_FIRST = 24
_FORMAT = 1  # of what is cached; raised when pictures are made otherwise


class Thumbnails:
    """Thumbnails, kept in a cache on the disk, and large views, the last eight of them kept in memory.

    Memory: what `OnDemandDecoder` says of two of them (one process more for large views, once one is asked for), and
    about a megabyte for each large view.
    """

    def __init__(self, collection: Collection, cache: DiskCache, workers: int = 0) -> None:
        """Args: the pictures, where thumbnails are kept, and how many processes make them (0: one per core)."""
        self._collection = collection
        self._cache = cache
        self._workers = workers or min(8, os.cpu_count() or 1)
        self._decoder = OnDemandDecoder(collection.read_bytes, THUMBNAIL_SIDE, self._workers)
        self._large_views: OrderedDict[int, bytes] = OrderedDict()
        self._under_way: dict[int, Future[bytes]] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """End the processes."""
        self._decoder.close()
        if "_large_decoder" in self.__dict__:
            self._large_decoder.close()

    async def thumbnail(self, number: int) -> bytes:
        """The JPEG of a picture that fits `THUMBNAIL_SIDE`.

        Raises:
            NotShownError: if the picture cannot be shown.
        """
        key = await asyncio.to_thread(self._key, number)
        data = await asyncio.to_thread(self._cache.get, key)
        if data is None:
            data = await asyncio.shield(asyncio.wrap_future(self._make(number, key)))
        return data

    def make_first(self) -> None:
        """Begin with the thumbnails that are seen first, before anybody asks."""
        for number in reversed(range(min(_FIRST, len(self._collection)))):  # the last asked for is made first
            with contextlib.suppress(NotShownError):
                key = self._key(number)
                if self._cache.get(key) is None:
                    self._make(number, key)

    def _make(self, number: int, key: str) -> Future[bytes]:
        """Have a thumbnail made and kept, once however many ask for it."""
        with self._lock:
            future = self._under_way.get(number)
            if future is None:
                future = self._under_way[number] = self._decoder.request(self._collection.item(number))
                future.add_done_callback(lambda made: self._made(number, key, made))
        return future

    def _made(self, number: int, key: str, future: Future[bytes]) -> None:
        self._under_way.pop(number, None)
        if not future.cancelled() and future.exception() is None:
            self._cache.put(key, future.result())

    async def large_view(self, number: int) -> bytes:
        """The JPEG of a picture that fits `LARGE_SIDE`.

        Raises:
            NotShownError: if the picture cannot be shown.
        """
        data = self._large_views.get(number)
        if data is None:
            item = await asyncio.to_thread(self._collection.item, number)
            data = await asyncio.wrap_future(self._large_decoder.request(item))
        self._large_views[number] = data
        self._large_views.move_to_end(number)
        while len(self._large_views) > _LARGE_KEPT:
            self._large_views.popitem(last=False)
        return data

    @cached_property
    def _large_decoder(self) -> OnDemandDecoder:
        return OnDemandDecoder(self._collection.read_bytes, LARGE_SIDE, 1)

    def _key(self, number: int) -> str:
        item = self._collection.item(number)
        # Where nobody says when a picture was changed, its thumbnail lasts as long as the tags.
        version = item.modified_ns if item.modified_ns is not None else self._collection.suggestions.sha256
        return f"{_FORMAT}\n{THUMBNAIL_SIDE}\n{version}\n{item.size}\n{item.offset}\n{item.location}"
