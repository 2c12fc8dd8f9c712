"""What a walk through a source passes over, and what it says of that."""

from __future__ import annotations

import fnmatch
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from tai_engine.errors import UserError
from tai_engine.picture_kinds import EXTRA, KINDS

# Of network storage, Windows, Apple's systems, Android and Linux: previews, caches, waste bins. In lower case; a name
# with a slash is that of a folder in another one.
SYSTEM_FOLDERS = (
    "@eadir", "@tmp", "@sharebin", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin",
    "recycler", "recycled", "system volume information", "found.[0-9][0-9][0-9]", "__macosx",
    "*.photoslibrary/resources", "*.photoslibrary/database", "*.photolibrary/thumbnails", "*.photolibrary/previews",
    "*.lrdata", "android/data", "android/obb", "lost.dir", "lost+found",
)  # fmt: skip
_SYSTEM = re.compile("|".join(fnmatch.translate(name) for name in SYSTEM_FOLDERS if "/" not in name))
_SYSTEM_IN = re.compile("|".join(fnmatch.translate(name) for name in SYSTEM_FOLDERS if "/" in name))
_SUFFIX = re.compile(r"[^.]\.([A-Za-z0-9_~-]{1,11})\Z")
_MAX_EMPTY = 1000
_SHOWN = 10  # suffixes, and names of folders

_log = logging.getLogger(__name__)


def suffix_of(name: str) -> str:
    """The suffix of a file name with its dot, in lower case; "" where the name has none that could be one."""
    found = _SUFFIX.search(name)
    return f".{found[1].lower()}" if found else ""


def is_system_folder(path: str) -> bool:
    """Whether a folder, by its relative path with either kind of slash, is one that systems keep for themselves."""
    parts = path.lower().replace("\\", "/").rstrip("/").split("/")
    return _SYSTEM.match(parts[-1]) is not None or (
        len(parts) > 1 and _SYSTEM_IN.match("/".join(parts[-2:])) is not None
    )


def system_folder_in(path: str) -> str | None:
    """The first folder on the way to a file that systems keep for themselves; None if there is none."""
    parts = path.split("/")[:-1]
    return next((part for end, part in enumerate(parts, 1) if is_system_folder("/".join(parts[:end]))), None)


