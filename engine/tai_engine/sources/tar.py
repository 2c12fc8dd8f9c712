"""Tar archives of pictures, such as WebDataset's shards."""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import tarfile
from collections.abc import Generator, Iterator

from tai_engine.addresses import is_address
from tai_engine.errors import ItemError, UserError
from tai_engine.picture_kinds import HEAD_BYTES, kind_of
from tai_engine.regular_files import check_size, open_regular, printable
from tai_engine.sources.file_info import nanoseconds
from tai_engine.sources.folder import nothing_found
from tai_engine.sources.ids import id_from_path
from tai_engine.sources.items import SourceItem, is_image_name
from tai_engine.sources.members import TarStream
from tai_engine.sources.patterns import Shard, find_shards
from tai_engine.sources.remote import PAUSES
from tai_engine.sources.source import Source, SourceOptions
from tai_engine.sources.streams import AddressStream
from tai_engine.sources.walk_notes import Exclusion, WalkNotes, suffix_of, system_folder_in

MAX_MEMBER_BYTES = 256 * 2**20
"""Larger members of archives that are read as a stream are refused: their bytes travel with the item."""

_BUFFER_BYTES = 2**20
_COUNTED = 10_000


class TarSource(Source):
    """The pictures in tar archives, archive by archive, in the order of their members.

    Every member that would be one in a folder is an item: captions and labels that WebDataset keeps beside them (the
    same name up to its first dot) are passed over. Its id is the archive's stem (see `find_shards`), a slash
    and the member's name: ``shards-000012/000123.jpg``. A slash in front of a name and ``..`` lead nowhere outside the
    archive: nothing is ever unpacked to disk. Of members with the same name the first counts, and the others are
    warned of. Links are entered as failed.

    Members of local archives that are not packed are read where they are; packed archives and those behind addresses
    are read once, in order, and their items carry their data.

    A damaged or missing archive does not end the walk: the pictures before the damage come, then an item of the
    archive's own name that fails with the reason, then the next archive.

    Memory: 70 bytes for each picture of one archive, and, where they carry data, the item's.

    Args:
        spec: the path or address of an archive, or a pattern (see `find_shards`).
        options: what the user says; its ``exclude`` counts, for paths within an archive.
        pauses: seconds before each further try of a request.

    Raises:
        UserError: if nothing fits ``spec``, the first archive is not there, the only one cannot be read, or there is no
            picture in all.
    """

    def __init__(self, spec: str, options: SourceOptions | None = None, pauses: tuple[float, ...] = PAUSES) -> None:
        super().__init__()
        self._name = printable(spec)
        self._exclusion = Exclusion((options or SourceOptions()).exclude)
        self._pauses = pauses
        self._shards = find_shards(spec, pauses)
        notes = WalkNotes(is_quiet=True)
        with contextlib.closing(self._items(notes)) as items:
            first = next(items, None)
        if first is None:
            raise UserError(nothing_found(self.describe().removeprefix("the "), notes))
        if first.id == self._shards[0].name and first.failure is not None:
            reason, _, detail = first.failure.partition(": ")
            if len(self._shards) == 1 or reason in ("missing", "no-permission"):
                raise UserError(f"The archive '{printable(first.location)}' cannot be read ({detail}): check it.")

    def __iter__(self) -> Iterator[SourceItem]:
        self.notes = WalkNotes()
        return self._items(self.notes)

    def _items(self, notes: WalkNotes) -> Generator[SourceItem]:
        for shard in self._shards:
            last_id = None
            try:
                with _open(shard, self._pauses) as stream:
                    for item in self._pictures(shard, stream, notes):
                        last_id = item.id
                        yield item
            except ItemError as error:
                size, modified_ns = _size_and_time(shard)
                failure = str(error) if last_id is None else f"{error}, after {last_id}"
                notes.leave_out("the archive '%s' is left out from there on: %s", printable(shard.location), failure)
                yield SourceItem(shard.name, shard.location, size, modified_ns, failure=failure)

    def describe(self) -> str:
        """The archive, or their number and pattern."""
        if len(self._shards) == 1:
            return f"the archive {printable(self._shards[0].location)}"
        return f"the {len(self._shards):,} archives {self._name}"

    def estimate_count(self) -> int | None:
        """From the first 10,000 pictures and the archives' bytes; None if these are packed or behind addresses."""
        first = self._shards[0]
        if is_address(first.location):
            return None
        sizes = [_size_and_time(shard)[0] or 0 for shard in self._shards]
        count, end = 0, sizes[0]
        with contextlib.suppress(ItemError), _open(first, self._pauses) as stream:
            if not stream.can_seek:
                return None
            for item in self._pictures(first, stream, WalkNotes(is_quiet=True)):
                count += 1
                if count == _COUNTED:
                    end = (item.offset or 0) + (item.size or 0)
                    break
        return round(count * sum(sizes) / end) if end else None

    def _pictures(self, shard: Shard, stream: TarStream, notes: WalkNotes) -> Iterator[SourceItem]:
        seen: set[int] = set()
        first_twice, twice = "", 0
        for member in stream.members():
            name = _safe_name(member.name)
            if member.isdir() or not self._is_wanted(name, member, stream, notes):
                continue
            item_id = f"{shard.stem}/{name}"
            if hash(item_id) in seen:
                first_twice, twice = first_twice or name, twice + 1
                continue
            seen.add(hash(item_id))
            yield _item(item_id, shard, member, stream)
        if twice:
            more = f" and {twice - 1:,} more names" if twice > 1 else ""
            place = printable(shard.location)
            notes.warn("the archive '%s' has '%s'%s more than once: the first counts", place, first_twice, more)

    def _is_wanted(self, name: str, member: tarfile.TarInfo, stream: TarStream, notes: WalkNotes) -> bool:
        parts = name.replace("\\", "/").split("/")
        if any(part.startswith(".") for part in parts):
            if is_image_name(name):
                notes.pass_hidden()
        elif self._exclusion.excludes_any("/".join(parts)):
            notes.exclude()
        elif (folder := system_folder_in("/".join(parts))) is not None:
            notes.pass_system_folder(folder)
        elif is_image_name(name) or (
            not suffix_of(parts[-1]) and member.isreg() and kind_of(stream.head(member, HEAD_BYTES)) is not None
        ):
            return True
        else:
            notes.pass_over(name)
        return False


