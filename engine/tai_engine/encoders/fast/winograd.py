"""3×3 convolutions in a quarter of the multiplications: Winograd's F(4×4, 3×3) (Lavin and Gray, arXiv 1509.09308).

Four by four outputs of a tile need 36 products a channel in place of 144. The sums before and after pass over memory
several times, so it pays where there are many channels and multiplying is slow.

Shape legend: N images, C input channels, O output channels, H × W pixels, R × S tiles of them, K = 6 points a side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

OUTPUTS = 4
POINTS = 6
_FILTER_TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
# Of a tile's inputs at all points: what stays in the last-level cache between the passes.
_BLOCK_BYTES = 8 << 20


def transform_filters(weight_OC33: Tensor) -> Tensor:
    """[36, C, O] in the dtype of ``weight_OC33``, for `convolve_relu`."""
    transform = torch.tensor(_FILTER_TRANSFORM, dtype=weight_OC33.dtype, device=weight_OC33.device)
    outputs, channels = weight_OC33.shape[:2]
    rows = (transform @ weight_OC33.permute(2, 3, 1, 0).reshape(3, -1)).view(POINTS, 3, -1)
    points = (transform @ rows.transpose(0, 1).reshape(3, -1)).view(POINTS, POINTS, channels, outputs)
    return points.transpose(0, 1).flatten(0, 1).contiguous()


def convolve_relu(x_NCHW: Tensor, filters_36CO: Tensor, bias_O: Tensor) -> Tensor:
    """max(0, convolution + bias) with stride 1 and a border of one zero: [N, O, H, W], channels last in memory.

    Memory: the output and about 16 MiB, more only for one image whose own transform exceeds that.
    """
    images, channels, height, width = x_NCHW.shape
    tiles = -(-height // OUTPUTS) * -(-width // OUTPUTS)
    step = max(1, _BLOCK_BYTES // (POINTS**2 * tiles * channels * x_NCHW.element_size()))
    blocks = [_convolve_relu(x_NCHW[i : i + step], filters_36CO, bias_O) for i in range(0, max(images, 1), step)]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def _convolve_relu(x_NCHW: Tensor, filters_36CO: Tensor, bias_O: Tensor) -> Tensor:
    n, c, height, width = x_NCHW.shape
    o = filters_36CO.shape[2]
    r, s = -(-height // OUTPUTS), -(-width // OUTPUTS)
    padded = x_NCHW.new_zeros(n, OUTPUTS * r + 2, OUTPUTS * s + 2, c)
    padded[:, 1 : height + 1, 1 : width + 1] = x_NCHW.permute(0, 2, 3, 1)
    # Tiles overlap by two: point k of all tiles is every fourth row from k on.
    rows = x_NCHW.new_empty(POINTS, n, r, OUTPUTS * s + 2, c)
    _transform_inputs([padded[:, k : k + OUTPUTS * r - 3 : OUTPUTS] for k in range(POINTS)], rows.unbind(0))
    points = x_NCHW.new_empty(POINTS, POINTS, n, r, s, c)
    _transform_inputs([rows[:, :, :, k : k + OUTPUTS * s - 3 : OUTPUTS] for k in range(POINTS)], points.unbind(1))
    products = torch.bmm(points.view(POINTS**2, n * r * s, c), filters_36CO).view(POINTS, POINTS, n, r, s, o)
    products[1, 1] += bias_O  # this point goes into every output once
    columns = x_NCHW.new_empty(OUTPUTS, POINTS, n, r, s, o)
    _transform_outputs(products.unbind(0), columns.unbind(0))
    result = x_NCHW.new_empty(n, r, OUTPUTS, s, OUTPUTS, o)
    _transform_outputs(columns.permute(1, 2, 3, 0, 4, 5).unbind(0), result.unbind(4))
    result = result.view(n, OUTPUTS * r, OUTPUTS * s, o)[:, :height, :width].permute(0, 3, 1, 2)
    return result.relu_() if height == OUTPUTS * r and width == OUTPUTS * s else result.relu()


def _transform_inputs(inputs: Sequence[Tensor], points: Sequence[Tensor]) -> None:
    """Six inputs to six points, written into ``points``."""
    d0, d1, d2, d3, d4, d5 = inputs
    torch.add(d4, d0, alpha=4, out=points[0])
    points[0].sub_(d2, alpha=5)
    torch.add(d5, d1, alpha=4, out=points[5])
    points[5].sub_(d3, alpha=5)
    even, odd = torch.sub(d4, d2, alpha=4), torch.sub(d3, d1, alpha=4)
    torch.add(even, odd, out=points[1])
    torch.sub(even, odd, out=points[2])
    torch.sub(d4, d2, out=even)
    torch.sub(d3, d1, out=odd)
    torch.add(even, odd, alpha=2, out=points[3])
    torch.sub(even, odd, alpha=2, out=points[4])


def _transform_outputs(points: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Six points to four outputs, written into ``outputs``."""
    m0, m1, m2, m3, m4, m5 = points
    even, odd, even2, odd2 = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    torch.add(even, even2, out=outputs[0])
    outputs[0].add_(m0)
    torch.add(odd, odd2, alpha=2, out=outputs[1])
    torch.add(even, even2, alpha=4, out=outputs[2])
    torch.add(odd, odd2, alpha=8, out=outputs[3])
    outputs[3].add_(m5)
