"""A CLIP ResNet that computes the same vectors in less time.

Batch norms are folded into the convolutions before them, ReLUs and the residual sums are done in the convolution's own
pass where oneDNN can, and the attention pool multiplies only what is read of it.

Shape legend: N images, S pixels a side, C channels, L patches (tokens T = 1 + L, the mean token first), E width of the
pool, A its heads, D embedding size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import AttentionPool2d, Bottleneck, ModifiedResNet
from torch import Tensor, nn

from tai_engine.encoders.dense import ImageVectors
from tai_engine.encoders.fast.winograd import convolve_relu, transform_filters

_PACKED_FOR = 32
"""Images, of which oneDNN chooses the order of the weights; other numbers work as well."""
_FEWEST_WINOGRAD_CHANNELS = 128


class Place(NamedTuple):
    """What a convolution works on: in which precision, where, and how many pixels a side."""

    dtype: torch.dtype
    device: torch.device
    side: int

    def smaller(self, factor: int) -> Place:
        """The same where a side has been divided."""
        return self._replace(side=self.side // factor)


class FoldedResNet:
    """A ``ModifiedResNet`` frozen for inference; it keeps no reference to the tower that it was made of.

    Memory: the folded weights in ``dtype``, beside those of the tower.
    """

    def __init__(
        self,
        visual: ModifiedResNet,
        image_size: int,
        dtype: torch.dtype,
        device: torch.device,
        wants_fine: bool = True,
        without_position: bool = True,
    ) -> None:
        """The arguments are those of ``dense.modified_resnet_vectors``; pictures are ``image_size`` pixels a side."""
        self._dtype, self._device = dtype, device
        place = Place(dtype, device, image_size)
        self._stem = [FoldedConvolution(visual.conv1, visual.bn1, place)]
        place = place.smaller(2)
        self._stem += [
            FoldedConvolution(visual.conv2, visual.bn2, place),
            FoldedConvolution(visual.conv3, visual.bn3, place),
        ]
        place = place.smaller(2)
        self._blocks = []
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            for block in layer:
                self._blocks.append(_Block(block, place))
                place = place.smaller(int(block.stride))
        self._pool = FoldedPool(visual.attnpool, dtype, device, wants_fine, without_position)

    def __call__(self, pixels_NCSS: Tensor) -> ImageVectors:
        """Vectors of normalised pictures [N, 3, S, S], in ``dtype`` on the device and not of unit length."""
        x = pixels_NCSS.to(self._device, self._dtype).contiguous(memory_format=torch.channels_last)
        for conv in self._stem:
            x = conv.relu(x)
        x = F.avg_pool2d(x, 2)
        for block in self._blocks:
            x = block(x)
        return self._pool(x.flatten(2).transpose(1, 2))


class _Block:
    """A bottleneck: 1×1, 3×3, 1×1, and the sum with its input."""

    def __init__(self, block: Bottleneck, place: Place) -> None:
        self._stride = int(block.stride)
        self._conv1 = FoldedConvolution(block.conv1, block.bn1, place)
        kind = WinogradConvolution if winograd_pays(block.conv2, place) else FoldedConvolution
        self._conv2 = kind(block.conv2, block.bn2, place)
        self._conv3 = FoldedConvolution(block.conv3, block.bn3, place.smaller(self._stride))
        self._downsample: FoldedConvolution | None = None
        if block.downsample is not None:
            _, conv, norm = block.downsample
            self._downsample = FoldedConvolution(conv, norm, place.smaller(self._stride))

    def __call__(self, x: Tensor) -> Tensor:
        y = self._conv2.relu(self._conv1.relu(x))
        if self._stride > 1:
            x, y = F.avg_pool2d(x, self._stride), F.avg_pool2d(y, self._stride)
        if self._downsample is not None:
            x = self._downsample(x)
        return self._conv3.add_relu(y, x)


class FoldedConvolution:
    """A convolution with the batch norm after it folded in, which is exact but for rounding."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, place: Place) -> None:
        weight, bias = fold_batch_norm(conv, norm)
        self._weight = weight.to(place.device, place.dtype).contiguous(memory_format=torch.channels_last)
        self._bias = bias.to(place.device, place.dtype)
        self._geometry: tuple[Any, ...] = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self._is_packed = can_pack(place.dtype, place.device)
        if self._is_packed:  # reordered once for the vector units, not in every call
            shape = [_PACKED_FOR, conv.in_channels, place.side, place.side]
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(self._weight, *self._geometry, shape)

    def __call__(self, x: Tensor) -> Tensor:
        """[N, O, H, W] of [N, C, H, W], channels last in memory."""
        return self._pointwise(x, "none") if self._is_packed else self._plain(x)

    def relu(self, x: Tensor) -> Tensor:
        """max(0, convolution)."""
        return self._pointwise(x, "relu") if self._is_packed else self._plain(x).relu_()

    def add_relu(self, x: Tensor, other: Tensor) -> Tensor:
        """max(0, convolution + other); ``other`` is overwritten."""
        if not self._is_packed:
            return other.add_(self._plain(x)).relu_()
        operation = torch.ops.mkldnn._convolution_pointwise_.binary
        result: Tensor = operation(other, x, self._weight, self._bias, *self._geometry, "add", 1.0, "relu", [], "")
        return result

    def _plain(self, x: Tensor) -> Tensor:
        padding, stride, dilation, groups = self._geometry
        return F.conv2d(x, self._weight, self._bias, stride, padding, dilation, groups)

    def _pointwise(self, x: Tensor, activation: str) -> Tensor:
        operation = torch.ops.mkldnn._convolution_pointwise
        result: Tensor = operation(x, self._weight, self._bias, *self._geometry, activation, [], "")
        return result


