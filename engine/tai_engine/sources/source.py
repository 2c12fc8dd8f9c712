"""What a source is: pictures in a fixed order, each with a name for good."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from tai_engine.sources.item_reading import ItemReader
from tai_engine.sources.items import SourceItem


class Source(ABC):
    """Pictures in a fixed order; can be walked through again and again.

    Attributes:
        left_out: how many folders and archives the last walk could not go through, or not to their end; each has a
            warning of `logging`. What is in them is not gone.
    """

    left_out: int = 0

    @property
    def reader(self) -> ItemReader:
        """What gets the bytes of an item; it can be pickled, for the processes that read and decode."""
        return ItemReader()

    @abstractmethod
    def __iter__(self) -> Iterator[SourceItem]:
        """Every item once, in an order that depends on the names alone."""

    @abstractmethod
    def describe(self) -> str:
        """A few words for people: what kind of source, and where."""

    @abstractmethod
    def estimate_count(self) -> int | None:
        """About how many items there are, or None where finding out would cost as much as reading them."""
