"""Where the time of a run goes, and what is worth a remark."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

STAGES = ("read", "decode", "transfer", "encode", "write", "wait")
"""``read`` (bytes and their hash) and ``decode`` (with resize and crop) are summed over all workers. ``transfer``
(pixels to where they are encoded), ``encode`` and ``wait`` (for pixels, or for the disk) follow one another. ``write``
(chunks and commits) goes on beside them."""


class Stages:
    """Seconds of each stage. Two threads may add to different stages at a time, not to the same.

    Attributes:
        seconds: by stage.
        remarks: how many items had each kind of remark (what stands before its colon).
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self.remarks: Counter[str] = Counter()

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add what was measured elsewhere."""
        for stage, value in seconds.items():
            self.seconds[stage] += value

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what the body takes."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - begun

    def waiting(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items; the time until each is there counts as waiting."""
        iterator = iter(items)
        while True:
            with self.timed("wait"):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item
