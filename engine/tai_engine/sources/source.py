"""What a source is: pictures in a fixed order, each with a name for good."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tai_engine.sources.item_reading import ItemReader
from tai_engine.sources.items import SourceItem
from tai_engine.sources.walk_notes import WalkNotes
from tai_engine.tables import TableOptions


@dataclass(frozen=True)
class SourceOptions:
    """What the user says of a source.

    Attributes:
        exclude: patterns of what is passed over, see `tai_engine.sources.walk_notes.Exclusion`.
        column: of a list, the column of paths or addresses; None looks for one of the usual names.
        table: how a list is read.
        allow: where a list behind an address may lead, beside its own place: see `tai_engine.sources.allowed.Allowed`.
    """

    exclude: tuple[str, ...] = ()
    column: str | None = None
    table: TableOptions = field(default_factory=TableOptions)
    allow: tuple[str, ...] = ()

    @property
    def is_of_list(self) -> bool:
        """Whether they speak of a list, whatever its name."""
        return self.column is not None or self.table != TableOptions()


class Source(ABC):
    """Pictures in a fixed order; can be walked through again and again.

    Attributes:
        notes: of the last walk.
    """

    def __init__(self) -> None:
        self.notes = WalkNotes()

    @property
    def left_out(self) -> int:
        """How many folders and archives the last walk could not go through, or not to their end.

        Each has a warning of `logging`. What is in them is not gone.
        """
        return self.notes.left_out

    @property
    def empty_folders(self) -> Sequence[str]:
        """Beginnings of the ids of what would lie in folders in which the last walk found nothing at all."""
        return self.notes.empty_folders

    @property
    def remarks(self) -> Sequence[str]:
        """Sentences on what the last walk passed over."""
        return self.notes.remarks()

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
