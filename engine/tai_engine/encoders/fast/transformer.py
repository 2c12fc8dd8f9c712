"""CLIP's own ViT with its last block computed once for the class token and the patches together.

Shape legend: N images, S pixels a side, L patches (tokens T = 1 + L, the class token first), E width, D embedding size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor

from tai_engine.encoders.dense import ImageVectors, join_heads, mix_values, split_heads


class SharedLastBlock:
    """A ViT whose last block multiplies queries, keys and values once, and only what is read of it.

    The class token is computed as CLIP does, the patches by another attention (see ``dense.last_block_tokens``);
    without patches the last block has one query. ``visual`` is used as it is, not copied.
    """

    def __init__(self, visual: VisionTransformer, attention: str | None) -> None:
        """``attention`` is of the patches: ``sclip`` or ``value``; None is for the class token alone."""
        self._visual, self._attention = visual, attention

    def __call__(self, pixels_NCSS: Tensor) -> ImageVectors:
        """Vectors of normalised pictures [N, 3, S, S], not of unit length."""
        visual = self._visual
        x_NTE = visual._embeds(pixels_NCSS.to(visual.proj))
        *blocks, last = visual.transformer.resblocks
        for block in blocks:
            x_NTE = block(x_NTE)
        own = last.attn
        query, key, value = (
            split_heads(x, own.num_heads)
            for x in F.linear(last.ln_1(x_NTE), own.in_proj_weight, own.in_proj_bias).chunk(3, dim=-1)
        )
        mixed_NTE = join_heads(F.scaled_dot_product_attention(query[:, :, :1], key, value))
        if self._attention is not None:
            patches = join_heads(mix_values(query, key, value, self._attention))[:, 1:]
            mixed_NTE = torch.cat([mixed_NTE, patches], dim=1)
        y_NTE = x_NTE[:, : mixed_NTE.shape[1]] + last.ls_1(own.out_proj(mixed_NTE))
        y_NTE = y_NTE + last.ls_2(last.mlp(last.ln_2(y_NTE)))
        out_NTD = visual.ln_post(y_NTE) @ visual.proj
        return ImageVectors(out_NTD[:, 0], None if self._attention is None else out_NTD[:, 1:], None)
