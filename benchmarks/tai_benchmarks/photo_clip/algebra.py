"""Closed forms that several stages share, and the average precision of many columns at once.

Shape legend: N rows, E features, C columns.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ridge(x_NE: Tensor, y_NC: Tensor, strength: float) -> Tensor:
    """[E, C]: coefficients of a ridge regression on centred rows.

    ``(XᵀX/N + strength · mean diagonal · I)⁻¹ XᵀY/N``, so that ``strength`` means the same for any scale of ``x``.
    """
    x_NE, y_NC = x_NE - x_NE.mean(dim=0), y_NC - y_NC.mean(dim=0)
    gram = x_NE.T @ x_NE / len(x_NE)
    gram += strength * gram.diagonal().mean() * torch.eye(len(gram))
    return torch.linalg.solve(gram, x_NE.T @ y_NC / len(x_NE))


def column_average_precision(scores_NC: Tensor, labels_NC: Tensor) -> Tensor:
    """[C] average precision of each column of scores: the mean of the precision at each positive; 0 without any."""
    order = scores_NC.argsort(dim=0, descending=True, stable=True)
    hits = labels_NC.gather(0, order).float()
    ranks = torch.arange(1, len(hits) + 1).unsqueeze(1)
    return (hits.cumsum(dim=0) / ranks * hits).sum(dim=0) / hits.sum(dim=0).clamp(min=1)


def recall_at(scores_NN: Tensor, k: int) -> float:
    """The share of rows whose own column, the one of the same number, is among the k highest."""
    better = (scores_NN > scores_NN.diagonal().unsqueeze(1)).sum(dim=1)
    return float((better < k).float().mean())
