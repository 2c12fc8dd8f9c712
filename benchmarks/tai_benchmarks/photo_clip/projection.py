"""The image projection in closed form.

Rows are classifiers on the tower's features: the centred weights of ImageNet's 1,000 classes and ridge classifiers of
the concepts of captions. Times ``Σ^½`` of a bank of features they are what varies in scores; their best approximation
of rank D by a singular value decomposition is the space that pictures are projected to.

Shape legend: N photographs, V windows a photograph, M rows of the bank, E = 1280 features, K = 1000 classes, D joint
size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tai_benchmarks.photo_clip.algebra import ridge

_WINDOWS = ((3, 3), (5, 2))  # side and step in locations
_WINDOWS_IN_BANK = 6
_PSEUDO = 16_000
_PSEUDO_SPREAD, _PSEUDO_PULL = (0.3, 1.1), (1.0, 3.2)
_ACTIVATIONS = (0.0, 6.0)  # of the tower's last layer
_NOUN_RIDGE = 0.3
_FLOOR = 0.02  # of the covariance's eigenvalues, as a share of their mean


@dataclass(frozen=True, eq=False)
class PhotographFeatures:
    """What is needed of all maps at once.

    Attributes:
        coarse: [N, E] fp32 means of the maps.
        windows: [N, V, E] fp16 means of windows.
    """

    coarse: Tensor
    windows: Tensor


def summarise(parts: Iterable[Tensor]) -> PhotographFeatures:
    """Means of whole maps and of windows; memory: the results and one part."""
    coarse, windows = [], []
    for part in parts:
        for rows in part.split(128):
            maps = rows.float()
            side = round(maps.shape[1] ** 0.5)
            coarse.append(maps.mean(dim=1))
            grid = maps.transpose(1, 2).unflatten(2, (side, side))
            means = [F.avg_pool2d(grid, width, step).flatten(2).transpose(1, 2) for width, step in _WINDOWS]
            windows.append(torch.cat(means, dim=1).half())
    return PhotographFeatures(torch.cat(coarse), torch.cat(windows))


def feature_bank(features: PhotographFeatures, weight_KE: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Features of photographs [M₁, E], and pseudo-features [M₂, E] of classes that no photograph here shows.

    The latter are ``μ + u (f − μ) + λ w_c``: a photograph's features pulled towards a class that is drawn evenly, so
    that the bank, and with it the mean that is subtracted from every picture, is not full of people and dogs.
    """
    chosen = torch.randperm(features.windows.shape[1], generator=generator)[:_WINDOWS_IN_BANK]
    seen = torch.cat([features.coarse, features.windows[:, chosen].float().flatten(0, 1)])
    mean = seen.mean(dim=0)
    source = seen[torch.randint(len(seen), (_PSEUDO,), generator=generator)]
    classes = torch.randint(len(weight_KE), (_PSEUDO,), generator=generator)
    spread, pull = (
        low + (high - low) * torch.rand(_PSEUDO, 1, generator=generator) for low, high in (_PSEUDO_SPREAD, _PSEUDO_PULL)
    )
    pseudo = mean + spread * (source - mean) + pull * (weight_KE - weight_KE.mean(dim=0))[classes]
    return seen, pseudo.clamp(*_ACTIVATIONS)


@dataclass(frozen=True, eq=False)
class Projection:
    """``z = weight · (f − mean)``.

    Attributes:
        weight: [D, E].
        mean: [E].
    """

    weight: Tensor
    mean: Tensor

    @property
    def bias(self) -> Tensor:
        """[D], what is added in place of the mean's subtraction."""
        return -self.weight @ self.mean

    def __call__(self, features: Tensor) -> Tensor:
        """Unit rows [..., D] of features [..., E]."""
        return F.normalize((features.float() - self.mean) @ self.weight.T, dim=-1)


def classifier_rows(weight_KE: Tensor, coarse_NE: Tensor, shares_NC: Tensor, bank_ME: Tensor) -> Tensor:
    """[K + C, E]: both kinds of classifiers, each kind scaled to a mean deviation of its scores of 1 over the bank."""
    concepts = ridge(coarse_NE, shares_NC, _NOUN_RIDGE).T
    covariance = torch.cov(bank_ME.T)
    kinds = (weight_KE - weight_KE.mean(dim=0), concepts)
    return torch.cat([rows / ((rows @ covariance) * rows).sum(dim=1).sqrt().mean() for rows in kinds])


def project(rows_RE: Tensor, bank_ME: Tensor, size: int, power: float) -> Projection:
    """``S^power Vᵀ Σ^-½`` of the rows times ``Σ^½``, scaled so that the bank's projections have a mean length of 1.

    Args:
        rows_RE: classifiers.
        bank_ME: features; its mean is what is subtracted.
        size: D.
        power: 1 keeps the weight of each direction in scores, 0 makes all alike.
    """
    mean = bank_ME.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov(bank_ME.T, correction=0))
    values = values.clamp(min=0) + _FLOOR * values.mean()
    root, inverse_root = ((vectors * scale) @ vectors.T for scale in (values.sqrt(), values.rsqrt()))
    _, singular, right = torch.linalg.svd(rows_RE @ root, full_matrices=False)
    weight = (singular[:size] / singular[0]).pow(power).unsqueeze(1) * (right[:size] @ inverse_root)
    length = ((bank_ME - mean) @ weight.T).norm(dim=1).mean()
    return Projection(weight / length, mean)
