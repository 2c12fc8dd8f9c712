"""Class vectors that learn from sentences' vectors alone."""

import numpy as np
import torch

from tai_benchmarks.negatives_on_vectors import vectors_table
from tai_benchmarks.vectors_only import VectorsOnly


def test_class_vectors_learn_from_sentences(tmp_path):
    """Names that say nothing, sentences and pictures that lie where their classes are."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(80, 32, generator=generator), dim=1)
    arrays = {
        "class_features": torch.randn(80, 32, generator=generator),
        "sentences": np.array(["a dog", "a cat", "a horse", "nothing"] * 20),
        "sentence_features": directions[[16, 15, 17, 3] * 20] + 0.02,
        "image_features": directions[[16, 15, 17] * 4],
        "caption_labels": np.eye(80, dtype=np.uint8)[[16, 15, 17] * 4],
    }
    np.savez(tmp_path / "v.npz", **{name: np.asarray(value) for name, value in arrays.items()})
    data = VectorsOnly.read(tmp_path / "v.npz")
    assert data.labels.shape == (60, 80)
    lines = list(vectors_table(data, seeds=(1,)))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[0] for row in rows] == ["none", "random", "hard"]
    assert [row[2] for row in rows] == ["100.0"] * 3
    assert rows[0][4] == "+0.0 [0.0, 0.0]"