class WinogradConvolution:
    """The same for 3×3 convolutions of stride 1, with fewer multiplications."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, place: Place) -> None:
        weight, bias = fold_batch_norm(conv, norm)
        self._filters = transform_filters(weight).to(place.device, place.dtype)
        self._bias = bias.to(place.device, place.dtype)

    def relu(self, x: Tensor) -> Tensor:
        """max(0, convolution)."""
        return convolve_relu(x, self._filters, self._bias)


def winograd_pays(conv: nn.Conv2d, place: Place) -> bool:
    """On CPUs with 8 fp32 lanes (AVX2), measured; with 16 lanes or bf16 products the passes over memory cost more."""
    return (
        place.device.type == "cpu"
        and place.dtype == torch.float32
        and torch.backends.cpu.get_cpu_capability() == "AVX2"
        and min(conv.in_channels, conv.out_channels) >= _FEWEST_WINOGRAD_CHANNELS
        and (conv.kernel_size, conv.stride, conv.padding, conv.groups) == ((3, 3), (1, 1), (1, 1), 1)
    )


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias in fp64 of the one convolution that equals ``norm(conv(x))`` in evaluation mode.

    y = (Wx + b - mean) · g / sqrt(var + eps) + beta, so each output channel is scaled and shifted.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance, gain, shift = (
        t.detach().cpu().double() for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    weight = conv.weight.detach().cpu().double()
    bias = torch.zeros_like(mean) if conv.bias is None else conv.bias.detach().cpu().double()
    scale = gain / (variance + norm.eps).sqrt()
    return weight * scale[:, None, None, None], shift + (bias - mean) * scale


def can_pack(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether oneDNN takes reordered weights and fused activations in ``dtype`` here."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available() or not hasattr(torch.ops, "mkldnn"):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


class FoldedPool:
    """The attention pool with one query, its linear maps multiplied together in advance where nothing is between them.

    Only the mean token asks, so keys need not be made: q·(Kx) = (qK)·x, one vector a head against all tokens as they
    are. Nor do values: the weighted mean of values is the value of the weighted mean. For the patches the value and
    output projections are one matrix. That is a fifth of the pool's products.

    Attributes:
        fine_map: weight [D, E] and bias [D] that make patch vectors of locations, or None if they are not wanted.
    """

    def __init__(
        self, pool: AttentionPool2d, dtype: torch.dtype, device: torch.device, wants_fine: bool, without_position: bool
    ) -> None:
        def kept(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype).contiguous()

        weights = {name: tensor.detach().cpu().double() for name, tensor in pool.state_dict().items()}
        (query, key, value, output), (query_bias, value_bias, output_bias) = (
            [weights[f"{name}_proj.{kind}"] for name in names] for kind, names in (("weight", "qkvc"), ("bias", "qvc"))
        )
        heads = pool.num_heads
        scale = (len(query) / heads) ** -0.5
        self._query = kept(query * scale), kept(query_bias * scale)
        self._key = kept(key.unflatten(0, (heads, -1)))  # its bias is the same for all tokens: the softmax drops it
        self._value = kept(value.unflatten(0, (heads, -1)).transpose(1, 2)), kept(value_bias)
        self._output = kept(output), kept(output_bias)
        self._position = kept(weights["positional_embedding"])
        self.fine_map: tuple[Tensor, Tensor] | None = None
        if wants_fine:
            self.fine_map = kept(output @ value), kept(output @ value_bias + output_bias)
        self._without_position = without_position

    def __call__(self, x_NLE: Tensor) -> ImageVectors:
        """Vectors of the trunk's locations."""
        vectors = self.coarse_vectors(x_NLE)
        return vectors if self.fine_map is None else vectors._replace(fine=F.linear(x_NLE, *self.fine_map))

    def coarse_vectors(self, x_NLE: Tensor) -> ImageVectors:
        """The same without the patches."""
        x_NTE = torch.cat([x_NLE.mean(dim=1, keepdim=True), x_NLE], dim=1)
        clip = self._pooled(x_NTE + self._position)
        return (
            ImageVectors(self._pooled(x_NTE), None, clip) if self._without_position else ImageVectors(clip, None, None)
        )

    def _pooled(self, x_NTE: Tensor) -> Tensor:
        """[N, D] of the first token's attention to all."""
        heads = len(self._key)
        query_ANH = F.linear(x_NTE[:, 0], *self._query).unflatten(1, (heads, -1)).transpose(0, 1)
        asked_NAE = (query_ANH @ self._key).transpose(0, 1)
        weights_NAT = (asked_NAE @ x_NTE.transpose(1, 2)).softmax(dim=-1)
        mean_ANE = (weights_NAT @ x_NTE).transpose(0, 1)
        weight, bias = self._value
        mixed_NE = (mean_ANE @ weight).transpose(0, 1).flatten(1) + bias
        return F.linear(mixed_NE, *self._output)
