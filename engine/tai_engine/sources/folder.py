"""A folder of this machine, and one picture of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tai_engine.errors import UserError
from tai_engine.picture_kinds import IMAGE_SUFFIXES, picture_suffixes
from tai_engine.regular_files import printable
from tai_engine.sources.ids import id_from_path
from tai_engine.sources.items import SourceItem, is_picture_file, is_tar_name, item_of_file
from tai_engine.sources.source import Source, SourceOptions
from tai_engine.sources.walk_notes import Exclusion, WalkNotes, is_system_folder, suffix_of


class FileSource(Source):
    """One picture; its id is its file name."""

    def __init__(self, path: Path) -> None:
        super().__init__()
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

    Files count by their suffix, whatever its case; those without one by how they begin. Hidden files and folders (a dot
    in front) and folders that systems keep for themselves are passed over, and so are lists that lie beside the
    pictures, such as Hugging Face's ``metadata.jsonl``: given itself, such a list makes the same ids. Symbolic links
    are followed, but never back into a folder that is being walked through. A subfolder that cannot be read, or a link
    that leads nowhere, is reported as a warning of `logging`.

    Memory: the names within the folders on the way down to the current item.

    Args:
        path: of the folder.
        options: what the user says; its ``exclude`` counts.

    Raises:
        UserError: if the folder cannot be read or holds no picture.
    """

    def __init__(self, path: Path, options: SourceOptions | None = None) -> None:
        super().__init__()
        self.path = path
        self._exclusion = Exclusion((options or SourceOptions()).exclude)
        notes = WalkNotes(is_quiet=True)
        if next(self._walk(notes), None) is None:
            archive = next((name for name in sorted(os.listdir(path)) if is_tar_name(name)), None)  # noqa: PTH208
            if archive is not None:
                suffix = "." + archive.partition(".")[2]
                raise UserError(
                    f"The folder '{printable(path)}' has no pictures but tar archives in it: "
                    f"name these, as '{printable(path)}/*{suffix}' in quotation marks."
                )
            raise UserError(nothing_found(f"folder '{printable(path)}'", notes))

    def __iter__(self) -> Iterator[SourceItem]:
        self.notes = WalkNotes()
        root = os.fsencode(self.path)
        for relative in self._walk(self.notes):
            yield item_of_file(id_from_path(relative), os.fsdecode(os.path.join(root, relative)))  # noqa: PTH118

    def describe(self) -> str:
        """The path."""
        return f"the folder {printable(self.path)}"

    def estimate_count(self) -> int:
        """The exact number, from a walk that reads names only, and the beginnings of files without a suffix."""
        return sum(1 for _ in self._walk(WalkNotes(is_quiet=True)))

    def _walk(self, notes: WalkNotes) -> Iterator[bytes]:
        root = os.fsencode(self.path)
        try:
            found = os.stat(root)  # noqa: PTH116 - bytes
            os.scandir(root).close()
        except OSError as error:
            raise UserError(
                f"The folder '{printable(self.path)}' cannot be read ({error.strerror}): check its path and rights."
            ) from error
        return _Walk(root, self._exclusion, notes).pictures((found.st_dev, found.st_ino))


def nothing_found(what: str, notes: WalkNotes, advice: str = "") -> str:
    """The sentence for a source without pictures; says what is there instead."""
    there = f" There is: {notes.listed()}." if notes.listed() else ""
    there += "".join(f" {remark}" for remark in notes.remarks_of_folders())
    return (
        f"The {what} has no pictures in it or below it: their names must end in one of {', '.join(IMAGE_SUFFIXES)}, "
        f"and hidden ones do not count.{there}{advice}"
    )


class _Walk:
    """One walk through a tree of folders."""

    def __init__(self, root: bytes, exclusion: Exclusion, notes: WalkNotes) -> None:
        self._root = root
        self._exclusion = exclusion
        self._notes = notes
        self._suffixes = tuple(suffix.encode() for suffix in picture_suffixes())

    def pictures(self, root_key: tuple[int, int]) -> Iterator[bytes]:
        """Relative paths of the pictures below the root, whose device and inode are ``root_key``."""
        # One level for each folder on the way down: its prefix, its device and inode, and its names still to come.
        levels = [(b"", root_key, iter(self._names_in(b"")))]
        while levels:
            prefix, _, names = levels[-1]
            name = next(names, None)
            if name is None:
                levels.pop()
            elif not name.endswith(b"/"):
                yield prefix + name
            else:
                folder = os.path.join(self._root, prefix + name)  # noqa: PTH118 - bytes
                try:
                    found = os.stat(folder)  # noqa: PTH116 - bytes
                except FileNotFoundError:
                    continue  # it was removed a moment ago
                except OSError as error:
                    self._leave_out(folder, error.strerror)
                    continue
                key = (found.st_dev, found.st_ino)
                if all(key != above for _, above, _ in levels):
                    levels.append((prefix + name, key, iter(self._names_in(prefix + name))))

    def _names_in(self, prefix: bytes) -> list[bytes]:
        """Pictures and, with a slash behind them, folders; sorted so that a walk down gives paths in order."""
        folder = os.path.join(self._root, prefix)  # noqa: PTH118 - bytes
        names = []
        is_empty = True
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    is_empty = False
                    if entry.name.startswith(b"."):
                        if entry.name.lower().endswith(self._suffixes) or _is_folder(entry):
                            self._notes.pass_hidden()
                    elif self._exclusion and self._exclusion.excludes(os.fsdecode(prefix + entry.name)):
                        self._notes.exclude()
                    elif _is_folder(entry):
                        if is_system_folder(os.fsdecode(prefix + entry.name)):
                            self._notes.pass_system_folder(printable(entry.name))
                        else:
                            names.append(entry.name + b"/")
                    elif entry.name.lower().endswith(self._suffixes) or self._is_picture(entry):
                        names.append(entry.name)
        except OSError as error:
            self._leave_out(folder, error.strerror)
            return []
        if is_empty and prefix:
            self._notes.note_empty(id_from_path(prefix) + "/")
        return sorted(names)

    def _is_picture(self, entry: os.DirEntry[bytes]) -> bool:
        """Whether a file whose suffix is none of a picture is one all the same."""
        if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110 - it may have led to a folder
            self._leave_out(entry.path, "the link leads nowhere")
            return False
        name = printable(entry.name)
        if not suffix_of(name) and is_picture_file(entry.path):
            return True
        self._notes.pass_over(name)
        return False

    def _leave_out(self, folder: bytes, why: str | None) -> None:
        self._notes.leave_out("the folder '%s' cannot be read and is left out: %s", printable(folder), why)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link that names itself
        return False
