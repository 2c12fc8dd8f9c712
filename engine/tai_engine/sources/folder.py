"""A folder of this machine, and one picture of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tai_engine.errors import UserError
from tai_engine.regular_files import printable
from tai_engine.sources.ids import id_from_path
from tai_engine.sources.items import IMAGE_SUFFIXES, SourceItem, is_tar_name, item_of_file
from tai_engine.sources.source import Source

_SUFFIX_BYTES = tuple(suffix.encode() for suffix in IMAGE_SUFFIXES)

_log = logging.getLogger(__name__)


class FileSource(Source):
    """One picture; its id is its file name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[SourceItem]:
        yield item_of_file(id_from_path(self.path.name), os.fspath(self.path))

    def describe(self) -> str:
        """The path."""
        return f"the picture {printable(self.path)}"

    def estimate_count(self) -> int:
        """One."""
        return 1


class FolderSource(Source):
    """All pictures below a folder, in the order of their relative paths' bytes.

    Files count by their suffix, whatever its case. Hidden files and folders (a dot in front) are passed over, and so
    are lists that lie beside the pictures, such as Hugging Face's ``metadata.jsonl``: given itself, such a list makes
    the same ids. Symbolic links are followed, but never back into a folder that is being walked through. A subfolder
    that cannot be read is reported as a warning of `logging`.

    Memory: the names within the folders on the way down to the current item.

    Raises:
        UserError: if the folder cannot be read or holds no picture.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if next(self._walk(), None) is None:
            archive = next((name for name in sorted(os.listdir(path)) if is_tar_name(name)), None)  # noqa: PTH208
            if archive is not None:
                suffix = "." + archive.partition(".")[2]
                raise UserError(
                    f"The folder '{printable(path)}' has no pictures but tar archives in it: "
                    f"name these, as '{printable(path)}/*{suffix}' in quotation marks."
                )
            raise UserError(
                f"The folder '{printable(path)}' has no pictures in it or below it: "
                f"their names must end in one of {', '.join(IMAGE_SUFFIXES)}, and hidden ones do not count."
            )

    def __iter__(self) -> Iterator[SourceItem]:
        self.left_out = 0
        root = os.fsencode(self.path)
        for relative in self._walk(self._leave_out):
            yield item_of_file(id_from_path(relative), os.fsdecode(os.path.join(root, relative)))  # noqa: PTH118

    def describe(self) -> str:
        """The path."""
        return f"the folder {printable(self.path)}"

    def estimate_count(self) -> int:
        """The exact number, from a walk that reads names only."""
        return sum(1 for _ in self._walk())

    def _leave_out(self) -> None:
        self.left_out += 1

    def _walk(self, on_unreadable: Callable[[], None] = lambda: None) -> Iterator[bytes]:
        root = os.fsencode(self.path)
        try:
            found = os.stat(root)  # noqa: PTH116 - bytes
            os.scandir(root).close()
        except OSError as error:
            raise UserError(
                f"The folder '{printable(self.path)}' cannot be read ({error.strerror}): check its path and rights."
            ) from error
        return _walk_tree(root, (found.st_dev, found.st_ino), on_unreadable)


def _walk_tree(root: bytes, root_key: tuple[int, int], on_unreadable: Callable[[], None]) -> Iterator[bytes]:
    """Relative paths of the pictures below ``root``, whose device and inode are ``root_key``."""
    # One level for each folder on the way down: its prefix, its device and inode, and its names still to come.
    levels = [(b"", root_key, iter(_names_in(root, on_unreadable)))]
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
            except FileNotFoundError:
                continue  # it was removed a moment ago
            except OSError as error:
                _warn(folder, error)
                on_unreadable()
                continue
            key = (found.st_dev, found.st_ino)
            if all(key != above for _, above, _ in levels):
                levels.append((prefix + name, key, iter(_names_in(folder, on_unreadable))))


def _names_in(folder: bytes, on_unreadable: Callable[[], None]) -> list[bytes]:
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
        _warn(folder, error)
        on_unreadable()
        return []
    return sorted(names)


def _warn(folder: bytes, error: OSError) -> None:
    _log.warning("the folder '%s' cannot be read and is left out: %s", printable(folder), error.strerror)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link that names itself
        return False
