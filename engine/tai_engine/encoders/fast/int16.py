"""A CLIP ResNet in int16 rows: the layers of ``tai_kernels.int16_layers`` in the order of the tower.

The first convolution (three channels) and the coarse vectors stay in fp32. Pictures go through the early layers a few
at a time, so that what passes between two layers stays in the last-level cache, and through the later ones together,
because their weights are larger than what passes.

Shape legend: N images, S pixels a side, C channels, L patches, E width of the pool, D embedding size.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.modified_resnet import Bottleneck, ModifiedResNet
from torch import Tensor, nn

from tai_engine.encoders.dense import ImageVectors
from tai_engine.encoders.fast.resnet import FoldedConvolution, FoldedPool, Place, fold_batch_norm
from tai_engine.encoders.fast.winograd import transform_filters
from tai_kernels.encoding import int16_layers
from tai_kernels.encoding.int16_layers import Linear, Rows, mean_pool

_EARLY_IMAGES = 4
"""At a time, measured with 32 MiB of last-level cache."""
_EARLY_STAGES = 2
_FEWEST_CHANNELS = 16
"""Of the narrowest layer: with 8, as in the embedded model, fp32 was measured to be faster; with 16, int16."""


class Int16ResNet:
    """A ``ModifiedResNet`` frozen for inference on a CPU; it keeps no reference to the tower that it was made of.

    Memory: the folded weights in int16, those of 3x3 convolutions fourfold; in a call the activations of four
    pictures in the early layers (5 MB each of 224 pixels), and those of all in the later ones (2.5 MB each).
    """

    def __init__(
        self, visual: ModifiedResNet, image_size: int, wants_fine: bool = True, without_position: bool = True
    ) -> None:
        """The arguments are those of ``fast_resnet.FoldedResNet``.

        Raises:
            ValueError: where `why_not` has a reason.
        """
        reason = why_not(visual, image_size)
        if reason is not None:
            raise ValueError(reason)
        cpu = torch.device("cpu")
        self._stem = FoldedConvolution(visual.conv1, visual.bn1, Place(torch.float32, cpu, image_size))
        self._stem2, self._stem3 = _wide(visual.conv2, visual.bn2), _wide(visual.conv3, visual.bn3)
        stages = [[_Int16Block(block) for block in layer] for layer in _layers(visual)]
        self._early = [block for stage in stages[:_EARLY_STAGES] for block in stage]
        self._late = [block for stage in stages[_EARLY_STAGES:] for block in stage]
        self._pool = FoldedPool(visual.attnpool, torch.float32, cpu, wants_fine, without_position)
        self._fine = None if self._pool.fine_map is None else Linear(*self._pool.fine_map)

    def __call__(self, pixels_NCSS: Tensor) -> ImageVectors:
        """Vectors of normalised pictures [N, 3, S, S], in fp32 and not of unit length."""
        parts = [self._early_rows(part) for part in pixels_NCSS.float().split(_EARLY_IMAGES)]
        rows = Rows(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        for block in self._late:
            rows = block(rows)
        rows = Rows(rows.values.flatten(1, 2), rows.scales.flatten(1))
        vectors = self._pool.coarse_vectors(rows.floats())
        return vectors if self._fine is None else vectors._replace(fine=self._fine.floats(rows))

    def _early_rows(self, pixels_NCSS: Tensor) -> Rows:
        x = self._stem.relu(pixels_NCSS.contiguous(memory_format=torch.channels_last))
        # A batch of one is contiguous in two ways, of which torch may choose the other.
        rows = self._stem3(self._stem2.floats(x.permute(0, 2, 3, 1).contiguous()), pool=2)
        for block in self._early:
            rows = block(rows)
        return rows


class _Int16Block:
    """A bottleneck: 1x1, 3x3, 1x1, and the sum with its input."""

    def __init__(self, block: Bottleneck) -> None:
        self._stride = _stride(block)
        self._conv1 = _pointwise(block.conv1, block.bn1)
        self._conv2 = _wide(block.conv2, block.bn2)
        self._conv3 = _pointwise(block.conv3, block.bn3)
        self._downsample: Linear | None = None
        if block.downsample is not None:
            _, conv, norm = block.downsample
            self._downsample = _pointwise(conv, norm)

    def __call__(self, x: Rows) -> Rows:
        y = self._conv2(self._conv1.floats(x, relu=True), pool=self._stride)
        if self._stride > 1:
            x = mean_pool(x, self._stride)
        if self._downsample is not None:
            x = self._downsample(x)
        return self._conv3(y, relu=True, other=x)


def why_not(visual: ModifiedResNet, image_size: int) -> str | None:
    """Why a tower cannot be computed in int16 on this machine, or None when it can."""
    halvings = 2 + sum(_stride(block) > 1 for layer in _layers(visual) for block in layer)
    if image_size % 2**halvings:
        return f"{image_size} pixels cannot be halved {halvings} times"
    channels = [module.out_channels for module in visual.modules() if isinstance(module, nn.Conv2d)]
    if min(channels) < _FEWEST_CHANNELS:
        return f"a layer of {min(channels)} channels is faster in fp32"
    step = int16_layers.CHANNEL_STEP
    if any(count % step for count in channels):
        return f"a layer's channels are not a multiple of {step}"
    return int16_layers.why_not()


def _layers(visual: ModifiedResNet) -> tuple[nn.Sequential, ...]:
    return visual.layer1, visual.layer2, visual.layer3, visual.layer4


def _stride(block: Any) -> int:
    return int(block.stride)


def _pointwise(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Linear:
    weight, bias = fold_batch_norm(conv, norm)
    return Linear(weight.flatten(1), bias)


def _wide(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> int16_layers.Convolution:
    weight, bias = fold_batch_norm(conv, norm)
    return int16_layers.Convolution(transform_filters(weight), bias)
