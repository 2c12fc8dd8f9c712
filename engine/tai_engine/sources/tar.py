"""Tar archives of pictures, such as WebDataset's shards."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import posixpath
import tarfile
from collections.abc import Generator, Iterator

from tai_engine.addresses import is_address
from tai_engine.errors import ItemError, UserError
from tai_engine.regular_files import check_size, open_regular, printable
from tai_engine.sources.file_info import nanoseconds
from tai_engine.sources.ids import id_from_path
from tai_engine.sources.items import IMAGE_SUFFIXES, SourceItem, is_image_name
from tai_engine.sources.members import TarStream
from tai_engine.sources.patterns import Shard, find_shards
from tai_engine.sources.remote import PAUSES
from tai_engine.sources.source import Source
from tai_engine.sources.streams import AddressStream

MAX_CARRIED_BYTES = 256 * 2**20
"""Larger members of archives that are read as a stream are refused: their bytes travel with the item."""

_BUFFER_BYTES = 2**20
_COUNTED = 10_000

_log = logging.getLogger(__name__)


class TarSource(Source):
    """The pictures in tar archives, archive by archive, in the order of their members.

    Every member with a picture's suffix is an item, as in a folder: captions and labels that WebDataset keeps beside
    them (the same name up to its first dot) are passed over. Its id is the archive's stem (see `find_shards`), a slash
    and the member's name: ``shards-000012/000123.jpg``. A slash in front of a name and ``..`` lead nowhere outside the
    archive: nothing is ever unpacked to disk. Hidden members are passed over. Of members with the same name the first
    counts, and the others are warned of. Links are entered as failed.

    Members of local archives that are not packed are read where they are; packed archives and those behind addresses
    are read once, in order, and their items carry their data.

    A damaged or missing archive does not end the walk: the pictures before the damage come, then an item of the
    archive's own name that fails with the reason, then the next archive.

    Memory: 70 bytes for each picture of one archive, and, where they carry data, the item's.

    Args:
        spec: the path or address of an archive, or a pattern (see `find_shards`).
        pauses: seconds before each further try of a request.

    Raises:
        UserError: if nothing fits ``spec``, the first archive is not there, the only one cannot be read, or there is no
            picture in all.
    """

    def __init__(self, spec: str, pauses: tuple[float, ...] = PAUSES) -> None:
        self._name = printable(spec)
        self._pauses = pauses
        self._shards = find_shards(spec, pauses)
        with contextlib.closing(iter(self)) as items:
            first = next(items, None)
        if first is None:
            raise UserError(
                f"There are no pictures in {self.describe()}: "
                f"their names must end in one of {', '.join(IMAGE_SUFFIXES)}, and hidden ones do not count."
            )
        if first.id == self._shards[0].name and first.failure is not None:
            reason, _, detail = first.failure.partition(": ")
            if len(self._shards) == 1 or reason in ("missing", "no-permission"):
                raise UserError(f"The archive '{printable(first.location)}' cannot be read ({detail}): check it.")

    def __iter__(self) -> Generator[SourceItem]:
        self.left_out = 0
        for shard in self._shards:
            last_id = None
            try:
                for item in self._items_of(shard):
                    last_id = item.id
                    yield item
            except ItemError as error:
                self.left_out += 1
                size, modified_ns = _size_and_time(shard)
                failure = str(error) if last_id is None else f"{error}, after {last_id}"
                _log.warning("the archive '%s' is left out from there on: %s", printable(shard.location), failure)
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
            for item in _pictures(first, stream):
                count += 1
                if count == _COUNTED:
                    end = (item.offset or 0) + (item.size or 0)
                    break
        return round(count * sum(sizes) / end) if end else None

    def _items_of(self, shard: Shard) -> Iterator[SourceItem]:
        with _open(shard, self._pauses) as stream:
            yield from _pictures(shard, stream)


@contextlib.contextmanager
def _open(shard: Shard, pauses: tuple[float, ...]) -> Iterator[TarStream]:
    if is_address(shard.location):
        with io.BufferedReader(AddressStream(shard.location, pauses), _BUFFER_BYTES) as file:
            yield TarStream(file, is_local=False)
        return
    with open_regular(shard.location) as archive:
        yield TarStream(archive, is_local=True)


def _pictures(shard: Shard, stream: TarStream) -> Iterator[SourceItem]:
    seen: set[int] = set()
    for member in stream.members():
        name = _safe_name(member.name)
        if member.isdir() or not is_image_name(name) or any(part.startswith(".") for part in name.split("/")):
            continue
        item_id = f"{shard.stem}/{name}"
        if hash(item_id) in seen:
            _log.warning("the archive '%s' has '%s' twice: the first counts", printable(shard.location), name)
            continue
        seen.add(hash(item_id))
        yield _item(item_id, shard, member, stream)


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
        check_size(member.size, MAX_CARRIED_BYTES)
    except ItemError as error:
        return SourceItem(item_id, shard.location, member.size, modified_ns, failure=str(error))
    return SourceItem(item_id, shard.location, member.size, modified_ns, data=stream.data(member))


def _size_and_time(shard: Shard) -> tuple[int | None, int | None]:
    try:
        found = os.stat(shard.location)  # noqa: PTH116
    except (OSError, ValueError):
        return None, None
    return found.st_size, found.st_mtime_ns
