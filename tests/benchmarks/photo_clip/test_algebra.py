import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score

from tai_benchmarks.photo_clip.algebra import column_average_precision, recall_at, ridge


def test_ridge_equals_scikit_learns():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(40, 5, generator=generator) + 2, torch.randn(40, 3, generator=generator) - 1
    centred = x - x.mean(dim=0)
    alpha = 0.3 * float((centred**2).mean(dim=0).mean()) * len(x)
    expected = Ridge(alpha=alpha).fit(x.numpy(), y.numpy()).coef_.T
    np.testing.assert_allclose(ridge(x, y, 0.3), expected, atol=1e-5)


def test_the_strength_of_a_ridge_does_not_depend_on_the_scale_of_its_rows():
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(30, 4, generator=generator), torch.randn(30, 2, generator=generator)
    torch.testing.assert_close(ridge(10 * x, y, 0.5), ridge(x, y, 0.5) / 10)


def test_average_precision_of_columns_equals_scikit_learns():
    generator = torch.Generator().manual_seed(3)
    scores, labels = torch.randn(50, 4, generator=generator), torch.rand(50, 4, generator=generator) < 0.3
    found = column_average_precision(scores, labels)
    for column in range(4):
        expected = average_precision_score(labels[:, column].numpy(), scores[:, column].numpy())
        assert float(found[column]) == pytest.approx(expected, abs=1e-6)


def test_average_precision_by_hand():
    scores = torch.tensor([[0.9, 1.0], [0.8, 2.0], [0.7, 3.0]])
    labels = torch.tensor([[True, False], [False, False], [True, False]])
    torch.testing.assert_close(column_average_precision(scores, labels), torch.tensor([(1 + 2 / 3) / 2, 0.0]))


def test_recall_counts_rows_whose_own_column_is_among_the_highest():
    scores = torch.tensor([[3.0, 1.0, 2.0], [5.0, 4.0, 1.0], [9.0, 8.0, 7.0]])
    assert recall_at(scores, 1) == pytest.approx(1 / 3)
    assert recall_at(scores, 2) == pytest.approx(2 / 3)
    assert recall_at(scores, 3) == 1
