"""The one type: a coarse vector and a bag of fine vectors per item, be it a photo or a sentence.

Shape legend: N items, T fine rows of all items together, L fine rows per item, D embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, replace

import torch
from torch import Tensor

from tai_engine.spaces import require_same_space

# A unit vector rounded to p bits of mantissa has length 1 within about 2^-p; the slack covers the sum over D.
LENGTH_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 2e-2}
"""How far from 1 the length of a row of each type may be."""
_INT8_MAX = 127


def _check_shape(name: str, rows: Tensor, shape: tuple[int | None, int]) -> None:
    if rows.ndim != 2 or rows.shape[1] != shape[1] or (shape[0] is not None and rows.shape[0] != shape[0]):
        raise ValueError(
            f"{name} has shape {tuple(rows.shape)}, expected {tuple('any' if s is None else s for s in shape)}"
        )
    if rows.dtype not in LENGTH_TOLERANCE:
        raise ValueError(f"{name} has dtype {rows.dtype}, expected one of {[str(d) for d in LENGTH_TOLERANCE]}")


def _check_quantised(fine: Tensor, scales: Tensor, dim: int) -> None:
    if fine.dtype != torch.int8 or fine.ndim != 2 or fine.shape[1] != dim:
        raise ValueError(f"fine is {fine.dtype} {tuple(fine.shape)}, expected int8 ('any', {dim}) beside fine_scales")
    if scales.dtype != torch.float32 or scales.shape != fine.shape[:1]:
        raise ValueError(f"fine_scales are {scales.dtype} {tuple(scales.shape)}, expected float32 ({len(fine)},)")


def _check_lengths(name: str, rows: Tensor, scales: Tensor | None = None) -> None:
    wrong = wrong_lengths(rows, scales)
    if len(wrong):
        first = int(wrong[0])
        length = float(rows[first].float().norm() * (1 if scales is None else scales[first]))
        raise ValueError(f"{name} row {first} has length {length:.6g}; rows must be finite and of unit length")


def wrong_lengths(rows: Tensor, scales: Tensor | None = None) -> Tensor:
    """[M] int64: which of the rows [T, D] are not of unit length within the rounding of their type, NaN among them.

    Args:
        rows: float, or int8 with ``scales``.
        scales: [T] fp32, see `quantise_rows`.
    """
    if rows.numel() == 0:
        return torch.zeros(0, dtype=torch.int64)
    if scales is None:
        norms = torch.linalg.vector_norm(rows, dim=1, dtype=torch.promote_types(rows.dtype, torch.float32))
        tolerance: Tensor | float = LENGTH_TOLERANCE[rows.dtype]
    else:
        norms = torch.linalg.vector_norm(rows.float(), dim=1) * scales
        # Each of D numbers is off by half a step at most; they were of fp16 or better before.
        tolerance = scales * (rows.shape[1] ** 0.5 / 2) + LENGTH_TOLERANCE[torch.float16]
    # A NaN compares false, so it is caught as well.
    return (~((norms - 1).abs() <= tolerance)).nonzero()[:, 0]


def quantise_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [T, D] as int8 [T, D] and a scale each [T] fp32: a row is its whole numbers times its scale.

    The scale is the largest magnitude of the row over 127, and numbers are rounded to the nearest, so that each is off
    by half a scale at most. Cosines of CLIP's rows with class vectors are off by 2.5e-4 (rms).
    """
    values = rows.float()
    largest_T = values.abs().amax(dim=1) if values.numel() else values.new_zeros(len(values))
    # A row of zeros keeps a scale above 0; a smaller one than this would not be a normal number.
    scales_T = (largest_T / _INT8_MAX).clamp_min(torch.finfo(torch.float32).tiny)
    return (values / scales_T[:, None]).round_().clamp_(-_INT8_MAX, _INT8_MAX).to(torch.int8), scales_T


