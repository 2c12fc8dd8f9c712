"""The text tower: a small causal transformer as open_clip builds it, begun as a bag of words.

Shape legend: B sentences, T tokens, W = 256 width, D joint size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn

from tai_benchmarks.photo_clip.image_tower import ARCHITECTURE

WIDTH, LAYERS, HEADS, MLP_RATIO = 256, 3, 4, 2.0
_LATER_BLOCKS = 0.05
_TOKEN_DEVIATION, _POSITION_DEVIATION = 0.02, 0.002
MOST_SHIFT = 24


def model_config(joint_size: int, image_size: int) -> dict[str, Any]:
    """open_clip's configuration of the whole model."""
    return {
        "embed_dim": joint_size,
        "vision_cfg": {
            "timm_model_name": ARCHITECTURE,
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "timm_proj_bias": True,
            "image_size": image_size,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": WIDTH,
            "heads": HEADS,
            "layers": LAYERS,
            "mlp_ratio": MLP_RATIO,
        },
    }


def new_model(joint_size: int, image_size: int) -> Any:
    """open_clip's model; its text tower averages: the first block adds half the mean of all tokens, others little."""
    model = CLIP(**model_config(joint_size, image_size))
    with torch.no_grad():
        model.token_embedding.weight.normal_(std=_TOKEN_DEVIATION)
        model.token_embedding.weight[0].zero_()
        model.positional_embedding.normal_(std=_POSITION_DEVIATION)
        model.text_projection.copy_(torch.nn.init.orthogonal_(torch.empty(WIDTH, joint_size)))
        for number, block in enumerate(model.transformer.resblocks):
            query, key, value = block.attn.in_proj_weight.chunk(3)
            block.mlp.c_proj.weight.mul_(_LATER_BLOCKS)
            block.mlp.c_proj.bias.zero_()
            if number:
                block.attn.out_proj.weight.mul_(_LATER_BLOCKS)
                continue
            query.mul_(_LATER_BLOCKS)
            key.mul_(_LATER_BLOCKS)
            value.copy_(torch.eye(WIDTH))
            block.attn.out_proj.weight.copy_(torch.eye(WIDTH) / 2)
    return model


class KeptVocabulary:
    """The tokens that are trained, as rows of a small table: 8,000 in place of 49,408.

    Args:
        ids: of the tokens, without 0, which pads and whose row stays zero.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = torch.tensor([0, *ids])
        self._row_of = torch.zeros(int(self.ids.max()) + 1, dtype=torch.long)
        self._row_of[self.ids] = torch.arange(len(self.ids))

    def cut(self, model: Any) -> None:
        """Give a model the small table, with what the large one holds."""
        model.token_embedding = nn.Embedding.from_pretrained(model.token_embedding.weight[self.ids], freeze=False)

    def rows(self, ids: Tensor) -> Tensor:
        """Token ids as rows of the small table; their order stays, so the end is still the highest."""
        return self._row_of[ids]

    def grown(self, table: Tensor, size: int) -> Tensor:
        """[size, W]: a small table as a large one, the rows of all other tokens zero."""
        large = torch.zeros(size, table.shape[1])
        large[self.ids] = table
        return large


def text_parameters(model: Any) -> dict[str, Tensor]:
    """What is trained: everything but the image tower and the logit scale."""
    return {
        name: value
        for name, value in model.named_parameters()
        if not name.startswith("visual.") and name not in ("logit_scale", "logit_bias")
    }


def token_rows(model: Any, ids_BT: Tensor, shift: int = 0) -> Tensor:
    """[B, T, D] every position in the joint space, not of unit length.

    Args:
        model: of `new_model`.
        ids_BT: sentences, behind their ends 0.
        shift: how many positions everything behind the first token is moved, as contexts of tuned prompts move it.
    """
    length = ids_BT.shape[1]
    positions = torch.arange(length) + shift * (torch.arange(length) > 0)
    x = model.token_embedding(ids_BT) + model.positional_embedding[positions]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    rows: Tensor = model.ln_final(x) @ model.text_projection
    return rows


def ends(ids_BT: Tensor) -> Tensor:
    """[B] the place of each sentence's end, whose id is the highest."""
    return ids_BT.argmax(dim=1)


def pick(rows_BTD: Tensor, places_B: Tensor) -> Tensor:
    """[B, D] one row of each sentence."""
    return rows_BTD[torch.arange(len(rows_BTD)), places_B]


def bag_of_words(model: Any, ids_BT: Tensor) -> Tensor:
    """[B, D] at the ends, if the first block looked at all tokens alike and the rest of the tower did nothing."""
    block = model.transformer.resblocks[0]
    x = model.token_embedding(ids_BT) + model.positional_embedding[: ids_BT.shape[1]]
    read = (torch.arange(ids_BT.shape[1]) <= ends(ids_BT).unsqueeze(1)).unsqueeze(2)
    mean = (block.ln_1(x) * read).sum(dim=1) / read.sum(dim=1)
    value_weight, value_bias = block.attn.in_proj_weight.chunk(3)[2], block.attn.in_proj_bias.chunk(3)[2]
    gathered = block.attn.out_proj(F.linear(mean, value_weight, value_bias))
    rows: Tensor = model.ln_final(pick(x, ends(ids_BT)) + gathered) @ model.text_projection
    return rows
