"""What a source gives: pictures in a fixed order, each with a name for good."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

from tai_engine.sources.item_reading import ItemReader

# HEIC is here although Pillow alone cannot read it: such pictures shall end as failed with a reason, not go unseen.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".heic", ".heif",
)  # fmt: skip
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class SourceItem:
    """A picture that is to be read.

    Attributes:
        id: its name for good (see `item_ids`); unique within the source.
        location: the path or address of the file that it is in.
        size: bytes; None if there is no such file, or nobody says.
        modified_ns: time of the last change in nanoseconds since 1970; None if there is no such file, or nobody says.
        data: its bytes, where the source had to read them on its way.
        offset: where its bytes begin in that file; None if it is the whole file.
        failure: why it cannot be read, ``"reason: detail"``, where the source knows already.
    """

    id: str
    location: str
    size: int | None = None
    modified_ns: int | None = None
    data: bytes | None = field(default=None, repr=False)
    offset: int | None = None
    failure: str | None = None


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


def is_image_name(name: str) -> bool:
    """Whether the suffix is that of a picture, in any case."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_tar_name(name: str) -> bool:
    """Whether the suffix is that of a tar archive that can be read, in any case."""
    return name.lower().endswith(TAR_SUFFIXES)
