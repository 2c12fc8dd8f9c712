"""A list of pictures: of this machine, or behind an address."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import unicodedata
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tai_engine.addresses import is_address, join, local_path, name_of, open_file_system, parent_of, protocol_of
from tai_engine.errors import ItemError, UserError
from tai_engine.regular_files import printable
from tai_engine.sources.allowed import Allowed
from tai_engine.sources.ids import LOCATION_COLUMNS, PictureColumns
from tai_engine.sources.items import SourceItem, item_of_file
from tai_engine.sources.source import Source, SourceOptions
from tai_engine.sources.streams import AddressStream
from tai_engine.sources.walk_notes import Exclusion, WalkNotes
from tai_engine.tables import LINE_COLUMN, Row, Table


class ListSource(Source):
    """The pictures that a JSONL, CSV, TSV or Parquet file names, in its order.

    The picture is named by the first of the columns `LOCATION_COLUMNS`: by an address, or by a path relative to the
    list's own folder (Hugging Face's ``metadata.jsonl`` fits); ``id``, where it is there, overrules it as its id. Paths
    may be those of another system: backslashes, and accents composed or not. The whole list is read and checked once
    before the first item comes. Sizes and times are those of local files alone: asking a server for each would take as
    long as reading the pictures. A list behind an address may name what lies in its own place (see `Allowed`).

    A picture on several rows, as where each has one label or one caption, is taken once.

    Memory: 8 bytes a row while checking, then one row, and 300 bytes for each picture on several rows. A list
    behind an address is copied to a temporary file.

    Args:
        place: path or address of the list.
        options: what the user says.

    Raises:
        UserError: for a list that cannot be read or has no rows, a row without a path, an address that is not allowed
            or of a kind that cannot be read here, or an id of two pictures (names both rows).
    """

    def __init__(self, place: str | Path, options: SourceOptions | None = None) -> None:
        super().__init__()
        options = options or SourceOptions()
        self._exclusion = Exclusion(options.exclude)
        self._name = printable(place)
        self._address = str(place) if is_address(str(place)) else None
        if self._address is None:
            self._path = Path(place)
            self._folder = os.fspath(self._path.parent)
        else:
            # The object removes its folder when it goes.
            self._copy = tempfile.TemporaryDirectory(prefix="tai-list-")
            self._path = Path(self._copy.name, "list" + Path(name_of(self._address)).suffix)
            self._folder = parent_of(self._address)
            self._allowed = Allowed(self._address, options.allow)
            _copy_to(self._address, self._path)
        self._table = Table(self._path, LOCATION_COLUMNS, options.table, kind="list", name=self._name)
        self._columns = PictureColumns(self._table, options.column)
        self._is_plain = self._table.shape.format in ("text", "json", "jsonl")
        self._repeated: frozenset[int] = frozenset()
        self._count = self._check()

    def __iter__(self) -> Iterator[SourceItem]:
        self.notes = WalkNotes()
        if self._repeated:
            self.notes.warn("the list '%s' has %s pictures on several rows: each is taken once", self._name,
                            f"{len(self._repeated):,}")  # fmt: skip
        seen: set[int] = set()
        for _, item_id, location in self._rows():
            if self._repeated and (found := _hash(item_id)) in self._repeated:
                if found in seen:
                    continue
                seen.add(found)
            if self._exclusion.excludes_any(item_id):
                self.notes.exclude()
                continue
            yield SourceItem(item_id, location) if is_address(location) else item_of_file(item_id, location)

    def describe(self) -> str:
        """The path or address."""
        return f"the list {self._name}"

    def estimate_count(self) -> int:
        """The exact number."""
        return self._count

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        """Place, id and location of every row."""
        for row in self._table.rows(self._columns.names):
            if self._is_plain and LINE_COLUMN in row.values:  # a path alone, as a line or an entry
                line = row.values[LINE_COLUMN].rstrip("\r\n")
                if not line.strip():
                    continue
                row = Row(row.place, {LOCATION_COLUMNS[0]: line})
            path = self._columns.location_of(row)
            if self._address is not None:
                if not is_address(path):
                    path = path.replace("\\", "/")
                location = self._address_of(row.place, path)
            elif is_address(path):
                location = local_path(path) or path
            else:
                path = self._spelt_as_there(path)
                location = os.path.join(self._folder, path)  # noqa: PTH118 - faster than Path, for long lists
            yield row.place, self._columns.id_of(row, path), location

    def _spelt_as_there(self, path: str) -> str:
        """A path that another system wrote, as it is spelt here; as Unix would have it, if it is not there."""
        if path.isascii() and "\\" not in path:
            return path
        with_slashes = path.replace("\\", "/")
        spellings = dict.fromkeys(
            (path, with_slashes, *(unicodedata.normalize(form, with_slashes) for form in ("NFC", "NFD")))
        )
        there = (one for one in spellings if os.path.lexists(os.path.join(self._folder, one)))  # noqa: PTH118
        return next(there, with_slashes)

    def _address_of(self, place: str, path: str) -> str:
        """Where a row of a list behind an address leads."""
        if is_address(path):
            refusal = self._allowed.refusal(path)
            if refusal is not None:
                raise UserError(f"In {place} of '{self._name}': {refusal}.")
            return local_path(path) or path
        if path.startswith("/"):
            raise UserError(
                f"In {place} of '{self._name}' stands the absolute path '{path}'; in a list behind an address it "
                "must be relative to the list, or an address."
            )
        if "::" in path:  # fsspec would follow what stands behind it
            raise UserError(
                f"In {place} of '{self._name}' stands '{path}'; in a list behind an address, a path must not hold '::'."
            )
        return join(self._folder, path)

    def _check(self) -> int:
        hashes = array("Q")
        protocols: set[str] = set()
        for place, item_id, location in self._rows():
            hashes.append(_hash(item_id))
            if is_address(location) and protocol_of(location) not in protocols:
                self._try_protocol(place, location)
                protocols.add(protocol_of(location))
        if not hashes:
            raise UserError(f"The list '{self._name}' has no rows: put one picture on each.")
        ordered = np.sort(np.frombuffer(hashes, dtype=np.uint64))
        suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
        first: dict[str, tuple[str, str]] = {}
        for place, item_id, location in self._rows() if suspects else ():
            if _hash(item_id) in suspects:
                file = location if is_address(location) else os.path.normpath(location)
                known, same = first.setdefault(item_id, (place, file))
                if file != same:
                    raise UserError(
                        f"The id {item_id!r} occurs in {known} and in {place} of '{self._name}', for two pictures: "
                        "remove one of the rows, or give them different ids."
                    )
        self._repeated = frozenset(map(_hash, first))
        return len(np.unique(ordered))

    def _try_protocol(self, place: str, address: str) -> None:
        """A package that is missing is missing for all rows: better said before the run."""

        try:
            open_file_system(address)
        except UserError as error:
            raise UserError(f"In {place} of '{self._name}': {error}") from error


def _copy_to(address: str, path: Path) -> None:

    try:
        with AddressStream(address) as stream, path.open("wb") as file:
            shutil.copyfileobj(stream, file, 2**20)
    except ItemError as error:
        raise UserError(f"The list '{address}' cannot be read ({error.detail}): check the address.") from error


def _hash(item_id: str) -> int:
    digest = hashlib.blake2b(item_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
