"""Encoders and sources without a model: features are simple functions of pixels and words."""

from types import SimpleNamespace

import torch

from tai_engine.decoding.pixels import SquarePixels
from tai_engine.features import FeatureBatch, offsets_from_counts


def unit(rows):
    return torch.nn.functional.normalize(rows.float(), dim=1)


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