@contextlib.contextmanager
def _open(shard: Shard, pauses: tuple[float, ...]) -> Iterator[TarStream]:
    if is_address(shard.location):
        with io.BufferedReader(AddressStream(shard.location, pauses), _BUFFER_BYTES) as file:
            yield TarStream(file, is_local=False)
        return
    with open_regular(shard.location) as archive:
        yield TarStream(archive, is_local=True)


def _safe_name(name: str) -> str:
    """The name as an id below the archive: ``..`` does not lead out of it, and a zero byte is escaped too."""
    return id_from_path(posixpath.normpath("/" + name).lstrip("/") or ".").replace("\0", "%00")


def _item(item_id: str, shard: Shard, member: tarfile.TarInfo, stream: TarStream) -> SourceItem:
    modified_ns = nanoseconds(member.mtime)
    try:
        if not member.isreg():
            raise ItemError("not-a-file", "it is a link or a device, which are not followed inside archives")
        if member.issparse():
            raise ItemError("unreadable", "it is stored with holes; pack the archive without --sparse")
        if stream.can_seek:
            return SourceItem(item_id, shard.location, member.size, modified_ns, offset=member.offset_data)
        check_size(member.size, MAX_MEMBER_BYTES)
    except ItemError as error:
        return SourceItem(item_id, shard.location, member.size, modified_ns, failure=str(error))
    return SourceItem(item_id, shard.location, member.size, modified_ns, data=stream.data(member))


def _size_and_time(shard: Shard) -> tuple[int | None, int | None]:
    try:
        found = os.stat(shard.location)  # noqa: PTH116
    except (OSError, ValueError):
        return None, None
    return found.st_size, found.st_mtime_ns
