"""A source of pictures out of a dictionary. It loads little: processes that decode import it for its reader."""

import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tai_engine.decoding.pixels import SquarePixels
from tai_engine.errors import ItemError


@dataclass(frozen=True)
class Picture:
    """An item of a source whose location is the key of its bytes in a dictionary."""

    id: str
    location: str
    size: int | None = None
    modified_ns: int | None = None


@dataclass(frozen=True)
class DictReader:
    """Notes what it opens in a file, for other processes read too."""

    pictures: dict
    notes: str

    def __call__(self, item):
        descriptor = os.open(self.notes, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, f"{item.location}\n".encode())
        os.close(descriptor)
        data = self.pictures[item.location]
        if data == b"":
            raise ItemError("empty", "no bytes")
        return data


class DictSource:
    """Pictures from a dictionary id -> bytes, in its order. Times begin with 1000 and stay with their ids."""

    def __init__(self, pictures, count=True):
        self.pictures = pictures
        self.count = count
        self.times = {}
        self.folder = tempfile.TemporaryDirectory()
        self.notes = Path(self.folder.name, "opened")
        self.notes.touch()

    def __iter__(self):
        for name, data in self.pictures.items():
            yield Picture(name, name, len(data), self.times.setdefault(name, 1000 + len(self.times)))

    def describe(self):
        return "a dictionary"

    def estimate_count(self):
        return len(self.pictures) if self.count else None

    @property
    def reader(self):
        return DictReader(dict(self.pictures), str(self.notes))

    @property
    def opened(self):
        """Every location that was read since `forget`."""
        return self.notes.read_text().splitlines()

    def forget(self):
        self.notes.write_text("")


def png(colour, size=(8, 8)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


@dataclass(frozen=True)
class PickyPixels(SquarePixels):
    """Does not take pictures that are one pixel wide."""

    def __call__(self, image, of_size=None, box=None):
        if of_size == (1, 5):
            raise ValueError("one pixel wide: bytes \udcff")  # messages may quote names that are not UTF-8
        return super().__call__(image, of_size, box)
