"""The tag table item by item: what formats with one entry a picture are written from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tai_engine.errors import ItemError, UserError, unknown_choice
from tai_engine.json_documents import parse_json
from tai_engine.sources.ids import picture_path
from tai_engine.tagging.exporters.tag_table import conform

XMP_NAMES = ("photo.jpg.xmp", "photo.xmp")


class Tag(NamedTuple):
    """One tag of a picture; ``score`` is None for a person's own, ``probability`` without a calibration."""

    name: str
    score: float | None
    probability: float | None

    @property
    def numbers(self) -> dict[str, float]:
        """``score`` and ``probability``, as far as they are known."""
        known = {"score": self.score, "probability": self.probability}
        return {name: value for name, value in known.items() if value is not None}


class ItemTags(NamedTuple):
    """A picture and its tags, in the order of the table (best first)."""

    id: str
    tags: tuple[Tag, ...]


@dataclass(frozen=True)
class ExportOptions:
    """What formats want to know beside the tags.

    Attributes:
        images: the folder that ids are relative to; formats that name a picture's size or lie beside it need it.
        image_prefix: put before an id where a format wants a place that another program can open.
        xmp_name: ``"photo.jpg.xmp"`` (digiKam, darktable) or ``"photo.xmp"`` (Capture One, Lightroom).
        file_items: pictures in one file, for formats whose readers want small files.
        untagged: ids of the pictures that were scored and have no tag, in order; formats with an entry per picture have
            one for these too, and those that `tai evaluate` reads list them.
    """

    images: Path | None = None
    image_prefix: str = ""
    xmp_name: str = "photo.jpg.xmp"
    file_items: int = 10_000
    untagged: Iterable[str] = ()

    def __post_init__(self) -> None:
        if self.xmp_name not in XMP_NAMES:
            raise unknown_choice("name for sidecars", self.xmp_name, XMP_NAMES)
        if self.file_items < 1:
            raise UserError(f"The pictures in a file are {self.file_items}; there must be 1 or more.")


DEFAULT_OPTIONS = ExportOptions()


def items_of(batches: Iterable[pa.RecordBatch], untagged: Iterable[str] = ()) -> Iterator[ItemTags]:
    """The pictures of a tag table, each of whose rows stand together, then those without a tag.

    Memory: one batch and the tags of one picture.

    Raises:
        ValueError: for batches that are not a tag table.
    """
    name: str | None = None
    tags: list[Tag] = []
    for batch in conform(batches):
        columns = (batch.column(field_name).to_pylist() for field_name in ("id", "tag", "score", "probability"))
        for item_id, tag, score, probability in zip(*columns, strict=True):
            if item_id != name:
                if name is not None:
                    yield ItemTags(name, tuple(tags))
                name, tags = item_id, []
            numbers = (None if value is None else shortest(value) for value in (score, probability))
            tags.append(Tag(tag, *numbers))
    if name is not None:
        yield ItemTags(name, tuple(tags))
    for item_id in untagged:
        yield ItemTags(item_id, ())


def class_names_of(provenance: Mapping[str, str]) -> list[str]:
    """Every tag that there could have been, from the words that a file of tags carries.

    Raises:
        UserError: when they do not name the classes.
    """
    try:
        names = parse_json(provenance["class_names"])
        if not isinstance(names, list):
            raise ValueError("its classes are no list")
    except (KeyError, ValueError) as error:
        raise UserError("The tags do not say which words there were: make them again with `tai tag`.") from error
    return [str(name) for name in names]


def shortest(value: float) -> float:
    """An fp32 value as the Python float that prints shortest: 0.3, not 0.30000001192092896."""
    return float(str(np.float32(value)))


@dataclass
class ImageSizes:
    """Widths and heights of pictures, read from their first bytes when they are at hand.

    Attributes:
        images: the folder of the pictures; None if they are not at hand.
        missing: pictures whose size could not be read so far.
    """

    images: Path | None
    missing: int = field(default=0, init=False)

    def of(self, item_id: str) -> tuple[int, int] | None:
        """Width and height in pixels as the picture is shown, or None."""
        if self.images is None:
            return None
        from tai_engine.decoding.decode import shown_size

        try:
            return shown_size(picture_path(self.images, item_id))
        except (ItemError, ValueError):
            self.missing += 1
            return None
