"""Pictures encoded fast: the image tower rewritten for the device, and held against the exact one before it is used.

What is done for which tower:

- a CLIP ResNet: batch norms folded into the convolutions, activations fused, fewer products in the attention pool; on
  CPUs with AVX2 alone its layers in int16;
- CLIP's own ViT: the last block computed once for the class token and the patches;
- timm's convolutional towers: batch norms folded, ReLUs fused; every convolutional tower: channels last in memory;
- any other tower: the precision alone.

torch.compile is not used: the fused convolutions of oneDNN are what it would choose, without its half minute, and the
same bits come out whether a run encodes ten pictures or a million.

Shape legend: N images, S pixels a side, L patches, D embedding size.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from tai_engine.encoders.dense import (
    ImageRecipe,
    ImageVectors,
    class_token_vectors,
    image_recipe,
    no_dense_recipe,
)
from tai_engine.encoders.devices import INT16, PRECISIONS
from tai_engine.encoders.fast.int16 import Int16ResNet
from tai_engine.encoders.fast.int16 import why_not as why_not_int16
from tai_engine.encoders.fast.resnet import FoldedResNet
from tai_engine.encoders.fast.timm import FoldedTimm
from tai_engine.encoders.fast.transformer import SharedLastBlock
from tai_engine.encoders.timm_dense import timm_vectors
from tai_engine.encoders.timm_tokens import has_class_token
from tai_engine.errors import reason_of

logger = logging.getLogger(__name__)

LEAST_COSINE = 0.999
"""Of fast to exact features, the lowest of all rows."""

_GATE_PICTURES = 3

Compute = Callable[[Tensor], ImageVectors]


class FastTower(NamedTuple):
    """A tower that passed the comparison.

    Attributes:
        compute: pixels [N, 3, S, S], normalised, to vectors.
        precision: in which it computes, by name.
    """

    compute: Compute
    precision: str


def fast_tower(
    exact: ImageRecipe, visual: Any, image_size: int, precision: str, device: torch.device
) -> FastTower | None:
    """The fast way to compute the recipe's vectors, or None where none is right or possible, which is logged.

    Args:
        exact: the recipe of ``visual``.
        visual: open_clip's image tower in fp32 on ``device``; it stays as it is.
        image_size: S.
        precision: of the fast tower: a name of ``devices.PRECISIONS``, or ``int16`` for int16 where the tower can be
            computed so, and fp32 elsewhere.
        device: where it computes.
    """
    names = _precisions(visual, image_size, precision)
    for name in names:
        # A tower that is too delicate for few bits is no fault while fp32 is still to be tried.
        level = logging.WARNING if name == names[-1] else logging.INFO
        try:
            fast = rewritten(exact, visual, image_size, name, device)
            cosine = lowest_cosine(_one_by_one(exact.compute), fast, gate_pictures(image_size).to(device))
        except Exception as error:  # another torch, an unusual tower, no memory: the exact way is always there
            message = "pictures are encoded without the fast tower in %s, which failed here (%s)"
            logger.warning(message, name, reason_of(error))
            continue
        if cosine >= LEAST_COSINE:
            logger.info("the cosine of fast features in %s to exact ones is %.7f or above", name, cosine)
            return FastTower(fast, name)
        logger.log(
            level,
            "pictures are encoded without the fast tower in %s: its features have a cosine of %.4f to the exact ones, "
            "not %s",
            name,
            cosine,
            LEAST_COSINE,
        )
    return None


def _precisions(visual: Any, image_size: int, precision: str) -> tuple[str, ...]:
    """What to try, one after the other; the last one is fp32, which no tower is too delicate for."""
    if precision != INT16:
        return (precision,) if precision == "fp32" else (precision, "fp32")
    if not isinstance(visual, ModifiedResNet):
        return ("fp32",)
    reason = why_not_int16(visual, image_size)
    if reason is None:
        return INT16, "fp32"
    logger.info("pictures are encoded in fp32, not in int16: %s", reason)
    return ("fp32",)


def rewritten(exact: ImageRecipe, visual: Any, image_size: int, precision: str, device: torch.device) -> Compute:
    """The recipe's computation by the fast tower; not yet compared. Arguments as of `fast_tower`."""
    wants_fine, without_position = exact.rows_per_image > 0, exact.coarse == "no-position"
    if precision == INT16:
        return Int16ResNet(visual, image_size, wants_fine, without_position)
    dtype = PRECISIONS[precision]
    if isinstance(visual, ModifiedResNet):
        return FoldedResNet(visual, image_size, dtype, device, wants_fine, without_position)
    if isinstance(visual, TimmModel) and _is_convolutional(visual):
        return FoldedTimm(visual, image_size, dtype, device, wants_fine)
    weights = next(visual.parameters())
    tower = visual if weights.dtype == dtype else copy.deepcopy(visual).to(dtype)
    if _is_convolutional(tower):
        tower = (copy.deepcopy(tower) if tower is visual else tower).to(memory_format=torch.channels_last)
    if isinstance(tower, VisionTransformer) and not no_dense_recipe(tower, image_size):
        return SharedLastBlock(tower, exact.dense if wants_fine else None)
    if isinstance(tower, TimmModel) and wants_fine and has_class_token(tower):
        return lambda pixels: class_token_vectors(tower, pixels.to(dtype), exact.dense)
    if isinstance(tower, TimmModel) and wants_fine:
        return lambda pixels: ImageVectors(*timm_vectors(tower, pixels.to(dtype)), None)
    compute = image_recipe(tower, image_size, exact.dense).compute
    return lambda pixels: compute(pixels.to(dtype))