class Exclusion:
    """Patterns of names that the user does not want.

    A pattern without a slash is that of a name, of a file or of a folder with all that is in it; one with a slash is
    that of a path from the source on. ``*`` and ``?`` stand for any letters, ``[...]`` for some.

    Raises:
        UserError: for a pattern that is broken, or that no name can fit.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        patterns = tuple(patterns)
        for pattern in patterns:
            if why := _why_it_fits_nothing(pattern):
                raise UserError(f"The pattern {pattern!r} of --exclude fits nothing: {why}.")
        patterns = [pattern.strip("/") if pattern.strip("/") else pattern for pattern in patterns]
        self._names = [re.compile(fnmatch.translate(p)) for p in patterns if "/" not in p]
        self._paths = [re.compile(fnmatch.translate(p)) for p in patterns if "/" in p]

    def __bool__(self) -> bool:
        return bool(self._names or self._paths)

    def excludes(self, path: str) -> bool:
        """Whether a relative path is excluded by its last name or as a whole; its folders are asked for themselves."""
        name = path.rpartition("/")[2]
        return any(one.match(name) for one in self._names) or any(one.match(path) for one in self._paths)

    def excludes_any(self, path: str) -> bool:
        """Whether a relative path or a folder on its way is excluded."""
        parts = path.split("/")
        return bool(self) and any(self.excludes("/".join(parts[:end])) for end in range(1, len(parts) + 1))


def _why_it_fits_nothing(pattern: str) -> str | None:
    """What is wrong with a pattern of `Exclusion`; None for a good one."""
    parts = pattern.strip("/").split("/")
    if parts == [""]:
        return "it is empty; give the name of a file or folder, such as '*.tmp'"
    if odd := next((part for part in parts if part in ("", ".", "..")), None):
        return f"no path has a part {odd!r} from the source on; leave it out"
    if "" in parts:
        return "it has two slashes in a row; write one"
    # Brackets as fnmatch reads them, which takes one without an end for itself, and turns a range around into nothing.
    at = 0
    while (begun := pattern.find("[", at)) >= 0:
        first = begun + 1 + (pattern[begun + 1 : begun + 2] == "!")
        end = pattern.find("]", first + 1)
        if end < 0:
            return "it has a '[' without its ']'; write '[[]' for that letter itself"
        letters = pattern[begun : end + 1]
        if "(?!)" in fnmatch.translate(letters):
            return f"{letters} stands for no letter; write its range the other way around"
        at = end + 1
    return None


class WalkNotes:
    """Notes of one walk. Memory: a count for each suffix and each name of a system folder.

    Attributes:
        left_out: folders and archives that could not be gone through, or not to their end. What is in them is not gone.
        empty_folders: relative paths, with a slash behind them, of folders with nothing in them, as the places are of
            drives that are not mounted; the first 1,000.
    """

    def __init__(self, is_quiet: bool = False) -> None:
        """Args: whether nothing is logged, for a walk that only looks."""
        self.left_out = 0
        self.empty_folders: list[str] = []
        self._is_quiet = is_quiet
        self._suffixes: Counter[str] = Counter()
        self._folders: Counter[str] = Counter()
        self._hidden = self._excluded = 0

    def leave_out(self, message: str, *values: object) -> None:
        """Count something that cannot be gone through, and warn of it."""
        self.left_out += 1
        self.warn(message, *values)

    def note_empty(self, folder: str) -> None:
        """Remember a folder, by its relative path with a slash behind it, in which there is nothing at all."""
        if len(self.empty_folders) < _MAX_EMPTY:
            self.empty_folders.append(folder)

    def warn(self, message: str, *values: object) -> None:
        """Log a warning."""
        if not self._is_quiet:
            _log.warning(message, *values)

    def pass_over(self, name: str) -> None:
        """Count a file that is no picture by its name or, where that has no suffix, by its content."""
        self._suffixes[suffix_of(name)] += 1

    def pass_system_folder(self, name: str) -> None:
        """Count a folder that a system keeps for itself."""
        self._folders[name.rstrip("/")] += 1

    def pass_hidden(self) -> None:
        """Count a file or folder with a dot before its name."""
        self._hidden += 1

    def exclude(self) -> None:
        """Count a file or folder that the user does not want."""
        self._excluded += 1

    def remarks(self) -> Sequence[str]:
        """A sentence for each kind of what was passed over."""
        found = []
        if self._suffixes:
            found.append(f"Passed over, being no pictures by their names: {self.listed()}{self._advice()}.")
        return [*found, *self.remarks_of_folders()]

    def remarks_of_folders(self) -> Sequence[str]:
        """A sentence for each kind of what was passed over because of where it lies, or by the user's wish."""
        found = []
        if self._folders:
            found.append(
                f"Passed over, being folders of systems: {_listed(self._folders)}; give such a folder itself for what "
                "is in it."
            )
        if self._hidden:
            found.append(f"Passed over, being hidden: {self._hidden:,}.")
        if self._excluded:
            found.append(f"Passed over by --exclude: {self._excluded:,}.")
        return found

    def listed(self) -> str:
        """What is no picture, counted by suffix; "" if there was nothing."""
        return _listed(Counter({suffix or "without a suffix": count for suffix, count in self._suffixes.items()}))

    def _advice(self) -> str:
        would = sorted(
            suffix for kind in KINDS if not kind.is_readable for suffix in kind.suffixes if suffix in self._suffixes
        )
        return f"; {EXTRA} reads {', '.join(would)}" if would else ""


def _listed(counts: Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    more = sum(count for _, count in ordered[_SHOWN:])
    return ", ".join(f"{count:,} {name}" for name, count in ordered[:_SHOWN]) + (f", {more:,} others" if more else "")
