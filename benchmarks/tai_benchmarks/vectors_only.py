"""Vectors of a real CLIP without the model: of sentences, photographs and names, from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_engine.sentences.nouns import NounFilter
from tai_engine.vocabulary import load_vocabulary


@dataclass(frozen=True, eq=False)
class VectorsOnly:
    """Unit vectors of a model without the model.

    Attributes:
        sentences: [M, D] of sentences that name a class.
        labels: [M, C] bool.
        pictures: [N, D].
        truth: [N, C] int8, +1 and -1.
        names: [C, D] of the classes' names.
    """

    sentences: Tensor
    labels: Tensor
    pictures: Tensor
    truth: np.ndarray[tuple[int, ...], np.dtype[np.int8]]
    names: Tensor

    @classmethod
    def read(cls, path: Path) -> VectorsOnly:
        """Arrays of a .npz file: sentence_features, sentences, image_features, caption_labels, class_features."""
        with np.load(path) as arrays:
            data = {name: arrays[name] for name in arrays.files}
        vocabulary = load_vocabulary("coco80")
        nouns = NounFilter(vocabulary)
        labels = torch.zeros(len(data["sentences"]), len(vocabulary), dtype=torch.bool)
        for row, sentence in enumerate(data["sentences"].tolist()):
            labels[row, list(nouns.classes_in(sentence))] = True
        kept = labels.any(dim=1)
        sentences, pictures, names = (
            normalize(torch.from_numpy(data[name]).float(), dim=1)
            for name in ("sentence_features", "image_features", "class_features")
        )
        truth = np.where(data["caption_labels"] > 0, 1, -1).astype(np.int8)
        return cls(sentences[kept], labels[kept], pictures, truth, names)
