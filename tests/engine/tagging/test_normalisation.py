"""Normalisations by hand, and on real scores."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from tai_engine.errors import UserError
from tai_engine.evaluation.measures import mean_average_precision
from tai_engine.tagging.normalisation import FEWEST_CLASSES, NORMALISATIONS, in_effect, normalise, why_not


def test_by_hand():
    scores = torch.tensor([[1.0, 2.0, 6.0]])
    assert torch.equal(normalise(scores, "none"), scores)
    assert torch.equal(normalise(scores, "centre"), torch.tensor([[-2.0, -1.0, 3.0]]))
    # Squares of the differences sum to 14; over two degrees of freedom the deviation is sqrt 7.
    assert normalise(scores, "standard")[0].tolist() == pytest.approx([-2 / 7**0.5, -1 / 7**0.5, 3 / 7**0.5])
    small = torch.tensor([[0.0, 0.2, 0.4]])
    total = 1 + math.e + math.e**2
    assert normalise(small, "softmax")[0].tolist() == pytest.approx([1 / total, math.e / total, math.e**2 / total])


def test_softmax_takes_the_same_from_every_scale():
    cosines = torch.tensor([[0.2, 0.25, 0.3]])
    assert torch.allclose(normalise(100 * cosines, "softmax", 100.0), (20 * cosines).softmax(dim=1))
    assert torch.allclose(normalise(4 * cosines, "softmax"), (20 * cosines).softmax(dim=1))


@given(
    st.lists(st.lists(st.floats(-5, 5, width=32), min_size=7, max_size=7), min_size=1, max_size=6),
    st.sampled_from(NORMALISATIONS),
)
def test_the_order_within_an_item_stays(rows, how):
    scores = torch.tensor(rows)
    got = normalise(scores, how)
    assert bool(got.isfinite().all())
    for before, after in zip(scores, got, strict=True):
        order = before.argsort()
        assert bool((after[order].diff() >= -1e-6).all())


def test_equal_scores_and_a_single_class_are_zero_when_standardised():
    for value in (0.1, 1 / 3, -7.7):
        assert torch.equal(normalise(torch.full((2, 7), value), "standard"), torch.zeros(2, 7))
    assert torch.equal(normalise(torch.tensor([[3.0]]), "standard"), torch.zeros(1, 1))
    assert normalise(torch.zeros(0, 5), "standard").shape == (0, 5)


def test_an_unknown_one_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="Unknown normalisation 'standart'; did you mean 'standard'"):
        normalise(torch.zeros(1, 2), "standart")


def test_too_few_classes():
    assert in_effect("standard", FEWEST_CLASSES) == "standard"
    assert in_effect("standard", FEWEST_CLASSES - 1) == "none"
    assert why_not("standard", FEWEST_CLASSES) is None
    assert why_not("none", 2) is None
    assert "(softmax): with 2 words it cannot help" in str(why_not("softmax", 2))


def real_data(name: str):
    folder = os.environ.get("TAI_DATA")
    if not folder:
        pytest.skip("TAI_DATA is not set")
    return np.load(Path(folder) / name)


@pytest.mark.data
@pytest.mark.parametrize(
    ("how", "expected"), [("none", 88.07), ("centre", 88.57), ("standard", 88.11), ("softmax", 88.72)]
)
def test_the_authors_scores_of_voc2007(how, expected):
    with real_data("voc2007_test_taidpt_rn50_scores.npz") as file:
        merged, labels = torch.from_numpy((file["a"] + file["b"]) / 2), file["labels"]
    assert round(100 * mean_average_precision(normalise(merged, how), labels).mean, 2) == expected


@pytest.mark.data
@pytest.mark.parametrize(
    ("how", "expected"), [("none", 45.67), ("centre", 55.25), ("standard", 55.80), ("softmax", 55.96)]
)
def test_real_pictures_with_eighty_zero_shot_classes(how, expected):
    with real_data("real_clip_vitb32.npz") as file:
        pictures, classes = (
            normalize(torch.from_numpy(file[n]).float(), dim=1) for n in ("image_features", "class_features")
        )
        labels = file["caption_labels"]
    scores = normalise(100 * pictures @ classes.T, how, 100.0).numpy()
    counted = labels.sum(axis=0) >= 3
    truth = np.where(labels[:, counted], 1, -1).astype(np.int8)
    assert int(counted.sum()) == 29
    assert round(100 * mean_average_precision(scores[:, counted], truth).mean, 2) == expected
