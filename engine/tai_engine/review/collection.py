"""Pictures and what the machine suggests for them, numbered in the order in which a person looks at them.

Shape legend: N pictures, M suggestions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tai_engine.errors import UserError
from tai_engine.review.suggestions import Suggestions, read_suggestions
from tai_engine.sources.folder import FolderSource
from tai_engine.sources.items import SourceItem
from tai_engine.sources.open import open_source
from tai_engine.sources.source import Source

UNKNOWN = -1
_FEW_IDS = 32


class NotShownError(Exception):
    """A picture that cannot be shown; says why, ``"reason: detail"``."""


@dataclass(frozen=True, eq=False)
class Places:
    """Where the pictures of a source lie, as columns.

    Memory: 24 bytes a picture, its id and its path.

    Attributes:
        ids: texts.
        locations: paths or addresses, as bytes of the file system.
        numbers: [n, 3] int64: size, time of change, and offset in the file; `UNKNOWN` where there is none.
    """

    ids: pa.LargeStringArray
    locations: pa.LargeBinaryArray
    numbers: np.ndarray


class Collection:
    """A file of tags and its pictures. Picture ``n`` is the n-th that a person should look at.

    First come those with suggestions, unsure ones first (see `Suggestions.doubts`; a picture is as unsure as its least
    sure suggestion), then those without any, in the order of their source, at last those that are not there. Equal ones
    keep the order of the file of tags.

    Memory: what `Suggestions` and `Places` say, and 24 bytes a picture.

    Attributes:
        suggestions: as they lie in the file; see `row_of`.
        ids: N texts in the order of looking.
        tagged: how many have suggestions and are there; they come first.
        missing: how many are not there; they come last.
    """

    def __init__(self, suggestions: Suggestions, source: Source, *, follows_links: bool = False) -> None:
        """Walk through ``source`` once and match its pictures with the tags.

        Args:
            suggestions: from the file of tags.
            source: where the pictures lie.
            follows_links: whether pictures of a folder may be links to files outside of it.

        Raises:
            UserError: if none of the tagged pictures is in ``source``, or it cannot be read.
        """
        self.suggestions = suggestions
        self._reader = source.reader
        self._root = os.path.realpath(source.path) if isinstance(source, FolderSource) and not follows_links else None
        places = _walk(source)
        place_of_row = pc.index_in(suggestions.ids, value_set=places.ids)
        is_there = place_of_row.is_valid().to_numpy(zero_copy_only=False)
        if not is_there.any():
            raise UserError(
                f"None of the {len(is_there):,} tagged pictures is in {source.describe()} (the first one is called "
                f"{suggestions.ids[0].as_py()!r}): give the folder or list that was cached with --images."
            )
        is_tagged = pc.is_in(places.ids, value_set=suggestions.ids).to_numpy(zero_copy_only=False)
        rows = np.lexsort((-self._doubt_of_rows(), ~is_there))
        untagged = np.flatnonzero(~is_tagged)
        self.tagged, self.missing = int(is_there.sum()), int((~is_there).sum())
        there, gone = np.split(rows, [self.tagged])
        nothing = np.full(len(untagged), UNKNOWN, np.int64)
        self._rows = np.concatenate([there, nothing, gone])
        place_numbers = place_of_row.fill_null(UNKNOWN).to_numpy().astype(np.int64)
        self._places = np.concatenate([place_numbers[there], untagged, np.full(len(gone), UNKNOWN, np.int64)])
        self._place_columns = places
        self.ids = pa.concat_arrays(
            [
                suggestions.ids.take(pa.array(there)),
                places.ids.take(pa.array(untagged)),
                suggestions.ids.take(pa.array(gone)),
            ]
        )

    @classmethod
    def open(
        cls, tags: str | Path, images: str | Path, *, most: int | None = None, follows_links: bool = False
    ) -> Collection:
        """Read the file of tags and walk through the folder, list or archive of its pictures.

        Raises:
            UserError: as `read_suggestions`, `open_source` and the class itself.
        """
        return cls(read_suggestions(tags, most), open_source(images), follows_links=follows_links)

    def __len__(self) -> int:
        """N."""
        return len(self.ids)

    @property
    def read_bytes(self) -> Callable[[SourceItem], bytes]:
        """What gets the bytes of an item; it can be pickled."""
        return self._reader

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Where pictures ``start`` to ``stop`` stand in the suggestions; `UNKNOWN` for those without any."""
        return self._rows[start:stop]

    def item(self, number: int) -> SourceItem:
        """The picture as its reader takes it.

        Raises:
            NotShownError: if it is not there, or a link to a file outside of its folder.
        """
        place = int(self._places[number])
        if place == UNKNOWN:
            raise NotShownError("missing: there is no such picture any more")
        columns = self._place_columns
        location = os.fsdecode(columns.locations[place].as_py())
        if self._root is not None:
            real = os.path.realpath(location)
            if os.path.commonpath([real, self._root]) != self._root:
                raise NotShownError(
                    "outside: it is a link to a file outside of the folder; --follow-links shows such ones"
                )
        size, modified_ns, offset = (None if v == UNKNOWN else v for v in columns.numbers[place].tolist())
        return SourceItem(self.ids[number].as_py(), location, size, modified_ns, None, offset)

    def find(self, ids: Sequence[str]) -> list[int | None]:
        """The numbers of pictures, None for those that are not in the collection."""
        if len(ids) <= _FEW_IDS:
            return [self._find_one(item_id) for item_id in ids]
        return pc.index_in(pa.array(ids, pa.large_string()), value_set=self.ids).to_pylist()

    def _find_one(self, item_id: str) -> int | None:
        order, low, high = self._by_id, 0, len(self)
        while low < high:
            middle = (low + high) // 2
            found = self.ids[order[middle]].as_py()
            if found == item_id:
                return int(order[middle])
            # Arrow orders texts by their bytes, Python by their letters.
            low, high = (middle + 1, high) if found.encode() < item_id.encode() else (low, middle)
        return None

    @cached_property
    def _by_id(self) -> np.ndarray:
        return pc.sort_indices(self.ids).to_numpy()

    def _doubt_of_rows(self) -> np.ndarray:
        offsets = self.suggestions.offsets
        return np.maximum.reduceat(self.suggestions.doubts(), offsets[:-1])  # every row has a suggestion


def _walk(source: Source) -> Places:
    ids: list[pa.Array] = []
    locations: list[pa.Array] = []
    numbers: list[np.ndarray] = []
    block: list[tuple[str, bytes, int, int, int]] = []

    def flush() -> None:
        if block:
            names, paths, *columns = zip(*block, strict=True)
            ids.append(pa.array(names, pa.large_string()))
            locations.append(pa.array(paths, pa.large_binary()))
            numbers.append(np.array(columns, np.int64).T)
            block.clear()

    for item in source:
        if item.data is not None:
            raise UserError(
                f"The pictures of {source.describe()} lie in a packed archive and cannot be looked at one by one: "
                "unpack it (gunzip), and cache and tag what comes out."
            )
        size, modified, offset = (UNKNOWN if v is None else v for v in (item.size, item.modified_ns, item.offset))
        block.append((item.id, os.fsencode(item.location), size, modified, offset))
        if len(block) == 16_384:
            flush()
    flush()
    return Places(
        pa.concat_arrays(ids) if ids else pa.array([], pa.large_string()),
        pa.concat_arrays(locations) if locations else pa.array([], pa.large_binary()),
        np.concatenate(numbers) if numbers else np.zeros((0, 3), np.int64),
    )
