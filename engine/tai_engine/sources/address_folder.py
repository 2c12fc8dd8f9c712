"""A folder behind an address, and one picture of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

from tai_engine.addresses import child_of, is_http, name_of, open_file_system
from tai_engine.errors import ItemError, UserError
from tai_engine.picture_kinds import HEAD_BYTES, kind_of
from tai_engine.sources.file_info import modified_ns, size_of
from tai_engine.sources.folder import nothing_found
from tai_engine.sources.ids import id_from_path
from tai_engine.sources.items import SourceItem, is_image_name, is_tar_name
from tai_engine.sources.remote import PAUSES, with_retries
from tai_engine.sources.source import Source, SourceOptions
from tai_engine.sources.walk_notes import Exclusion, WalkNotes, is_system_folder, suffix_of

_MAX_DEPTH = 100  # of folders; deeper ones are links that lead in circles
_MAX_COUNTED = 100_000


class AddressFileSource(Source):
    """One picture behind an address; its id is its file name.

    Raises:
        UserError: if there is none.
    """

    def __init__(self, address: str, pauses: tuple[float, ...] = PAUSES) -> None:
        super().__init__()
        self.address = address
        file_system, path = open_file_system(address)
        try:
            info = with_retries(lambda: file_system.info(path), pauses)
        except ItemError as error:
            raise UserError(f"The picture '{address}' cannot be read ({error.detail}): check the address.") from error
        self._item = SourceItem(id_from_path(name_of(address)), address, size_of(info), modified_ns(info))

    def __iter__(self) -> Iterator[SourceItem]:
        yield self._item

    def describe(self) -> str:
        """The address."""
        return f"the picture {self.address}"

    def estimate_count(self) -> int:
        """One."""
        return 1


class _Entry(NamedTuple):
    """A picture, or a folder with a slash behind its name; a picture's size and time if known."""

    order: bytes
    name: str
    size: int | None = None
    modified_ns: int | None = None


