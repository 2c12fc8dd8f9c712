import torch

from tai_benchmarks.photo_clip import noun_labels as module
from tai_benchmarks.photo_clip.captions import mentions
from tai_benchmarks.photo_clip.noun_labels import caption_labels, imagenet_classes, imagenet_synsets


def test_shares_of_captions_reach_near_kinds(nouns, monkeypatch):
    monkeypatch.setattr(module, "LEAST_PHOTOGRAPHS", 1)
    told = [
        [mentions("a dog", nouns), mentions("a terrier and a dog", nouns), mentions("something", nouns)],
        [mentions("a cat", nouns), mentions("a cat and a ball", nouns)],
    ]
    found = caption_labels(told, nouns)
    assert found.n_nouns == 4
    assert found.names == (("ball",), ("cat",), ("dog",), ("terrier",), ("domestic animal",))
    assert found.synsets == (10, 6, 5, 7, 4)
    # "domestic animal" is said by every caption with a dog, a terrier or a cat; "dog" as a kind is above terrier alone.
    torch.testing.assert_close(
        found.shares, torch.tensor([[0, 0, 2 / 3, 1 / 3, 2 / 3], [0.5, 1, 0, 0, 1]]), atol=1e-6, rtol=0
    )


def test_imagenets_classes_are_those_of_wordnet_in_the_classifiers_order():
    classes = imagenet_classes()
    assert len(classes) == 1000
    assert classes[0] == 1440764  # tench
    assert list(classes) == sorted(classes)


def test_synsets_hold_the_classes_below_them(nouns, monkeypatch):
    monkeypatch.setattr(module, "_LEAST_DEPTH_IMAGENET", 3)
    found = imagenet_synsets([6, 7, 10], nouns)
    assert found.offsets == (4, 5, 6, 7)
    assert found.members.tolist() == [[1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 0, 0]]
    assert found.names == {"domestic animal": 0, "dog": 1, "domestic dog": 1, "cat": 2, "terrier": 3}


def test_a_lemma_of_several_synsets_means_its_most_frequent_sense(nouns, monkeypatch):
    monkeypatch.setattr(module, "_LEAST_DEPTH_IMAGENET", 1)
    found = imagenet_synsets([11, 10], nouns)
    assert found.offsets[found.names["ball"]] == 10
    assert found.offsets[found.names["dance"]] == 11
