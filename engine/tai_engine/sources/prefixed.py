"""A source whose items get names of their own beside those of other sources in the same store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tai_engine.errors import UserError
from tai_engine.sources.ids import id_from_path
from tai_engine.sources.item_reading import ItemReader
from tai_engine.sources.items import SourceItem
from tai_engine.sources.source import Source


class PrefixedSource(Source):
    """Another source with a text before each id.

    Raises:
        UserError: for a text that ids cannot begin with.
    """

    def __init__(self, source: Source, prefix: str) -> None:
        # What leads out of a folder, or is spelt otherwise than a path, names no file of it: see `ids.picture_path`.
        is_plain = id_from_path(f"{prefix}a") == f"{prefix}a" and not prefix.startswith("../")
        if not prefix.isprintable() or prefix != prefix.strip() or prefix.startswith("/") or not is_plain:
            raise UserError(
                f"--id-prefix is {prefix!r}; it must be text such as cam2/: no control characters, blanks around it, "
                "slash at its beginning, two slashes in a row, '.' or '..' as a folder, or % with two digits."
            )
        super().__init__()
        self._source = source
        self._prefix = prefix

    @property
    def left_out(self) -> int:
        """See `Source.left_out`."""
        return self._source.left_out

    @property
    def empty_folders(self) -> Sequence[str]:
        """See `Source.empty_folders`."""
        return [self._prefix + folder for folder in self._source.empty_folders]

    @property
    def remarks(self) -> Sequence[str]:
        """See `Source.remarks`."""
        return self._source.remarks

    @property
    def reader(self) -> ItemReader:
        """See `Source.reader`."""
        return self._source.reader

    def __iter__(self) -> Iterator[SourceItem]:
        for item in self._source:
            yield replace(item, id=self._prefix + item.id)

    def describe(self) -> str:
        """Its own words."""
        return self._source.describe()

    def estimate_count(self) -> int | None:
        """See `Source.estimate_count`."""
        return self._source.estimate_count()