def _one_by_one(compute: Compute) -> Compute:
    """The same with the memory of one picture, of which an exact tower takes the most."""

    def of_each(pixels_NCSS: Tensor) -> ImageVectors:
        coarse, fine, clip = zip(*map(compute, pixels_NCSS.split(1)), strict=True)
        joined = (None if rows[0] is None else torch.cat(rows) for rows in (fine, clip))
        return ImageVectors(torch.cat(coarse), *joined)

    return of_each


def lowest_cosine(exact: Compute, fast: Compute, pixels_NCSS: Tensor) -> float:
    """The lowest cosine of the rows of both, of all kinds of vectors; NaN if there is one in either."""
    lowest = torch.ones((), dtype=torch.float64)
    with torch.no_grad():
        for expected, found in zip(exact(pixels_NCSS), fast(pixels_NCSS), strict=True):
            if expected is None or found is None:
                assert expected is found
                continue
            # A minimum with NaN is NaN: numbers that overflowed do not pass.
            cosines = F.cosine_similarity(expected.cpu().double(), found.cpu().double(), dim=-1)
            lowest = torch.minimum(lowest, cosines.min())
    return float(lowest)


def gate_pictures(image_size: int) -> Tensor:
    """[N, 3, S, S] fp32 pictures with structure at every scale, the same ones each time, normalised like photographs.

    Noise in octaves, as photographs have it (power falls with the square of the frequency), and hard edges on one.
    """
    generator = torch.Generator().manual_seed(0)
    pixels = torch.zeros(_GATE_PICTURES, 3, image_size, image_size)
    side = 2
    while side <= image_size:
        noise = torch.randn(_GATE_PICTURES, 3, side, side, generator=generator)
        pixels += F.interpolate(noise, size=(image_size, image_size), mode="bilinear") * (2 / side) ** 0.5
        side *= 2
    pixels[-1, :, image_size // 4 : image_size // 2] = 1.5
    pixels[-1, :, :, image_size // 3 : image_size // 2] = -1.5
    return pixels / pixels.std()


def _is_convolutional(tower: nn.Module) -> bool:
    """Whether it has more convolutions than the one that cuts pictures into patches."""
    return sum(isinstance(module, nn.Conv2d) for module in tower.modules()) > 1
