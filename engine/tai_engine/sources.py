"""Where pictures come from: a folder, a list, or one file; each gives the same items in the same order every time."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tai_engine.errors import UserError
from tai_engine.item_ids import ID_COLUMN, LOCATION_COLUMNS, id_from_path, id_of_row
from tai_engine.records import LIST_SUFFIXES, Record, is_list, read_records

# HEIC is here although Pillow alone cannot read it: such pictures shall end as failed with a reason, not go unseen.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".heic", ".heif",
)  # fmt: skip
_SUFFIX_BYTES = tuple(suffix.encode() for suffix in IMAGE_SUFFIXES)
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceItem:
    """A picture that is to be read.

    Attributes:
        id: its name for good (see `item_ids`); unique within the source.
        location: a path for `open`.
        size: bytes, None if there is no such file.
        modified_ns: time of the last change in nanoseconds since 1970, None if there is no such file.
    """

    id: str
    location: str
    size: int | None = None
    modified_ns: int | None = None


class Source(ABC):
    """Pictures in a fixed order; can be walked through again and again."""

    @abstractmethod
    def __iter__(self) -> Iterator[SourceItem]:
        """Every item once, in an order that depends on the names alone."""

    @abstractmethod
    def describe(self) -> str:
        """A few words for people: what kind of source, and where."""

    @abstractmethod
    def estimate_count(self) -> int | None:
        """About how many items there are, or None where finding out would cost as much as reading them."""


def open_source(spec: str | Path) -> Source:
    """The source that a path stands for.

    Args:
        spec: a folder; a list (JSONL, CSV, TSV or Parquet); or one picture.

    Raises:
        UserError: for a path that does not exist, a folder without pictures, a list with a mistake, a file of another
            kind, and for what is not read yet: tar archives and addresses such as ``s3://``.
    """
    text = os.fspath(spec)
    if "://" in text:
        raise UserError(
            f"Pictures cannot be read from the address '{text}' yet: copy or mount them and give the path of a folder."
        )
    if text.lower().endswith(_TAR_SUFFIXES):
        raise UserError(
            f"Pictures cannot be read from tar archives such as '{text}' yet: unpack it and give the folder."
        )
    path = Path(text)
    if path.is_dir():
        return FolderSource(path)
    if not path.exists():
        raise UserError(f"There is no folder or file '{text}': check the path.")
    if is_list(path):
        return ListSource(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return FileSource(path)
    raise UserError(
        f"'{text}' is neither a folder, nor a list ({', '.join(LIST_SUFFIXES)}), nor a picture by its suffix: "
        "give one of these."
    )


class FileSource(Source):
    """One picture; its id is its file name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[SourceItem]:
        yield _item(id_from_path(self.path.name), os.fspath(self.path))

    def describe(self) -> str:
        """The path."""
        return f"the picture {_printable(self.path)}"

    def estimate_count(self) -> int:
        """One."""
        return 1


