"""The table of systems: its arithmetic by hand, its parts on small data."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tai_benchmarks.head_recipes import RECIPES, linear_head
from tai_benchmarks.systems_table import difference, real_clip, scaled_mean, voc
from tai_engine.vocabulary import load_vocabulary


def test_scaled_mean_by_hand():
    first, second = np.array([[0.0, 1.0], [2.0, 4.0]]), np.array([[30.0, 10.0], [20.0, 20.0]])
    np.testing.assert_allclose(scaled_mean(first, second, 0.25), [[0.25, 0.1875], [0.5, 0.875]])


def test_a_difference_with_its_interval():
    labels = np.array([[1], [1], [-1], [-1]], dtype=np.int8)
    right, wrong = np.array([[4.0], [3], [2], [1]]), np.array([[1.0], [2], [3], [4]])
    # Of a reversed order the precisions are 1/3 and 2/4.
    assert difference(wrong, right, labels).startswith("+58.3 [+")
    assert difference(right, right, labels) == "+0.0 [+0.0, +0.0]"


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_head_learns_what_sentences_say(recipe):
    generator = torch.Generator().manual_seed(0)
    axes = torch.eye(16)[:4]
    labels = torch.eye(4, dtype=torch.bool).repeat(1500, 1)
    items = normalize(axes.repeat(1500, 1) + 0.1 * torch.randn(6000, 16, generator=generator), dim=1)
    start = normalize(axes + 0.5, dim=1)
    found = linear_head(start, items, labels, recipe, seed=1)
    assert torch.equal(found, linear_head(start, items, labels, recipe, seed=1))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    assert bool(((items @ found.T).argmax(dim=1) == torch.arange(6000) % 4).all())
    with pytest.raises(ValueError, match="expected one of"):
        linear_head(start, items, labels, "other", seed=1)


def test_voc(tmp_path):
    generator = np.random.default_rng(0)
    labels = np.where(generator.random((40, 20)) < 0.3, 1, -1)
    scores = [labels + generator.normal(size=labels.shape) for _ in range(2)]
    np.savez(tmp_path / "voc2007_test_taidpt_rn50_scores.npz", labels=labels, a=scores[0], b=scores[1])
    lines = list(voc(tmp_path))
    assert lines[0].startswith("| 40 pictures of VOC2007 test")
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| merged", "| merged, standard", "| merged, softmax"]
    assert all(line.count("|") == 4 for line in lines)


def test_real_clip(tmp_path):
    generator = np.random.default_rng(1)
    words = load_vocabulary("coco80").names
    classes = generator.normal(size=(80, 8))
    shown = np.zeros((12, 80), dtype=np.uint8)
    shown[:, 0], shown[::2, 1] = 1, 1
    shown[0, 0] = 0
    np.savez(
        tmp_path / "real_clip_vitb32.npz",
        image_features=shown @ classes + 0.1 * generator.normal(size=(12, 8)),
        sentence_features=classes[[0, 1, 1]],
        class_features=classes,
        caption_labels=shown,
        sentences=np.array([f"a {words[0]}", f"a {words[1]}", "nothing of the kind"]),
    )
    lines = list(real_clip(tmp_path, seeds=(1, 2)))
    assert lines[0].startswith("| 12 photographs, 2 classes, 2 sentences |")
    assert len(lines) == 10
    assert all(line.count("|") == 5 for line in lines)
