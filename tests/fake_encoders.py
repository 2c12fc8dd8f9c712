"""Encoders and sources without a model: features are simple functions of pixels and words."""

import io
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from PIL import Image

from tai_engine.decoding.pixels import SquarePixels
from tai_engine.features import FeatureBatch, offsets_from_counts


def unit(rows):
    return torch.nn.functional.normalize(rows.float(), dim=1)


@dataclass(frozen=True)
class Picture:
    """An item of a source whose location is the key of its bytes in a dictionary."""

    id: str
    location: str
    size: int | None = None
    modified_ns: int | None = None


class DictSource:
    """Pictures from a dictionary id -> bytes, in its order. Times begin with 1000 and stay with their ids."""

    def __init__(self, pictures, count=True):
        self.pictures = pictures
        self.count = count
        self.opened = []
        self.times = {}

    def __iter__(self):
        for name, data in self.pictures.items():
            yield Picture(name, name, len(data), self.times.setdefault(name, 1000 + len(self.times)))

    def describe(self):
        return "a dictionary"

    def estimate_count(self):
        return len(self.pictures) if self.count else None

    @property
    def reader(self):
        return self.read

    def read(self, item):
        self.opened.append(item.location)
        data = self.pictures[item.location]
        if data == b"":
            raise FakeReadError("empty", "no bytes")
        return data


class FakeReadError(Exception):
    def __init__(self, reason, detail):
        super().__init__(reason, detail)
        self.reason = reason

    def __str__(self):
        return f"{self.args[0]}: {self.args[1]}"


def png(colour, size=(8, 8)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


class FakeEncoder:
    """D = 4. A picture's coarse row points along (r, g, b, 1); its two fine rows along the left and right half.

    A sentence's coarse row comes from its length, and it has a fine row per word.
    """

    def __init__(self, space_key="space:fake", recipe_key="img8:fake", rows_per_image=2, clip=False):
        self.space_key = space_key
        self.recipe_key = recipe_key
        self.recipe = {"image_size": 8}
        self.sentence_recipe_key = "text16:fake"
        self.sentence_recipe = {"context_length": 16}
        self.provenance = {"model": "fake", "precision": "fp32", "image_tower": "not settled"}
        self.dim = 4
        self.rows_per_image = rows_per_image
        self.has_coarse_clip = clip
        self.has_fine_sentences = True
        self.context_length = 16
        self.preprocess = SimpleNamespace(pixels=SquarePixels(8, "squash"))
        self.batches = []

    def prepare_images(self):
        self.provenance = {**self.provenance, "image_tower": "exact"}

    def encode_pixels(self, pixels, ids):
        assert pixels.dtype == torch.uint8
        assert pixels.shape[1:] == (3, 8, 8)
        self.batches.append(len(ids))
        values = torch.cat([pixels.float(), torch.ones(len(ids), 1, 8, 8)], dim=1)
        halves = torch.stack([values[..., :4].mean((2, 3)), values[..., 4:].mean((2, 3))], dim=1)
        fine = halves[:, : self.rows_per_image].flatten(0, 1)
        return FeatureBatch(
            ids=tuple(ids),
            coarse=unit(values.mean((2, 3))),
            fine=unit(fine),
            offsets=torch.arange(len(ids) + 1) * self.rows_per_image,
            space_key=self.space_key,
            coarse_clip=unit(values.amax((2, 3)) + 1) if self.has_coarse_clip else None,
        )

    def encode_sentences(self, sentences, ids):
        self.batches.append(len(ids))
        words = [sentence.split() for sentence in sentences]
        rows = [[len(word), 1, ord(word[0]), 2] for sentence in words for word in sentence]
        return FeatureBatch(
            ids=tuple(ids),
            coarse=unit(torch.tensor([[len(sentence), 1, 0, 0] for sentence in sentences])),
            fine=unit(torch.tensor(rows).view(-1, 4)),
            offsets=offsets_from_counts(torch.tensor([len(sentence) for sentence in words])),
            space_key=self.space_key,
        )
