"""Scores of all classes and of those that are kept."""

import math

import pytest
import torch

from tai_engine.tagging.score_batch import ScoreBatch, SparseScoreBatch


def test_scores_are_checked():
    with pytest.raises(ValueError, match="NaN"):
        ScoreBatch(("a",), ("x",), torch.tensor([[math.nan]]))
    with pytest.raises(ValueError, match="expected float32"):
        ScoreBatch(("a",), ("x", "y"), torch.zeros(1, 1))
    with pytest.raises(ValueError, match="outside the 2 classes"):
        SparseScoreBatch(("a",), ("x", "y"), torch.tensor([2]), torch.tensor([0.0]), torch.tensor([0, 1]))
