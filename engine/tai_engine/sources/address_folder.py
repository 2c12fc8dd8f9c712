"""A folder behind an address, and one picture of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from tai_engine.addresses import child_of, is_http, name_of, open_file_system
from tai_engine.errors import ItemError, UserError
from tai_engine.sources.file_info import modified_ns, size_of
from tai_engine.sources.ids import id_from_path
from tai_engine.sources.items import IMAGE_SUFFIXES, SourceItem, is_image_name, is_tar_name
from tai_engine.sources.remote import PAUSES, with_retries
from tai_engine.sources.source import Source

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_MAX_DEPTH = 100  # of folders; deeper ones are links that lead in circles
_MAX_COUNTED = 100_000

_log = logging.getLogger(__name__)


class AddressFileSource(Source):
    """One picture behind an address; its id is its file name.

    Raises:
        UserError: if there is none.
    """

    def __init__(self, address: str, pauses: tuple[float, ...] = PAUSES) -> None:
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

    The ids are those that a local copy would have. Of web servers, folders are read by the links of the pages that they
    show for them. Hidden names are passed over; a subfolder that cannot be listed is reported as a warning of
    `logging`.

    Memory: the entries of the folders on the way down to the current item, about 300 bytes each.

    Args:
        address: of the folder.
        pauses: seconds before each further try of a listing.

    Raises:
        UserError: if it cannot be listed or holds no picture.
    """

    def __init__(self, address: str, pauses: tuple[float, ...] = PAUSES) -> None:
        self.address = address
        self._pauses = pauses
        self._file_system, path = open_file_system(address)
        self._root = path.rstrip("/")
        try:
            entries = self._list("")
        except ItemError as error:
            raise UserError(f"The folder '{address}' cannot be listed ({error.detail}): check the address.") from error
        if next(self._walk(entries), None) is None:
            raise UserError(_nothing_found(self._file_system, address, self._root))

    def __iter__(self) -> Iterator[SourceItem]:
        self.left_out = 0
        for prefix, entry in self._walk(self._list_or_warn("")):
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
        """The exact number up to 100,000; None beyond, for which listing twice would take minutes."""
        count = 0
        for _ in self._walk(self._list_or_warn("")):
            count += 1
            if count > _MAX_COUNTED:
                return None
        return count

    def _walk(self, entries: list[_Entry]) -> Iterator[tuple[str, _Entry]]:
        """The prefix and entry of every picture."""
        levels = [("", iter(entries))]
        while levels:
            prefix, left = levels[-1]
            entry = next(left, None)
            if entry is None:
                levels.pop()
            elif not entry.name.endswith("/"):
                yield prefix, entry
            elif len(levels) < _MAX_DEPTH:
                levels.append((prefix + entry.name, iter(self._list_or_warn(prefix + entry.name))))
            else:
                _log.warning("the folder '%s' is too deep and is left out", child_of(self.address, prefix + entry.name))

    def _list_or_warn(self, prefix: str) -> list[_Entry]:
        try:
            return self._list(prefix)
        except ItemError as error:
            place = child_of(self.address, prefix)
            _log.warning("the folder '%s' cannot be listed and is left out: %s", place, error.detail)
            self.left_out += 1
            return []

    def _list(self, prefix: str) -> list[_Entry]:
        folder = (f"{self._root}/{prefix}" if self._root else prefix).rstrip("/")
        place = folder + "/" if is_http(self.address) else folder  # spares a redirection
        found = with_retries(lambda: self._file_system.ls(place, detail=True), self._pauses)
        entries = sorted(entry for info in found if (entry := self._entry(folder, info)))
        # A page may link to a picture in several ways; the id is one.
        return list({entry.order: entry for entry in reversed(entries)}.values())[::-1]

    def _entry(self, folder: str, info: dict[str, Any]) -> _Entry | None:
        path, parent = str(info["name"]).lstrip("/"), folder.lstrip("/")
        name = path.removeprefix(parent + "/") if parent else path
        is_folder = info.get("type") == "directory"
        name = name.rstrip("/") if is_folder else name
        plain = unquote(name, errors="surrogateescape") if is_http(self.address) else name
        if not name or "/" in name or plain.startswith("."):
            return None  # the folder itself, a link to elsewhere, or hidden
        order = plain.encode("utf-8", "surrogateescape")
        if is_folder:
            return _Entry(order + b"/", name + "/")
        return _Entry(order, name, size_of(info), modified_ns(info)) if is_image_name(plain) else None


def _odd(entry: _Entry) -> str | None:
    return "unreadable: fsspec reads '::' in a name as a chain of addresses; rename it" if "::" in entry.name else None


def _nothing_found(file_system: AbstractFileSystem, address: str, path: str) -> str:
    if not is_http(address) and any(is_tar_name(str(name)) for name in file_system.ls(path, detail=False)):
        return f"The folder '{address}' has no pictures but tar archives in it: name these, as '{address}/*.tar'."
    advice = " One picture's address must end so too; others can be read from a list." if is_http(address) else ""
    return (
        f"The folder '{address}' has no pictures in it or below it: "
        f"their names must end in one of {', '.join(IMAGE_SUFFIXES)}.{advice}"
    )
