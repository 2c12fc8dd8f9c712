"""Class vectors for patches, learned from the patches of the collection itself: a Gaussian discriminant.

Patches that the prompts are surest of become the first examples of their classes; a discriminant with one covariance
for all is fitted to them, chooses again, and is fitted once more (PIAA, ICML 2026). A discriminant with one covariance
is linear, so that it can be kept as class vectors; its offsets are left out, which only shift a class's scores and so
change no order of pictures.

Shape legend: T patches of a batch, C classes, D embedding size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_engine.errors import UserError
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.spaces import require_same_space
from tai_engine.store import FeatureStore

FIRST_SHARPNESS = 60.0
"""Of the softmax over classes that chooses the first patches; this and the next two are the published values."""
SURE_PATCHES = 512
"""Of a class, at most: those of least entropy among the patches whose best class it is."""
SECOND_SHARPNESS = 100.0
"""Of the softmax over the discriminant's scores, as published for VOC."""
MOST_PICTURES = 2000
"""Evenly spread over the collection; more change the vectors little."""
_BATCH = 64
_SURE_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class _Discriminant:
    """Linear scores ``x·W + b`` of patches [T, D]: weights [C, D] and offsets [C], fp32."""

    weights: Tensor
    offsets: Tensor

    def shares(self, rows_TD: Tensor) -> Tensor:
        """[T, C]: softmax over the classes."""
        return (SECOND_SHARPNESS * (rows_TD @ self.weights.T + self.offsets)).softmax(dim=1)


class _Moments:
    """Weighted sums of patches, from which a discriminant is fitted; memory: [C, D] and [D, D] in fp64."""

    def __init__(self, start_CD: Tensor) -> None:
        self._start = start_CD.double()
        classes, dim = start_CD.shape
        self._sums = torch.zeros(classes, dim, dtype=torch.float64)
        self._totals = torch.zeros(classes, dtype=torch.float64)
        self._products = torch.zeros(dim, dim, dtype=torch.float64)

    def add(self, rows_TD: Tensor, weights_TC: Tensor) -> None:
        rows, weights = rows_TD.double(), weights_TC.double()
        self._sums += weights.T @ rows
        self._totals += weights.sum(dim=0)
        self._products += (rows * weights.sum(dim=1, keepdim=True)).T @ rows

    def fit(self) -> _Discriminant:
        """``P = D·pinv((N−1)Σ + tr(Σ)I)``, ``W = Pμ``, ``b = log(1/C) − ½ μᵀPμ``; μ of an empty class is its prompt."""
        classes, dim = self._start.shape
        held = self._totals > 1e-6
        means = torch.where(held[:, None], self._sums / self._totals.clamp(min=1e-6)[:, None], self._start)
        count = float(self._totals.sum())
        # Weighted squares about each class's own mean.
        covariance = (self._products - (self._sums.T @ means)) / max(count, 1.0)
        covariance = (covariance + covariance.T) / 2
        eye = torch.eye(dim, dtype=torch.float64)
        precision = dim * torch.linalg.pinv((count - 1) * covariance + covariance.trace() * eye, hermitian=True)
        weights = means @ precision
        offsets = -torch.log(torch.tensor(float(classes))) - 0.5 * (weights * means).sum(dim=1)
        return _Discriminant(weights.float(), offsets.float())


def with_patch_gaussians(prompts: PromptSet, store: FeatureStore) -> PromptSet:
    """The prompts with local vectors that the patches of the store have taught; the coarse ones stay.

    The patches of up to `MOST_PICTURES` pictures are read four times. Memory: those of 64 pictures, 256 MB of sure
    patches, and [D, D] in fp64.

    Args:
        prompts: of the classes to find.
        store: pictures with patches, of the same space; no label is read.

    Raises:
        UserError: for a store of coarse features, without pictures, or of another space.
    """
    if prompts.negative_vectors is not None:
        raise UserError(
            "Dual prompts have learned what a class is not, which would no longer fit: leave --patches out."
        )
    what = f"The store {store.path}"
    require_same_space(store.spec, prompts, what, "the prompt set")
    if not store.spec.has_fine:
        raise UserError(
            f"{what} holds coarse features only, and there is nothing to learn of patches: leave --patches out."
        )
    positions = store.done_positions()
    if not len(positions):
        raise UserError(f"{what} holds no pictures with features to learn from: leave --patches out, or fill it.")
    chosen = positions[
        np.unique(np.linspace(0, len(positions) - 1, min(len(positions), MOST_PICTURES)).astype(np.int64))
    ]

    def patches() -> Iterator[Tensor]:
        for start in range(0, len(chosen), _BATCH):
            yield store.read_items(chosen[start : start + _BATCH]).to(dtype=torch.float32).fine

    vectors_CD = _fitted(prompts.local_vectors, patches)
    metadata = {**prompts.metadata, "patch_gaussians": json.dumps({"pictures": len(chosen)})}
    return replace(prompts, local_vectors=vectors_CD, metadata=metadata, contexts={})


def _fitted(prompts_CD: Tensor, patches: Callable[[], Iterator[Tensor]]) -> Tensor:
    """[C, D] unit rows from several passes over the patches."""
    with torch.inference_mode():
        sure = _sure_patches(prompts_CD, patches())
        first = _Moments(prompts_CD)
        first.add(sure, (FIRST_SHARPNESS * (sure @ prompts_CD.T)).softmax(dim=1))
        discriminant = first.fit()
        sums = squares = torch.zeros(len(prompts_CD), dtype=torch.float64)
        count = 0
        for rows_TD in patches():
            shares_TC = discriminant.shares(rows_TD).double()
            sums, squares, count = sums + shares_TC.sum(0), squares + shares_TC.square().sum(0), count + len(rows_TD)
        means_C = sums / count
        least_C = means_C + (squares / count - means_C.square()).clamp(min=0).sqrt()
        second = _Moments(prompts_CD)
        for rows_TD in patches():
            shares_TC = discriminant.shares(rows_TD)
            second.add(rows_TD, shares_TC * (shares_TC >= least_C))
        weights_CD = second.fit().weights
    # A class whose vector vanishes keeps its prompt.
    vanished_C1 = weights_CD.norm(dim=1, keepdim=True) == 0
    return torch.where(vanished_C1, prompts_CD, normalize(weights_CD, dim=1)).clone()


def _sure_patches(prompts_CD: Tensor, batches: Iterator[Tensor]) -> Tensor:
    """[T, D]: of each class the patches of least entropy among those whose best class it is; earlier ones of equals."""
    classes, dim = prompts_CD.shape
    most = max(1, min(SURE_PATCHES, _SURE_BYTES // (4 * dim * classes)))
    rows, best, entropies = prompts_CD.new_zeros(0, dim), torch.zeros(0, dtype=torch.int64), prompts_CD.new_zeros(0)
    for rows_TD in batches:
        logits_TC = FIRST_SHARPNESS * (rows_TD @ prompts_CD.T)
        logs_TC = logits_TC.log_softmax(dim=1)
        rows = torch.cat([rows, rows_TD])
        best = torch.cat([best, logits_TC.argmax(dim=1)])
        entropies = torch.cat([entropies, -(logs_TC.exp() * logs_TC).sum(dim=1)])
        order = entropies.argsort(stable=True)
        order = order[best[order].argsort(stable=True)]  # by class, the surest of each first
        counts = torch.bincount(best, minlength=classes)
        place = torch.arange(len(order)) - (counts.cumsum(0) - counts)[best[order]]
        kept = order[place < most].sort().values
        rows, best, entropies = rows[kept], best[kept], entropies[kept]
    return rows
