"""A convolutional timm tower that computes the same vectors in less time.

Every batch norm that reads nothing but a convolution's output is folded into that convolution; where oneDNN can, its
ReLU or ReLU6 is done in the convolution's own pass and the weights are reordered once. Which norm reads which
convolution is seen by one blank picture, not guessed from names, so it holds for any of timm's architectures.

Shape legend: N images, S pixels a side, C channels.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn

from tai_engine.encoders.dense import ImageVectors
from tai_engine.encoders.fast.resnet import can_pack, fold_batch_norm
from tai_engine.encoders.timm_dense import timm_vectors

_PACKED_FOR = 32
"""Images, of which oneDNN chooses the order of the weights; other numbers work as well."""
_FUSED: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.Identity: ("none", []),
}


class FoldedTimm:
    """A timm tower frozen for inference; the tower that it was made of stays as it is.

    Memory: the weights in ``dtype``, beside those of the tower.
    """

    def __init__(
        self, visual: TimmModel, image_size: int, dtype: torch.dtype, device: torch.device, wants_fine: bool = True
    ) -> None:
        """Pictures are ``image_size`` pixels a side; without ``wants_fine`` they get coarse vectors alone."""
        tower = copy.deepcopy(visual).eval().requires_grad_(False).to(device)
        for pair in _folding_pairs(tower, image_size, device):
            _replace(tower, pair.norm, _fold(tower, pair, dtype, device))
        self._tower = tower.to(dtype).to(memory_format=torch.channels_last)
        self._dtype, self._device, self._wants_fine = dtype, device, wants_fine

    def __call__(self, pixels_NCSS: Tensor) -> ImageVectors:
        """Vectors of normalised pictures [N, 3, S, S], in ``dtype`` on the device and not of unit length."""
        pixels = pixels_NCSS.to(self._device, self._dtype).contiguous(memory_format=torch.channels_last)
        if not self._wants_fine:
            return ImageVectors(self._tower(pixels), None, None)
        return ImageVectors(*timm_vectors(self._tower, pixels), None)


class _Pair(NamedTuple):
    """A convolution, the norm that alone reads what it gives, and the convolution's input [1, C, H, W]."""

    conv: str
    norm: str
    shape: list[int]


def _folding_pairs(tower: nn.Module, image_size: int, device: torch.device) -> list[_Pair]:
    """Convolutions and norms by name, as one blank picture runs through them."""
    made: dict[int, tuple[str, Tensor, list[int]]] = {}
    pairs: list[_Pair] = []

    def after_conv(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            made[id(output)] = (name, output, list(inputs[0].shape))  # the output is held, so its id stays its own

        return hook

    def before_norm(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found = made.pop(id(inputs[0]), None)
            if found is not None:
                pairs.append(_Pair(found[0], name, found[2]))

        return hook

    handles = []
    for name, module in tower.named_modules():
        if type(module) in (nn.Conv2d, Conv2dSame):
            handles.append(module.register_forward_hook(after_conv(name)))
        elif isinstance(module, nn.BatchNorm2d) and module.track_running_stats and module.affine:
            handles.append(module.register_forward_pre_hook(before_norm(name)))
    try:
        with torch.no_grad():
            tower(torch.zeros(1, 3, image_size, image_size, device=device))
    finally:
        for handle in handles:
            handle.remove()
    # A convolution that runs twice, before two norms, can take in neither.
    convs, norms = [pair.conv for pair in pairs], [pair.norm for pair in pairs]
    return [pair for pair in pairs if convs.count(pair.conv) == 1 and norms.count(pair.norm) == 1]


def _fold(tower: nn.Module, pair: _Pair, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Put the norm into the convolution; what stays at the norm's place."""
    conv, norm = tower.get_submodule(pair.conv), tower.get_submodule(pair.norm)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    activation = getattr(norm, "act", nn.Identity())
    weight, bias = fold_batch_norm(conv, norm)
    fused = _FUSED.get(type(activation)) if can_pack(dtype, device) else None
    name, numbers = fused or ("none", [])
    _replace(tower, pair.conv, _Convolution(conv, weight, bias, pair.shape, name, numbers, dtype, device))
    return nn.Identity() if fused else activation


def _replace(tower: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(tower.get_submodule(parent), child, module)


class _Convolution(nn.Module):
    """A convolution with other weights and, where they are packed, an activation in the same pass."""

    def __init__(
        self,
        conv: nn.Conv2d,
        weight: Tensor,
        bias: Tensor,
        shape: list[int],
        activation: str,
        numbers: list[float],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        self._pads_same, self._kernel = isinstance(conv, Conv2dSame), conv.kernel_size
        padding = [0, 0] if self._pads_same else _padding(conv)
        self._geometry: tuple[Any, ...] = (padding, list(conv.stride), list(conv.dilation), conv.groups)
        self._activation, self._numbers = activation, numbers
        self._weight = weight.to(device, dtype).contiguous(memory_format=torch.channels_last)
        self._bias = bias.to(device, dtype)
        self._is_packed = can_pack(dtype, device)
        if self._is_packed:
            packed_for = [_PACKED_FOR, *shape[1:]]
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(self._weight, *self._geometry, packed_for)

    def forward(self, x: Tensor) -> Tensor:
        """[N, O, H, W] of [N, C, H, W], channels last in memory."""
        padding, stride, dilation, groups = self._geometry
        if self._pads_same:
            x = pad_same(x, self._kernel, stride, dilation)
        if not self._is_packed:
            return F.conv2d(x, self._weight, self._bias, stride, padding, dilation, groups)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._weight, self._bias, *self._geometry, self._activation, self._numbers, ""
        )
        return result


def _padding(conv: nn.Conv2d) -> list[int]:
    """In pixels, also where it is given in a word."""
    if conv.padding == "valid":
        return [0, 0]
    if conv.padding == "same":
        return [step * (side - 1) // 2 for side, step in zip(conv.kernel_size, conv.dilation, strict=True)]
    assert not isinstance(conv.padding, str)
    return list(conv.padding)
