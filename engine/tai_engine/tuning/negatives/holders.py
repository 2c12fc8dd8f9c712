"""Which sentences hold which class, listed by class.

Shape legend: M sentences, C classes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

Ints = npt.NDArray[np.int64]


class Holders(NamedTuple):
    """Which sentences hold which class: class c is held by ``sentences[offsets[c]:offsets[c + 1]]``, rising."""

    offsets: Ints
    sentences: Ints
    n_sentences: int

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.offsets) - 1

    def of(self, class_index: int) -> Ints:
        """The sentences that hold a class, rising."""
        return self.sentences[self.offsets[class_index] : self.offsets[class_index + 1]]

    @classmethod
    def from_dense(cls, labels_MC: Tensor | npt.NDArray[Any]) -> Holders:
        """From [M, C] of 0 and 1."""
        labels = np.asarray(labels_MC) != 0
        classes, sentences = np.nonzero(labels.T)
        return cls._build(classes, sentences, labels.shape[1], labels.shape[0])

    @classmethod
    def from_bags(cls, offsets: Tensor | Ints, class_indices: Tensor | Ints, n_classes: int) -> Holders:
        """From packed labels: sentence m holds the classes ``class_indices[offsets[m]:offsets[m + 1]]``.

        Raises:
            ValueError: for class indices outside [0, C) or offsets that do not fit them.
        """
        bounds, classes = np.asarray(offsets, np.int64), np.asarray(class_indices, np.int64)
        if len(bounds) < 1 or bounds[0] != 0 or bounds[-1] != len(classes) or (np.diff(bounds) < 0).any():
            raise ValueError(f"offsets must rise from 0 to {len(classes)}, the number of labels")
        if len(classes) and not 0 <= classes.min() <= classes.max() < n_classes:
            raise ValueError(f"class indices reach outside the {n_classes} classes")
        sentences = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        order = np.argsort(classes, kind="stable")
        return cls._build(classes[order], sentences[order], n_classes, len(bounds) - 1)

    @classmethod
    def _build(cls, classes: Ints, sentences: Ints, n_classes: int, n_sentences: int) -> Holders:
        counts = np.bincount(classes, minlength=n_classes)
        return cls(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), sentences.astype(np.int64), n_sentences)
