"""Coarse and fine vectors of images, one function per tower family.

A tower family with patch vectors in the joint space has a function here; every other tower gives coarse vectors only.
A new family is a function and a line in `image_recipe`.

Shape legend: N images, L patches (tokens T = 1 + L, the class or mean token first), E width, H heads, D embedding size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor

from tai_engine.encoders.positions import RESNET_STRIDE
from tai_engine.encoders.timm_dense import no_timm_recipe, rows_per_picture, timm_vectors
from tai_engine.encoders.timm_tokens import has_class_token, no_token_recipe, patches_per_picture, timm_token_vectors
from tai_engine.errors import UserError, unknown_choice

logger = logging.getLogger(__name__)

DENSE_CHOICES = ("auto", "value", "none")
COARSE_CHOICES = ("auto", "clip")


class ImageVectors(NamedTuple):
    """What a tower gives for a batch of images, in its own precision and before normalisation.

    Attributes:
        coarse: [N, D].
        fine: [N, L, D], or None from a tower or a recipe without patches.
        coarse_clip: [N, D] CLIP's own image vector where ``coarse`` is another one, else None.
    """

    coarse: Tensor
    fine: Tensor | None
    coarse_clip: Tensor | None


@dataclass(frozen=True)
class ImageRecipe:
    """How image vectors are made.

    Attributes:
        dense: ``taidpt``, ``sclip``, ``value``, ``head`` (a timm tower's own head at every location) or ``none``.
        coarse: ``no-position`` (TaI-DPT's, which keeps CLIP's beside it) or ``clip``.
        rows_per_image: L, or 0 without patches.
        compute: pixels [N, 3, S, S], normalised, to vectors.
    """

    dense: str
    coarse: str
    rows_per_image: int
    compute: Callable[[Tensor], ImageVectors]


def image_recipe(visual: Any, image_size: int, dense: str = "auto", coarse: str = "auto") -> ImageRecipe:
    """Choose the recipe of an image tower.

    Args:
        visual: open_clip's image tower, already at ``image_size``.
        image_size: pixels.
        dense: ``auto`` is TaI-DPT's way for a ModifiedResNet, SCLIP's for ViTs with a class token, open_clip's own and
            timm's, and the head at every location for timm's towers that average a map; ``value`` is the value path
            alone (MaskCLIP; for towers without attention in their head the same as ``auto``); ``none`` leaves patches
            out.
        coarse: ``auto`` is TaI-DPT's vector for a ModifiedResNet, with CLIP's own beside it, and CLIP's own for every
            other tower; ``clip`` is CLIP's own for all.

    Raises:
        UserError: for an unknown choice, or ``value`` for a tower that has no dense recipe.
    """
    if dense not in DENSE_CHOICES:
        raise unknown_choice("dense recipe", dense, DENSE_CHOICES)
    if coarse not in COARSE_CHOICES:
        raise unknown_choice("coarse recipe", coarse, COARSE_CHOICES)
    wants_fine = dense != "none"
    if isinstance(visual, ModifiedResNet):
        without_position = coarse == "auto"
        return ImageRecipe(
            dense="taidpt" if wants_fine else "none",
            coarse="no-position" if without_position else "clip",
            rows_per_image=(image_size // RESNET_STRIDE) ** 2 if wants_fine else 0,
            compute=lambda pixels: modified_resnet_vectors(visual, pixels, wants_fine, without_position),
        )
    if wants_fine and (obstacle := no_dense_recipe(visual, image_size)):
        if dense == "value":
            raise UserError(f"There is no dense recipe for this model: {obstacle}; use --coarse-only or another model.")
        logger.warning("coarse vectors only, no patches: %s", obstacle)
        wants_fine = False
    if not wants_fine:
        return ImageRecipe("none", "clip", 0, lambda pixels: ImageVectors(_pooled(visual(pixels)), None, None))
    attention = "value" if dense == "value" else "sclip"
    if isinstance(visual, TimmModel) and has_class_token(visual):
        rows = patches_per_picture(visual, image_size)
        return ImageRecipe(attention, "clip", rows, lambda pixels: class_token_vectors(visual, pixels, attention))
    if isinstance(visual, TimmModel):
        rows = rows_per_picture(visual, image_size)
        return ImageRecipe("head", "clip", rows, lambda pixels: ImageVectors(*timm_vectors(visual, pixels), None))
    side = image_size // int(visual.patch_size[0])
    return ImageRecipe(
        attention, "clip", side * side, lambda pixels: vision_transformer_vectors(visual, pixels, attention)
    )


def modified_resnet_vectors(
    visual: ModifiedResNet, pixels: Tensor, wants_fine: bool = True, without_position: bool = True
) -> ImageVectors:
    """TaI-DPT's image vectors (Guo et al., CVPR 2023): one pass through the trunk for all three.

    The attention pool runs without its positional embedding for ``coarse`` and with it for ``coarse_clip``; each
    location goes through the pool's ``v_proj`` and ``c_proj`` for ``fine``.
    """
    x = visual.stem(pixels)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    pool = visual.attnpool
    x_NLE = x.flatten(2).transpose(1, 2)
    x_NTE = torch.cat([x_NLE.mean(dim=1, keepdim=True), x_NLE], dim=1)
    # The projections are linear, so those of the positional embedding are added afterwards: the large products are
    # computed once for both coarse vectors, and the patches come with them.
    query, key, value = pool.q_proj(x_NTE[:, :1]), pool.k_proj(x_NTE), pool.v_proj(x_NTE)
    fine = pool.c_proj(value[:, 1:]) if wants_fine else None
    position_TE = pool.positional_embedding.to(x.dtype)
    clip = _pool_attention(
        pool,
        query + F.linear(position_TE[:1], pool.q_proj.weight),
        key + F.linear(position_TE, pool.k_proj.weight),
        value + F.linear(position_TE, pool.v_proj.weight),
    )
    if not without_position:
        return ImageVectors(clip, fine, None)
    return ImageVectors(_pool_attention(pool, query, key, value), fine, clip)


def _pool_attention(pool: AttentionPool2d, query_N1E: Tensor, key_NTE: Tensor, value_NTE: Tensor) -> Tensor:
    """[N, D]: the mean token attends to all, as the pool does, whose other outputs nobody reads."""
    query, key, value = (split_heads(x, pool.num_heads) for x in (query_N1E, key_NTE, value_NTE))
    pooled: Tensor = pool.c_proj(join_heads(F.scaled_dot_product_attention(query, key, value)))
    return pooled[:, 0]


def vision_transformer_vectors(visual: VisionTransformer, pixels: Tensor, attention: str = "sclip") -> ImageVectors:
    """CLIP's class token, and the patch tokens of a last block with another attention.

    Args:
        visual: open_clip's own ViT.
        pixels: [N, 3, S, S], normalised.
        attention: of the last block, see `last_block_tokens`.
    """
    block = visual.transformer.resblocks[-1]
    inputs: list[Tensor] = []
    handle = block.register_forward_pre_hook(lambda _module, args: inputs.append(args[0]))
    try:
        coarse = _pooled(visual(pixels))  # as CLIP computes it, to the last bit
    finally:
        handle.remove()
    tokens_NTE = last_block_tokens(block, inputs[0], attention)
    fine: Tensor = visual.ln_post(tokens_NTE[:, 1:]) @ visual.proj
    return ImageVectors(coarse, fine, None)


def class_token_vectors(visual: TimmModel, pixels: Tensor, attention: str = "sclip") -> ImageVectors:
    """The same of timm's transformers with a class token; ``attention`` as of `last_block_tokens`."""
    coarse, fine = timm_token_vectors(visual, pixels, partial(mix_values, attention=attention))
    return ImageVectors(coarse, fine, None)


def last_block_tokens(block: ResidualAttentionBlock, x_NTE: Tensor, attention: str) -> Tensor:
    """A transformer block with another attention, residual and MLP kept: [N, T, E].

    Args:
        block: open_clip's residual attention block.
        x_NTE: its input.
        attention: ``sclip`` is softmax(qq') + softmax(kk') (Wang et al., arXiv 2312.01597); ``value`` lets every token
            see itself alone (MaskCLIP, Zhou et al., ECCV 2022); ``qk`` is the block's own, the control.
    """
    own = block.attn
    projected = F.linear(block.ln_1(x_NTE), own.in_proj_weight, own.in_proj_bias)
    query, key, value = (split_heads(x, own.num_heads) for x in projected.chunk(3, dim=-1))
    mixed = mix_values(query, key, value, attention)
    x_NTE = x_NTE + block.ls_1(own.out_proj(join_heads(mixed)))
    result: Tensor = x_NTE + block.ls_2(block.mlp(block.ln_2(x_NTE)))
    return result


def mix_values(query: Tensor, key: Tensor, value: Tensor, attention: str) -> Tensor:
    """The values that each token gathers, all [N, heads, T, width of a head]; ``attention`` as of the block."""
    if attention == "sclip":
        return F.scaled_dot_product_attention(query, query, value) + F.scaled_dot_product_attention(key, key, value)
    if attention == "value":
        return value
    if attention == "qk":
        return F.scaled_dot_product_attention(query, key, value)
    raise ValueError(f"attention is {attention!r}, expected 'sclip', 'value' or 'qk'")


def no_dense_recipe(visual: Any, image_size: int) -> str:
    """Why a tower has no dense recipe for pictures of ``image_size`` pixels; empty if it has one."""
    if isinstance(visual, TimmModel):
        why_not = no_token_recipe if has_class_token(visual) else no_timm_recipe
        return why_not(visual, image_size)
    if not isinstance(visual, VisionTransformer):
        return "its image tower is neither a CLIP ResNet nor open_clip's own ViT nor one of timm's"
    if visual.attn_pool is not None:
        return "its image tower pools by attention instead of a class token"
    if visual.pool_type != "tok":
        return f"its image tower pools by {visual.pool_type!r} instead of a class token"
    block = visual.transformer.resblocks[-1]
    if not isinstance(block, ResidualAttentionBlock) or not visual.transformer.batch_first:
        return "its last transformer block is not of CLIP's kind"
    return ""


def _pooled(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The pooled vectors of a tower that may return its tokens beside them (CoCa)."""
    return output[0] if isinstance(output, tuple) else output


def split_heads(x_NTE: Tensor, heads: int) -> Tensor:
    """[N, T, E] to [N, heads, T, E / heads]."""
    return x_NTE.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x_NHTE: Tensor) -> Tensor:
    """The reverse."""
    return x_NHTE.transpose(1, 2).flatten(2)