@dataclass(frozen=True, eq=False)
class FeatureBatch:
    """Features of N items of one embedding space; validated once, here.

    Item ``n`` owns rows ``offsets[n]:offsets[n+1]`` of ``fine``. Images of one size have the same count each, sentences
    do not and are never padded. A coarse-only batch has no fine rows at all.

    Attributes:
        ids: N names, unique within the batch.
        coarse: [N, D] unit rows, any float dtype.
        fine: [T, D] unit rows of the same dtype, or int8 with ``fine_scales``; T may be 0.
        offsets: [N + 1] int64, from 0 to T, never falling.
        space_key: architecture, tokenizer and weights that the vectors come from; only one space is scored together.
        coarse_clip: [N, D] unit rows or None: CLIP's own image vector where it differs from ``coarse`` (ResNet towers,
            whose attention pool TaI-DPT runs without the positional embedding).
        fine_scales: [T] fp32, if and only if ``fine`` is int8: a row is its whole numbers times its scale.
        check_fine: whether the lengths of fine rows are checked, which reads every number. False is for rows that were
            checked before: parts of another batch, or rows of a store, checked when written and under a checksum.
        check_coarse: the same for the other rows. False is for parts of another batch.

    Raises:
        ValueError: for shapes, dtypes, offsets or row lengths that do not fit.
    """

    ids: tuple[str, ...]
    coarse: Tensor
    fine: Tensor
    offsets: Tensor
    space_key: str
    coarse_clip: Tensor | None = None
    fine_scales: Tensor | None = None
    check_fine: InitVar[bool] = True
    check_coarse: InitVar[bool] = True

    def __post_init__(self, check_fine: bool, check_coarse: bool) -> None:
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("ids are not unique within the batch")
        if self.coarse.ndim != 2:
            raise ValueError(f"coarse has shape {tuple(self.coarse.shape)}, expected [N, D]")
        n, d = len(self.ids), self.coarse.shape[1]
        for name, rows in (("coarse", self.coarse), ("coarse_clip", self.coarse_clip)):
            if rows is not None:
                _check_shape(name, rows, (n, d))
                if check_coarse:
                    _check_lengths(name, rows)
        if self.fine_scales is None:
            _check_shape("fine", self.fine, (None, d))
        else:
            _check_quantised(self.fine, self.fine_scales, d)
        if check_fine:
            _check_lengths("fine", self.fine, self.fine_scales)
        if self.offsets.dtype != torch.int64 or self.offsets.shape != (n + 1,):
            raise ValueError(f"offsets are {self.offsets.dtype} {tuple(self.offsets.shape)}, expected int64 ({n + 1},)")
        if int(self.offsets[0]) != 0 or int(self.offsets[-1]) != self.fine.shape[0] or bool((self.counts < 0).any()):
            raise ValueError(f"offsets must rise from 0 to {self.fine.shape[0]}, the number of fine rows")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dim(self) -> int:
        """D, the size of the joint embedding."""
        return int(self.coarse.shape[1])

    @property
    def counts(self) -> Tensor:
        """[N] int64: fine rows per item."""
        return self.offsets[1:] - self.offsets[:-1]

    def __getitem__(self, items: slice) -> FeatureBatch:
        """Items of a slice with step 1, sharing memory with this batch."""
        start, stop, step = items.indices(len(self))
        if step != 1:
            raise ValueError("only slices with step 1 share memory; use select() for others")
        stop = max(start, stop)
        offsets = self.offsets[start : stop + 1]
        rows = slice(int(offsets[0]), int(offsets[-1]))
        return self._part(self.ids[start:stop], slice(start, stop), rows, offsets - offsets[0])

    def select(self, indices: Sequence[int]) -> FeatureBatch:
        """The items at ``indices`` in that order, copied."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        counts = self.counts[index]
        offsets = offsets_from_counts(counts)
        # Row t of the result lies (t - its item's new start) rows after that item's old start.
        shift = torch.repeat_interleave(self.offsets[:-1][index] - offsets[:-1], counts)
        rows = torch.arange(int(offsets[-1])) + shift
        return self._part(tuple(self.ids[i] for i in index.tolist()), index, rows, offsets)

    def _part(self, ids: tuple[str, ...], items: slice | Tensor, rows: slice | Tensor, offsets: Tensor) -> FeatureBatch:
        """Some of the items with their fine rows, all of them checked when this batch was made."""
        return replace(
            self,
            ids=ids,
            coarse=self.coarse[items],
            fine=self.fine[rows],
            offsets=offsets,
            coarse_clip=None if self.coarse_clip is None else self.coarse_clip[items],
            fine_scales=None if self.fine_scales is None else self.fine_scales[rows],
            check_fine=False,
            check_coarse=False,
        )

    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        non_blocking: bool = False,
    ) -> FeatureBatch:
        """The same batch with its rows on another device and in another float dtype.

        Offsets are int64 on the CPU, where the kernels read them without waiting for a GPU. Fine rows in int8 stay so,
        unless a dtype is given.

        Args:
            device: where to.
            dtype: of all rows.
            non_blocking: do not wait for copies from pinned memory to a GPU.
        """

        def moved(rows: Tensor) -> Tensor:
            return rows.to(device=device, dtype=dtype, non_blocking=non_blocking)

        fine, scales = self.fine, self.fine_scales
        if scales is not None:
            fine, scales = (x.to(device=device, non_blocking=non_blocking) for x in (fine, scales))
            if dtype is not None:
                fine, scales = fine.mul(scales[:, None]).to(dtype), None
        return replace(
            self,
            coarse=moved(self.coarse),
            fine=moved(fine) if scales is None else fine,
            offsets=self.offsets.cpu(),
            coarse_clip=None if self.coarse_clip is None else moved(self.coarse_clip),
            fine_scales=scales,
            check_fine=False,
            check_coarse=False,
        )

    def dequantised(self) -> FeatureBatch:
        """The same batch with fine rows of the dtype of ``coarse``; itself if they are no int8."""
        return self if self.fine_scales is None else self.to(dtype=self.coarse.dtype)

    @staticmethod
    def concatenate(batches: Sequence[FeatureBatch]) -> FeatureBatch:
        """One batch of all items in order.

        Raises:
            ValueError: for an empty sequence, or when only some batches carry ``coarse_clip`` or int8 rows.
            UserError: when the batches come from different spaces (names both).
        """
        if not batches:
            raise ValueError("nothing to concatenate")
        for other in batches[1:]:
            require_same_space(batches[0], other, "a batch", "another batch")
        return FeatureBatch(
            ids=tuple(i for b in batches for i in b.ids),
            coarse=torch.cat([b.coarse for b in batches]),
            fine=torch.cat([b.fine for b in batches]),
            offsets=offsets_from_counts(torch.cat([b.counts for b in batches])),
            space_key=batches[0].space_key,
            coarse_clip=_joined("coarse_clip", [b.coarse_clip for b in batches]),
            fine_scales=_joined("fine_scales", [b.fine_scales for b in batches]),
            check_fine=False,
            check_coarse=False,
        )


def _joined(name: str, parts: Sequence[Tensor | None]) -> Tensor | None:
    """What all batches carry in one tensor, None if none does."""
    carried = [part for part in parts if part is not None]
    if carried and len(carried) != len(parts):
        raise ValueError(f"only some of the batches carry {name}")
    return torch.cat(carried) if carried else None


def offsets_from_counts(counts: Tensor) -> Tensor:
    """[N + 1] int64 offsets of bags with ``counts`` [N] rows each."""
    return torch.cat([torch.zeros(1, dtype=torch.int64, device=counts.device), counts.to(torch.int64).cumsum(0)])
