"""Scores of all classes and of those that are kept."""

import math

import pytest
import torch

from tai_engine.tagging.score_batch import ScoreBatch, SparseScoreBatch


def test_top_k_is_best_first_with_ties_in_class_order():
    scores = torch.tensor([[0.1, 0.7, 0.7, -2.0], [3.0, 1.0, 2.0, 4.0]])
    best = ScoreBatch(("a", "b"), ("w", "x", "y", "z"), scores).top_k(3)
    assert best.class_indices.tolist() == [1, 2, 0, 3, 0, 2]
    assert best.offsets.tolist() == [0, 3, 6]
    assert torch.equal(best.scores, torch.tensor([0.7, 0.7, 0.1, 4.0, 3.0, 2.0]))


def test_top_k_with_minima_per_class():
    scores = torch.tensor([[0.1, 0.7, 0.5], [0.9, 0.1, 0.1]])
    batch = ScoreBatch(("a", "b"), ("x", "y", "z"), scores)
    assert batch.top_k(5, minimum=0.5).class_indices.tolist() == [1, 2, 0]
    kept = batch.top_k(5, minimum=torch.tensor([1.0, 0.6, 0.6]))
    assert kept.class_indices.tolist() == [1]
    assert kept.offsets.tolist() == [0, 1, 1]
    assert batch.top_k(0).scores.numel() == 0


def test_scores_are_checked():
    with pytest.raises(ValueError, match="NaN"):
        ScoreBatch(("a",), ("x",), torch.tensor([[math.nan]]))
    with pytest.raises(ValueError, match="expected float32"):
        ScoreBatch(("a",), ("x", "y"), torch.zeros(1, 1))
    with pytest.raises(ValueError, match="outside the 2 classes"):
        SparseScoreBatch(("a",), ("x", "y"), torch.tensor([2]), torch.tensor([0.0]), torch.tensor([0, 1]))
