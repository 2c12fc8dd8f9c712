"""The vectors of some items, read from where they lie into one batch.

Shape legend: N items, T fine rows of all items together, D embedding size, R runs of entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tai_engine.features import FeatureBatch, offsets_from_counts
from tai_engine.store.arrays import StoreArrays
from tai_engine.store.row_buffers import RowBuffers
from tai_engine.store.spec import StoreSpec


@dataclass(frozen=True, eq=False)
class ItemPlaces:
    """Where the vectors of N items lie.

    Attributes:
        ids: their names.
        positions: [N] int64, their slots in the store.
        counts: [N] int64, their fine rows; None if these are not wanted.
        first_rows: [N] int64, where these begin.
    """

    ids: tuple[str, ...]
    positions: np.ndarray
    counts: np.ndarray | None = None
    first_rows: np.ndarray | None = None


def read_features(
    spec: StoreSpec,
    arrays: StoreArrays,
    places: ItemPlaces,
    pin_memory: bool = False,
    buffers: RowBuffers | None = None,
) -> FeatureBatch:
    """The items in the order of ``places``, rows as they are stored.

    Memory: the batch, and what `StoreArrays.read_runs` says.

    Args:
        spec: of the store.
        arrays: of the store.
        places: of items with features.
        pin_memory: put vectors where a GPU copies from at once; needs CUDA.
        buffers: where the memory of the vectors comes from if it is not pinned; by default torch gives it.

    Raises:
        UserError: for a chunk that is missing or damaged.
        ValueError: for vectors that are none: of a wrong length, or items of the same name.
    """
    one_N = np.ones(len(places.ids), dtype=np.int64)

    def read(name: str, starts_N: np.ndarray, lengths_N: np.ndarray, dtype: str, width: tuple[int, ...]) -> Tensor:
        shape = (int(lengths_N.sum()), *width)
        torch_dtype: torch.dtype = getattr(torch, dtype)
        if pin_memory or buffers is None:
            entries = torch.empty(shape, dtype=torch_dtype, pin_memory=pin_memory)
        else:
            entries = buffers.empty(shape, torch_dtype)
        starts_R, lengths_R = merged_runs(starts_N, lengths_N)
        arrays.read_runs(name, starts_R.tolist(), lengths_R.tolist(), entries.numpy())
        return entries

    coarse = ("coarse", "coarse_clip") if spec.has_coarse_clip else ("coarse",)
    vectors = [read(name, places.positions, one_N, spec.coarse_dtype, (spec.dim,)) for name in coarse]
    scales_T = torch.empty(0) if spec.is_quantised else None
    if places.counts is None or places.first_rows is None:
        counts_N = np.zeros(len(places.ids), dtype=np.int64)
        fine_TD = torch.empty(
            0, spec.dim, dtype=getattr(torch, spec.row_dtype if spec.is_quantised else spec.coarse_dtype)
        )
    else:
        counts_N = places.counts
        fine_TD = read("fine", places.first_rows, counts_N, spec.row_dtype, (spec.dim,))
        if spec.is_quantised:
            scales_T = read("fine_scale", places.first_rows, counts_N, "float32", ())
    return FeatureBatch(
        ids=places.ids,
        coarse=vectors[0],
        fine=fine_TD,
        offsets=offsets_from_counts(torch.from_numpy(counts_N)),
        space_key=spec.space_key,
        coarse_clip=vectors[1] if spec.has_coarse_clip else None,
        fine_scales=scales_T,
        check_fine=False,
    )


def merged_runs(starts_N: np.ndarray, lengths_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same entries in as few runs as there can be: starts [R] and lengths [R], without empty ones."""
    kept = lengths_N > 0
    starts_N, ends_N = starts_N[kept], (starts_N + lengths_N)[kept]
    if not len(starts_N):
        return starts_N, ends_N
    begins = np.append(True, starts_N[1:] != ends_N[:-1])
    starts_R = starts_N[begins]
    return starts_R, ends_N[np.append(begins[1:], True)] - starts_R