class FolderSource(Source):
    """All pictures below a folder, in the order of their relative paths' bytes.

    Files count by their suffix, whatever its case. Hidden files and folders (a dot in front) are passed over. Symbolic
    links are followed, but never back into a folder that is being walked through. A subfolder that cannot be read is
    reported as a warning of `logging`.

    Memory: the names within the folders on the way down to the current item.

    Raises:
        UserError: if the folder cannot be read or holds no picture.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if next(self._walk(), None) is None:
            raise UserError(
                f"The folder '{_printable(path)}' has no pictures in it or below it: "
                f"their names must end in one of {', '.join(IMAGE_SUFFIXES)}, and hidden ones do not count."
            )

    def __iter__(self) -> Iterator[SourceItem]:
        root = os.fsencode(self.path)
        for relative in self._walk():
            yield _item(id_from_path(relative), os.fsdecode(os.path.join(root, relative)))  # noqa: PTH118 - bytes

    def describe(self) -> str:
        """The path."""
        return f"the folder {_printable(self.path)}"

    def estimate_count(self) -> int:
        """The exact number, from a walk that reads names only."""
        return sum(1 for _ in self._walk())

    def _walk(self) -> Iterator[bytes]:
        root = os.fsencode(self.path)
        try:
            found = os.stat(root)  # noqa: PTH116 - bytes
            os.scandir(root).close()
        except OSError as error:
            raise UserError(
                f"The folder '{_printable(self.path)}' cannot be read ({error.strerror}): check its path and rights."
            ) from error
        return _walk_tree(root, (found.st_dev, found.st_ino))


def _walk_tree(root: bytes, root_key: tuple[int, int]) -> Iterator[bytes]:
    """Relative paths of the pictures below ``root``, whose device and inode are ``root_key``."""
    # One level for each folder on the way down: its prefix, its device and inode, and its names still to come.
    levels = [(b"", root_key, iter(_names_in(root)))]
    while levels:
        prefix, _, names = levels[-1]
        name = next(names, None)
        if name is None:
            levels.pop()
        elif not name.endswith(b"/"):
            yield prefix + name
        else:
            folder = os.path.join(root, prefix + name)  # noqa: PTH118 - bytes
            try:
                found = os.stat(folder)  # noqa: PTH116 - bytes
            except OSError:
                continue  # it was removed a moment ago
            key = (found.st_dev, found.st_ino)
            if all(key != above for _, above, _ in levels):
                levels.append((prefix + name, key, iter(_names_in(folder))))


def _names_in(folder: bytes) -> list[bytes]:
    """Pictures and, with a slash behind them, folders; sorted so that a walk down gives paths in order."""
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(b"."):
                    continue
                if _is_folder(entry):
                    names.append(entry.name + b"/")
                elif entry.name.lower().endswith(_SUFFIX_BYTES):
                    names.append(entry.name)
    except OSError as error:
        _log.warning("the folder '%s' cannot be read and is left out: %s", _printable(folder), error.strerror)
        return []
    return sorted(names)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link that names itself
        return False


class ListSource(Source):
    """The pictures that a JSONL, CSV, TSV or Parquet file names, in its order.

    The picture is named by the first of the columns `LOCATION_COLUMNS`, relative to the list's own folder (Hugging
    Face's ``metadata.jsonl`` fits); ``id``, where it is there, overrules the path as its id. The whole list is read and
    checked once before the first item comes.

    Memory: 8 bytes a row while checking, then one row.

    Raises:
        UserError: for a list without rows, a row without a path, an address in place of a path, or an id that occurs
            twice (names both rows).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = self._check()

    def __iter__(self) -> Iterator[SourceItem]:
        for _, item_id, location in self._rows():
            yield _item(item_id, location)

    def describe(self) -> str:
        """The path."""
        return f"the list {_printable(self.path)}"

    def estimate_count(self) -> int:
        """The exact number."""
        return self._count

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        """Place, id and location of every row."""
        folder = os.fspath(self.path.parent)
        for record in read_records(self.path, (ID_COLUMN, *LOCATION_COLUMNS)):
            location = os.path.join(folder, self._path_of(record))  # noqa: PTH118 - faster than Path, for long lists
            yield record.place, id_of_row(record.values, record.place, self.path), location

    def _path_of(self, record: Record) -> str:
        column = next((c for c in LOCATION_COLUMNS if c in record.values), None)
        if column is None:
            raise UserError(
                f"In {record.place} of '{self.path}' no column names the picture: "
                f"it needs a path as text in one of {', '.join(LOCATION_COLUMNS)}."
            )
        path = record.values[column]
        if not isinstance(path, str) or not path or "\0" in path:
            raise UserError(f"The {column} in {record.place} of '{self.path}' is {path!r}; it must be a path as text.")
        if "://" in path:
            raise UserError(
                f"The {column} in {record.place} of '{self.path}' is the address '{path}'; "
                "pictures cannot be read from addresses yet: copy or mount them and list their paths."
            )
        return path

    def _check(self) -> int:
        hashes = array("Q")
        for _, item_id, _ in self._rows():
            hashes.append(_hash(item_id))
        if not hashes:
            raise UserError(f"The list '{self.path}' has no rows: put one picture on each.")
        ordered = np.sort(np.frombuffer(hashes, dtype=np.uint64))
        suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
        places: dict[str, str] = {}
        for place, item_id, _ in self._rows() if suspects else ():
            if _hash(item_id) in suspects:
                if item_id in places:
                    raise UserError(
                        f"The id {item_id!r} occurs in {places[item_id]} and in {place} of '{self.path}': "
                        "remove one of the rows, or tell them apart with a column 'id'."
                    )
                places[item_id] = place
        return len(hashes)


def _hash(item_id: str) -> int:
    digest = hashlib.blake2b(item_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _item(item_id: str, location: str) -> SourceItem:
    """The item with what the file system says of it; a file that is not there is found out by whoever opens it."""
    try:
        found = os.stat(location)  # noqa: PTH116 - a million Paths cost seconds
    except (OSError, ValueError):  # ValueError: text that no file system encodes
        return SourceItem(item_id, location)
    size = found.st_size if stat.S_ISREG(found.st_mode) else None
    return SourceItem(item_id, location, size, found.st_mtime_ns)


def _printable(path: str | bytes | os.PathLike[str]) -> str:
    """A path for a message, undecodable bytes shown as ``\\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
