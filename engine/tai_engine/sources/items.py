"""A picture of a source, and which names are those of pictures and archives."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

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
        id: its name for good (see `tai_engine.sources.ids`); unique within the source.
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


def item_of_file(item_id: str, location: str) -> SourceItem:
    """The item with what the system says of its file; one that is not there is found out by whoever opens it."""
    try:
        found = os.stat(location)  # noqa: PTH116 - a million Paths cost seconds
    except (OSError, ValueError):  # ValueError: text that no file system encodes
        return SourceItem(item_id, location)
    size = found.st_size if stat.S_ISREG(found.st_mode) else None
    return SourceItem(item_id, location, size, found.st_mtime_ns)


def is_image_name(name: str) -> bool:
    """Whether the suffix is that of a picture, in any case."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_tar_name(name: str) -> bool:
    """Whether the suffix is that of a tar archive that can be read, in any case."""
    return name.lower().endswith(TAR_SUFFIXES)
