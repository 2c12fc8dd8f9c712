"""Layers of image towers in int16 with exact sums, for CPUs that multiply neither bf16 nor more than 8 numbers at once.

A row (the channels of one pixel) is stored as int16 numbers of at most 4095 with one fp32 scale, so every pixel has 12
bits whatever the range of its neighbours; weights have a scale per output channel. With AVX2 alone the products are
made faster than those of fp32. Their sums are integers and thus the same in any order: what comes out does not
depend on threads or on who else is in the batch.

No sum overflows: the weights of a channel are scaled so that even rows of 4095 throughout stay within int32.

Shape legend: N images, H x W pixels, K input channels (C of a 3x3 convolution), O output channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tai_kernels.encoding.int16_library import LARGEST, LinearJob, PoolJob, WinogradJob, address, run, why_not

__all__ = ["CHANNEL_STEP", "Convolution", "Linear", "Rows", "mean_pool", "why_not"]

CHANNEL_STEP = 8
"""What numbers of channels must be multiples of."""

_PANEL = 16
_LARGEST_WEIGHT = 32767
_LARGEST_SUM = 2**31 - 1


class Rows(NamedTuple):
    """Numbers with a scale per row.

    Attributes:
        values: [..., K] int16, contiguous.
        scales: [...] fp32; a row is ``values * scale``.
    """

    values: Tensor
    scales: Tensor

    def floats(self) -> Tensor:
        """[..., K] fp32."""
        return self.values.float() * self.scales[..., None]


class Linear:
    """A linear map of rows, or a 1x1 convolution.

    Memory: the weights in int16.
    """

    def __init__(self, weight_OK: Tensor, bias_O: Tensor) -> None:
        """Weights in any float dtype, best in fp64.

        Raises:
            ValueError: for channels that are not multiples of eight.
        """
        self.outputs, self.inputs = weight_OK.shape
        _check_channels(self.inputs, self.outputs)
        self._weights, self._scales = packed_weights(weight_OK.double().T)
        self._bias = _padded_bias(bias_O)

    def __call__(self, rows: Rows, *, relu: bool = False, other: Rows | None = None) -> Rows:
        """[..., O] of [..., K]: the map, plus ``other``, and no less than 0 with ``relu``.

        Raises:
            ValueError: for rows of another shape, dtype or layout.
            MemoryError: when the workspace cannot be had.
        """
        out = _empty_rows(*rows.scales.shape, self.outputs)
        if other is not None:
            _check_rows(other, self.outputs)
            if other.scales.shape != rows.scales.shape:
                raise ValueError(f"there are {tuple(other.scales.shape)} rows to add to {tuple(rows.scales.shape)}")
        self._run(rows, relu, other=other, out=out)
        return out

    def floats(self, rows: Rows, *, relu: bool = False) -> Tensor:
        """The same in fp32; errors as above."""
        out = torch.empty(*rows.scales.shape, self.outputs)
        self._run(rows, relu, floats=out)
        return out

    def _run(
        self, rows: Rows, relu: bool, other: Rows | None = None, out: Rows | None = None, floats: Tensor | None = None
    ) -> None:
        _check_rows(rows, self.inputs)
        job = LinearJob(
            rows=address(rows.values),
            row_scales=address(rows.scales),
            weights=address(self._weights),
            column_scales=address(self._scales),
            bias=address(self._bias),
            other=address(other and other.values),
            other_scales=address(other and other.scales),
            out=address(out and out.values),
            out_scales=address(out and out.scales),
            out_floats=address(floats),
            count=rows.scales.numel(),
            depth=self.inputs,
            columns=self.outputs,
            relu=relu,
            threads=torch.get_num_threads(),
        )
        run(job)


class Convolution:
    """max(0, 3x3 convolution of stride 1 with a border of one zero), by Winograd's F(4x4, 3x3).

    Memory: the transformed weights in int16, four times the plain ones; in a call, per thread, some hundred KiB.
    """

    def __init__(self, points_36CO: Tensor, bias_O: Tensor) -> None:
        """The transformed filters in fp64.

        Raises:
            ValueError: for channels that are not multiples of eight.
        """
        _, self.inputs, self.outputs = points_36CO.shape
        _check_channels(self.inputs, self.outputs)
        self._weights, self._scales = packed_weights(points_36CO.double())
        self._bias = _padded_bias(bias_O)

    def __call__(self, images_NHWC: Tensor, *, pool: int = 1) -> Rows:
        """[N, H / pool, W / pool, O]: the means of ``pool`` x ``pool`` pixels of the result.

        Raises:
            ValueError: for another shape, dtype or layout, or a pool other than 1 or 2 or that does not divide H and W.
            MemoryError: when the workspace cannot be had.
        """
        images, height, width = images_NHWC.shape[:3]
        if pool not in (1, 2) or height % pool or width % pool:
            raise ValueError(f"a pool of {pool} does not fit {height} x {width} pixels")
        out = _empty_rows(images, height // pool, width // pool, self.outputs)
        self._run(images_NHWC, pool, out=out)
        return out

    def floats(self, images_NHWC: Tensor) -> Tensor:
        """[N, H, W, O] in fp32; errors as above."""
        out = torch.empty(*images_NHWC.shape[:3], self.outputs)
        self._run(images_NHWC, 1, floats=out)
        return out

    def _run(self, images_NHWC: Tensor, pool: int, out: Rows | None = None, floats: Tensor | None = None) -> None:
        if images_NHWC.ndim != 4 or images_NHWC.shape[3] != self.inputs:
            raise ValueError(f"images are {tuple(images_NHWC.shape)}, expected (N, H, W, {self.inputs})")
        _check_layout(images_NHWC, torch.float32)
        images, height, width, channels = images_NHWC.shape
        job = WinogradJob(
            images=address(images_NHWC),
            weights=address(self._weights),
            column_scales=address(self._scales),
            bias=address(self._bias),
            out=address(out and out.values),
            out_scales=address(out and out.scales),
            out_floats=address(floats),
            image_count=images,
            height=height,
            width=width,
            channels=channels,
            out_channels=self.outputs,
            pool=pool,
            threads=torch.get_num_threads(),
        )
        run(job)


def mean_pool(rows_NHWK: Rows, factor: int) -> Rows:
    """[N, H / factor, W / factor, K]: the means of ``factor`` x ``factor`` pixels.

    Raises:
        ValueError: for a factor that does not divide H and W, or another shape, dtype or layout.
        MemoryError: when the workspace cannot be had.
    """
    values, scales = rows_NHWK
    if values.ndim != 4 or factor < 1 or values.shape[1] % factor or values.shape[2] % factor:
        raise ValueError(f"means of {factor} x {factor} pixels do not fit rows of {tuple(values.shape)}")
    images, height, width, channels = values.shape
    _check_rows(rows_NHWK, channels)
    _check_channels(channels)
    out = _empty_rows(images, height // factor, width // factor, channels)
    job = PoolJob(
        rows=address(values),
        row_scales=address(scales),
        out=address(out.values),
        out_scales=address(out.scales),
        lines=images * (height // factor),
        width=width,
        channels=channels,
        pool=factor,
        threads=torch.get_num_threads(),
    )
    run(job)
    return out


def packed_weights(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [(P,) K, O] in fp64 as the library reads them, with a scale for every column.

    Returns:
        int16 [panels, (P,) K / 2, 16, 2] and fp32 [panels, (P,) 16]; columns that fill up the last panel are 0.
    """
    *points, depth, outputs = weight.shape
    weight = F.pad(weight, (0, -outputs % _PANEL))
    # The budget of a column's magnitudes, of which rounding takes up to a half each.
    budget = _LARGEST_SUM / LARGEST - depth / 2
    magnitude = weight.abs()
    scale = torch.maximum(magnitude.amax(-2) / _LARGEST_WEIGHT, magnitude.sum(-2) / budget).clamp_min(1e-30)
    whole = (weight / scale.unsqueeze(-2)).round().to(torch.int16)
    panels = whole.unflatten(-1, (-1, _PANEL)).unflatten(-3, (-1, 2))  # [(P,) K / 2, 2, panels, 16]
    panels = panels.movedim(-2, 0).transpose(-1, -2)
    return panels.contiguous(), scale.float().view(*points, -1, _PANEL).movedim(-2, 0).contiguous()


def _padded_bias(bias_O: Tensor) -> Tensor:
    return F.pad(bias_O.float(), (0, -len(bias_O) % _PANEL)).contiguous()


def _empty_rows(*shape: int) -> Rows:
    return Rows(torch.empty(shape, dtype=torch.int16), torch.empty(shape[:-1]))


def _check_channels(*channels: int) -> None:
    for count in channels:
        if count < 1 or count % CHANNEL_STEP:
            raise ValueError(f"there are {count} channels, expected a multiple of {CHANNEL_STEP}")


def _check_rows(rows: Rows, channels: int) -> None:
    values, scales = rows
    if values.shape != (*scales.shape, channels):
        raise ValueError(
            f"rows are {tuple(values.shape)} with scales {tuple(scales.shape)}, expected {channels} channels"
        )
    _check_layout(values, torch.int16)
    _check_layout(scales, torch.float32)


def _check_layout(tensor: Tensor, dtype: torch.dtype) -> None:
    if tensor.dtype != dtype or tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise ValueError(f"a tensor is {tensor.dtype} on {tensor.device}, expected contiguous {dtype} on the CPU")