class AddressFolderSource(Source):
    """All pictures below an address whose file system can list, in the order of their relative paths' bytes.

    The ids are those that a local copy would have, and the same things are passed over as in one: see `FolderSource`.
    Of web servers, folders are read by the links of the pages that they show for them. A subfolder that cannot be
    listed is reported as a warning of `logging`.

    Memory: the entries of the folders on the way down to the current item, about 300 bytes each.

    Args:
        address: of the folder.
        options: what the user says; its ``exclude`` counts.
        pauses: seconds before each further try of a listing.

    Raises:
        UserError: if it cannot be listed or holds no picture.
    """

    def __init__(self, address: str, options: SourceOptions | None = None, pauses: tuple[float, ...] = PAUSES) -> None:
        super().__init__()
        self.address = address
        self._exclusion = Exclusion((options or SourceOptions()).exclude)
        self._pauses = pauses
        self._file_system, path = open_file_system(address)
        self._root = path.rstrip("/")
        notes = WalkNotes(is_quiet=True)
        try:
            entries = self._list("", notes, looks_inside=True)
        except ItemError as error:
            raise UserError(f"The folder '{address}' cannot be listed ({error.detail}): check the address.") from error
        if next(self._walk(entries, notes, looks_inside=True), None) is None:
            raise UserError(self._nothing_found(notes))

    def __iter__(self) -> Iterator[SourceItem]:
        self.notes = WalkNotes()
        for prefix, entry in self._walk_from_root(self.notes, looks_inside=True):
            relative = prefix + entry.name
            if is_http(self.address):
                item_id = id_from_path(unquote(relative, errors="surrogateescape"))
            else:
                item_id = id_from_path(relative)
            yield SourceItem(
                item_id, child_of(self.address, relative), entry.size, entry.modified_ns, failure=_odd(entry)
            )

    def describe(self) -> str:
        """The address."""
        return f"the folder {self.address}"

    def estimate_count(self) -> int | None:
        """The number up to 100,000, without files that have no suffix; None beyond, where that would take minutes."""
        count = 0
        for _ in self._walk_from_root(WalkNotes(is_quiet=True), looks_inside=False):
            count += 1
            if count > _MAX_COUNTED:
                return None
        return count

    def _walk_from_root(self, notes: WalkNotes, *, looks_inside: bool) -> Iterator[tuple[str, _Entry]]:
        return self._walk(self._list_or_warn("", notes, looks_inside=looks_inside), notes, looks_inside=looks_inside)

    def _walk(self, entries: list[_Entry], notes: WalkNotes, *, looks_inside: bool) -> Iterator[tuple[str, _Entry]]:
        """The prefix and entry of every picture, beginning with the root's ``entries``."""
        levels = [("", iter(entries))]
        while levels:
            prefix, left = levels[-1]
            entry = next(left, None)
            if entry is None:
                levels.pop()
            elif not entry.name.endswith("/"):
                yield prefix, entry
            elif len(levels) < _MAX_DEPTH:
                below = self._list_or_warn(prefix + entry.name, notes, looks_inside=looks_inside)
                levels.append((prefix + entry.name, iter(below)))
            else:
                place = child_of(self.address, prefix + entry.name)
                notes.leave_out("the folder '%s' is too deep and is left out", place)

    def _list_or_warn(self, prefix: str, notes: WalkNotes, *, looks_inside: bool) -> list[_Entry]:
        try:
            return self._list(prefix, notes, looks_inside=looks_inside)
        except ItemError as error:
            place = child_of(self.address, prefix)
            notes.leave_out("the folder '%s' cannot be listed and is left out: %s", place, error.detail)
            return []

    def _list(self, prefix: str, notes: WalkNotes, *, looks_inside: bool) -> list[_Entry]:
        """The entries of a folder, those without a suffix only if what is inside them is looked at."""
        folder = (f"{self._root}/{prefix}" if self._root else prefix).rstrip("/")
        place = folder + "/" if is_http(self.address) else folder  # spares a redirection
        found = with_retries(lambda: self._file_system.ls(place, detail=True), self._pauses)
        entries = sorted(entry for info in found if (entry := self._entry(folder, info)))
        # A page may link to a picture in several ways; the id is one.
        entries = list({entry.order: entry for entry in reversed(entries)}.values())[::-1]
        return [one for one in entries if self._is_wanted(prefix, one, notes, looks_inside=looks_inside)]

    def _is_wanted(self, prefix: str, entry: _Entry, notes: WalkNotes, *, looks_inside: bool) -> bool:
        path = unquote(prefix + entry.name, errors="surrogateescape") if is_http(self.address) else prefix + entry.name
        name = path.rstrip("/").rpartition("/")[2]
        is_folder = entry.name.endswith("/")
        if name.startswith("."):
            if is_folder or is_image_name(name):
                notes.pass_hidden()
        elif self._exclusion and self._exclusion.excludes(path.rstrip("/")):
            notes.exclude()
        elif is_folder:
            if not is_system_folder(path):
                return True
            notes.pass_system_folder(name)
        elif is_image_name(name) or (not suffix_of(name) and looks_inside and self._is_picture(prefix + entry.name)):
            return True
        else:
            notes.pass_over(name)
        return False

    def _is_picture(self, relative: str) -> bool:
        """Whether a file begins like a picture; False where that cannot be seen."""
        path = f"{self._root}/{relative}" if self._root else relative
        try:
            head = with_retries(lambda: self._file_system.cat_file(path, start=0, end=HEAD_BYTES), self._pauses)
        except ItemError:
            return False
        return kind_of(bytes(head[:HEAD_BYTES])) is not None

    def _nothing_found(self, notes: WalkNotes) -> str:
        there = () if is_http(self.address) else self._file_system.ls(self._root, detail=False)
        if any(is_tar_name(str(name)) for name in there):
            return (
                f"The folder '{self.address}' has no pictures but tar archives in it: name these, as "
                f"'{self.address}/*.tar'."
            )
        advice = " One picture's address must end so too; others can be read from a list."
        return nothing_found(f"folder '{self.address}'", notes, advice if is_http(self.address) else "")

    def _entry(self, folder: str, info: dict[str, Any]) -> _Entry | None:
        path, parent = str(info["name"]).lstrip("/"), folder.lstrip("/")
        name = path.removeprefix(parent + "/") if parent else path
        is_folder = info.get("type") == "directory"
        name = name.rstrip("/") if is_folder else name
        plain = unquote(name, errors="surrogateescape") if is_http(self.address) else name
        if not name or "/" in name:
            return None  # the folder itself, or a link to elsewhere
        order = plain.encode("utf-8", "surrogateescape")
        if is_folder:
            return _Entry(order + b"/", name + "/")
        return _Entry(order, name, size_of(info), modified_ns(info))


def _odd(entry: _Entry) -> str | None:
    return "unreadable: fsspec reads '::' in a name as a chain of addresses; rename it" if "::" in entry.name else None
