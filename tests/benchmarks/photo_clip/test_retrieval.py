import pytest
import torch
from torch.nn.functional import normalize

from tai_benchmarks.photo_clip import retrieval as module
from tai_benchmarks.photo_clip.noun_labels import CaptionLabels
from tai_benchmarks.photo_clip.retrieval import encode_texts, mean_precisions, noun_truth, recalls, split
from tai_benchmarks.photo_clip.text_tower import new_model
from tai_benchmarks.photo_clip.text_training import PhotographVectors


def test_the_split_is_the_same_each_time_and_shares_nothing():
    train, held_out = split(1200)
    assert len(held_out) == 1000
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(1200))
    assert torch.equal(split(1200)[1], held_out)


def test_truth_has_concrete_nouns_that_two_captions_name_often_enough(nouns):
    shares = torch.zeros(8, 4)
    shares[:6, 0] = 0.4  # cat, in six photographs
    shares[:4, 1] = 1.0  # dog, in four: too few
    shares[:8, 2] = 0.2  # man, by one caption only
    shares[:8, 3] = 1.0  # a kind, no noun
    labels = CaptionLabels((("cat",), ("dog",), ("man",), ("animal",)), (6, 5, 9, 3), 3, shares)
    truth = noun_truth(labels, torch.arange(8), nouns)
    assert truth.names == ("cat",)
    assert truth.shown[:, 0].tolist() == [True] * 6 + [False] * 2


def test_precisions_of_coarse_fine_and_merged_scores():
    text = torch.eye(2)
    coarse = normalize(torch.tensor([[1.0, 0], [1, 1], [0, 1]]), dim=1)
    fine = torch.tensor([[[1.0, 0]], [[0, 1]], [[1, 0]]]).half()
    shown = torch.tensor([[True, False], [False, True], [False, True]])
    found = mean_precisions(text, PhotographVectors(coarse, fine), shown, 10.0)
    assert found["coarse"] == pytest.approx(1)
    # Fine: the third photograph is as high for the first class as the first one, and lowest for the second.
    assert found["fine"] == pytest.approx((1 + (1 + 2 / 3) / 2) / 2)
    assert found["merged"] == pytest.approx(1)


def test_recalls_of_photographs_that_are_their_captions(monkeypatch):
    monkeypatch.setattr(module, "_SLICE", 2)
    torch.manual_seed(1)
    model = new_model(16, 64)
    texts = ["a cat", "a dog on a sofa", "two men"]
    vectors = encode_texts(model, texts)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    assert recalls(model, texts, vectors) == {"R@1": 1.0, "R@5": 1.0}
    assert recalls(model, texts, vectors.roll(1, dims=0))["R@1"] == 0.0
