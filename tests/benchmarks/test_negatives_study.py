"""What hard negatives are: counted by hand."""

import numpy as np
import pytest
import torch

from tai_benchmarks.negatives_study import (
    LabelledPhotographs,
    costing,
    false_share,
    mined_pairs,
    photograph_holders,
)
from tai_engine.errors import UserError
from tai_engine.tuning.negatives.strategies import MinedNegatives
from tai_engine.tuning.sentence_table import SentenceTable


def mined():
    """Class 0 has sentences 0, 1 and 2, the last one drawn at random; class 1 has sentence 3."""
    parts = [
        (np.array([0, 1, 2]), np.array([0.8, 0.6, 0.1], dtype=np.float32), 1),
        (np.array([3]), np.array([0.4], dtype=np.float32), 0),
    ]
    return MinedNegatives.build(parts)


def test_false_negatives_are_those_whose_photograph_shows_the_class():
    truth = LabelledPhotographs({"7": frozenset({0}), "8": frozenset({1}), "9": frozenset({0})})
    cosine, false, known = false_share(mined(), ["7", "8", "7", "9"], truth)
    # Pairs (0, photograph 7), (0, 8) and (1, 9): the first is false, the one drawn at random does not count.
    assert (cosine, false, known) == (pytest.approx(0.6), pytest.approx(1 / 3), 3)
    # A template has no photograph, and some photographs have no labels.
    assert false_share(mined(), [None, "5", None, "8"], truth)[1:] == (1.0, 1)


def test_a_photograph_holds_what_any_of_its_captions_names():
    """Sentences that hold {0}, {1, 2}, {}, {2} and {}; the first and third are of one photograph, the last of none."""
    offsets, classes = torch.tensor([0, 1, 3, 3, 4, 4]), torch.tensor([0, 1, 2, 2])
    table = SentenceTable(None, torch.arange(5), torch.arange(5), offsets, classes, 3)
    holders = photograph_holders(table, ["7", "8", "7", "9", None])
    assert [holders.of(c).tolist() for c in range(3)] == [[0, 2], [1], [1, 3]]


def test_pairs_that_nobody_labelled_are_neither_false_nor_right():
    truth = LabelledPhotographs({"7": frozenset({0}), "9": frozenset()})
    pairs = list(mined_pairs(mined(), ["7", "8", "7", "9"], truth))
    assert [(pair.class_index, pair.sentence, pair.is_false) for pair in pairs] == [
        (0, 0, True), (0, 1, None), (1, 3, False),
    ]  # fmt: skip


def test_absent_classes_that_cost():
    scores = torch.tensor([[3.0, 2.5, 1.9, 0.5], [1.0, 2.0, 0.5, -0.5]])
    labels = torch.tensor([[True, False, False, False], [True, True, False, False]])
    # Below 3 - 1 lie 1.9 and 0.5; below the lower of the two less 1 lies -0.5.
    assert costing(scores, labels).tolist() == [[False, True, False, False], [False, False, True, False]]


def test_labels_of_photographs(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("000000000632 56 58\n\n000000000724\n")
    found = LabelledPhotographs.read(path).classes
    assert found == {"632": frozenset({56, 58}), "724": frozenset()}
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match=r"empty.txt' have no line"):
        LabelledPhotographs.read(tmp_path / "empty.txt")
    with pytest.raises(UserError, match="cannot be read"):
        LabelledPhotographs.read(tmp_path / "missing.txt")
