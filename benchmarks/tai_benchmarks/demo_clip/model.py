"""The demonstration CLIP: its configuration, and a training wrapper that returns everything the losses need.

Legend of shapes: N items, L locations or tokens, D joint embedding size, W width of the text tower, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.modified_resnet import AttentionPool2d
from torch import Tensor

IMAGE_SIZE = 128
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "quick_gelu": False,
    "vision_cfg": {"image_size": IMAGE_SIZE, "layers": [2, 2, 2, 2], "width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 96, "heads": 6, "layers": 3},
}


@dataclass(frozen=True)
class ImageFeatures:
    """Normalised features: both coarse vectors [N, D] and the local ones [N, L, D]."""

    with_position: Tensor
    without_position: Tensor
    local: Tensor


@dataclass(frozen=True)
class SentenceFeatures:
    """Normalised features: at the end of text [N, D] and at every token [N, L, D]."""

    coarse: Tensor
    tokens: Tensor


def build_model(vocabulary_size: int) -> CLIP:
    """An untrained CLIP whose token table has ``vocabulary_size`` rows."""
    config = {**MODEL_CONFIG, "text_cfg": {**MODEL_CONFIG["text_cfg"], "vocab_size": vocabulary_size}}
    return CLIP(**config)


def mix_styles(x_NCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Give each item a mixture of its own and another item's channel means and deviations (MixStyle).

    The statistics carry the drawing style; they get no gradient (Zhou et al., ICLR 2021).
    """
    mean = x_NCHW.mean(dim=(2, 3), keepdim=True).detach()
    deviation = (x_NCHW.var(dim=(2, 3), keepdim=True) + 1e-5).sqrt().detach()
    other = torch.randperm(len(x_NCHW), generator=generator)
    share = torch.rand(len(x_NCHW), 1, 1, 1, generator=generator)
    share = torch.where(share < 0.5, share, torch.ones_like(share))  # half of the items keep their own style
    mixed_mean = share * mean + (1 - share) * mean[other]
    mixed_deviation = share * deviation + (1 - share) * deviation[other]
    return (x_NCHW - mean) * (mixed_deviation / deviation) + mixed_mean


def encode_images(model: CLIP, images_NCHW: Tensor, style_generator: torch.Generator | None = None) -> ImageFeatures:
    """Encode normalised images; with ``style_generator`` the styles of the batch are mixed after layer 1 or layer 2."""
    visual = model.visual
    mixed = 0 if style_generator is None else int(torch.randint(1, 4, (), generator=style_generator))
    x = visual.layer1(visual.stem(images_NCHW))
    if style_generator is not None and mixed == 1:
        x = mix_styles(x, style_generator)
    x = visual.layer2(x)
    if style_generator is not None and mixed == 2:
        x = mix_styles(x, style_generator)
    x_NCHW = visual.layer4(visual.layer3(x))
    pool = visual.attnpool
    x_NLW = x_NCHW.flatten(2).transpose(1, 2)
    local_NLD = pool.c_proj(pool.v_proj(x_NLW))
    tokens_NLW = torch.cat([x_NLW.mean(dim=1, keepdim=True), x_NLW], dim=1)
    grid = x_NCHW.shape[-2:]
    position_LW = _position_embedding(pool.positional_embedding, grid)
    with_position = _attention_pool(pool, tokens_NLW + position_LW)
    without_position = _attention_pool(pool, tokens_NLW)
    normalised = [F.normalize(x, dim=-1) for x in (with_position, without_position, local_NLD)]
    return ImageFeatures(*normalised)


def _position_embedding(embedding_LW: Tensor, grid: torch.Size) -> Tensor:
    """The attention pool's position embedding for another grid, by bilinear interpolation."""
    side = round((len(embedding_LW) - 1) ** 0.5)
    if tuple(grid) == (side, side):
        return embedding_LW
    first, rest = embedding_LW[:1], embedding_LW[1:]
    square = rest.T.reshape(1, -1, side, side)
    resized = F.interpolate(square, size=tuple(grid), mode="bilinear", align_corners=False)
    return torch.cat([first, resized.flatten(2)[0].T])


def _attention_pool(pool: AttentionPool2d, tokens_NLW: Tensor) -> Tensor:
    """The attention pool's output [N, D] for the first token as the query."""
    n, length, width = tokens_NLW.shape
    heads = pool.num_heads
    query = pool.q_proj(tokens_NLW[:, :1]).view(n, 1, heads, width // heads).transpose(1, 2)
    key = pool.k_proj(tokens_NLW).view(n, length, heads, width // heads).transpose(1, 2)
    value = pool.v_proj(tokens_NLW).view(n, length, heads, width // heads).transpose(1, 2)
    pooled = F.scaled_dot_product_attention(query, key, value)
    return pool.c_proj(pooled.transpose(1, 2).reshape(n, width))


def encode_sentences(model: CLIP, token_ids_NL: Tensor) -> SentenceFeatures:
    """Encode token ids [N, L], L at most 77, padded with 0 after the end of text (the highest id of each row).

    The tower is causal, so that padding and cutting at the longest sentence change nothing up to the end of text.
    """
    length = token_ids_NL.shape[1]
    x_NLW = model.token_embedding(token_ids_NL) + model.positional_embedding[:length]
    x_NLW = model.transformer(x_NLW, attn_mask=model.attn_mask[:length, :length])
    token_NLD = F.normalize(model.ln_final(x_NLW) @ model.text_projection, dim=-1)
    end_N = token_ids_NL.argmax(dim=1)
    return SentenceFeatures(token_NLD[torch.arange(len(end_N)), end_N], token_NLD)
