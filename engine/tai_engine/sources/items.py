"""A picture of a source, and which names are those of pictures and archives."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from tai_engine.errors import ItemError
from tai_engine.picture_kinds import HEAD_BYTES, kind_of, picture_suffixes
from tai_engine.regular_files import open_regular, read_range

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_MAX_NUMBER = 2**63 - 1  # that a store holds


@dataclass(frozen=True)
class SourceItem:
    """A picture that is to be read.

    Attributes:
        id: its name for good (see `tai_engine.sources.ids`); unique within the source.
        location: the path or address of the file that it is in.
        size: bytes; None if there is no such file, or nobody says.
        modified_ns: time of the last change in nanoseconds since 1970; None if there is no such file, or nobody says.
            What no 64 bits hold, such as the year 2400, is the last or the first that they do.
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

    def __post_init__(self) -> None:
        for name in ("size", "modified_ns"):
            value = getattr(self, name)
            if value is not None and not -_MAX_NUMBER <= value <= _MAX_NUMBER:
                object.__setattr__(self, name, _MAX_NUMBER if value > 0 else -_MAX_NUMBER)


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
    return name.lower().endswith(picture_suffixes())


def is_tar_name(name: str) -> bool:
    """Whether the suffix is that of a tar archive that can be read, in any case."""
    return name.lower().endswith(TAR_SUFFIXES)


def is_picture_file(path: str | bytes) -> bool:
    """Whether a regular file begins like a picture; False where that cannot be seen."""
    try:
        with open_regular(path) as file:
            return kind_of(read_range(file, 0, HEAD_BYTES)) is not None
    except ItemError:
        return False
