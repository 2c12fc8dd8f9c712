"""What open_clip's text towers allow, and their blocks taken apart, so that many prompts can see one prefix.

Shape legend: W width of the text tower, P positions of the shared prefix, T packed own tokens of several classes, B
classes with S own tokens each, H heads, E width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn

from tai_engine.prompts.plan import PromptChunk

KeysValues = tuple[Tensor, Tensor]
"""[H, P, E] each: what the prefix is to the tokens after it, in one block."""


def possible_ways(part: Any, sequences: list[list[int]]) -> tuple[list[str], str | None]:
    """Which ways through a text tower give its own result, the fastest first, and why not a faster one.

    Args:
        part: the text tower of an open_clip model.
        sequences: token ids of all prompts.
    """
    if obstacle := _obstacle_to_cutting(part, sequences):
        return ["full"], obstacle
    obstacle = _obstacle_to_sharing(part)
    return ["cut", "full"] if obstacle else ["shared", "cut", "full"], obstacle


def _obstacle_to_cutting(part: Any, sequences: list[list[int]]) -> str | None:
    """Why positions after the end-of-text token might matter, or another one be read; None if they cannot."""
    if not isinstance(part, TextTransformer) and not hasattr(part, "text_pool_type"):
        return "the text tower is not one of open_clip's own"
    mask = getattr(part, "attn_mask", None)
    if mask is None or not torch.equal(mask, torch.full_like(mask, float("-inf")).triu(1)):
        return "the text tower is not causal"
    if getattr(part, "cls_emb", None) is not None:
        return "the text tower reads out an extra class token"
    pool_type = getattr(part, "pool_type", getattr(part, "text_pool_type", None))
    eos_id = getattr(part, "eos_id", getattr(part, "text_eos_id", None))
    for ids in sequences:
        # The first largest id, or the first end-of-text id: the tower reads that position and we read the last.
        last = {"argmax": max(ids), "eos": eos_id}.get(str(pool_type))
        if last is None or last not in ids or ids.index(last) != len(ids) - 1:
            return f"the text tower's pooling {pool_type!r} does not read the last token of each prompt"
    return None


def _obstacle_to_sharing(part: Any) -> str | None:
    """Why the blocks of a causal tower cannot be taken apart; None if they can."""
    for block in part.transformer.resblocks:
        attention = getattr(block, "attn", None)
        if type(block) is not ResidualAttentionBlock or type(attention) is not nn.MultiheadAttention:
            return f"blocks of the kind {type(block).__name__} with {type(attention).__name__} are not taken apart"
        if attention.in_proj_weight is None or attention.bias_k is not None or attention.add_zero_attn:
            return "its attention has keys and values beside those of the tokens"
    return None


def run_block(block: Any, x_TW: Tensor, chunk: PromptChunk, prefix: KeysValues | None) -> tuple[Tensor, Tensor, Tensor]:
    """One ResidualAttentionBlock over packed prompts that also see the prefix; output, keys and values [T, H, E].

    Attention is written out: the prefix has the same keys for all classes, so its part is one matrix product per head,
    where a fused attention would want a copy of them for every class.
    """
    attention = block.attn
    qkv_TW = F.linear(block.ln_1(x_TW), attention.in_proj_weight, attention.in_proj_bias)
    query_THE, key_THE, value_THE = qkv_TW.view(len(x_TW), 3, attention.num_heads, attention.head_dim).unbind(1)
    query_THE = query_THE * attention.head_dim**-0.5
    outputs = []
    for rows, count, length in chunk.groups:
        # [H, B, S, E]: a head's queries of all classes form one matrix for the prefix.
        q, k, v = (
            x[rows].view(count, length, *x.shape[1:]).permute(2, 0, 1, 3) for x in (query_THE, key_THE, value_THE)
        )
        future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
        logits = (q @ k.transpose(-1, -2)).masked_fill(future, float("-inf"))
        if prefix is not None:
            key_HPE, value_HPE = prefix
            heads, n_prefix = key_HPE.shape[:2]
            q_flat = q.reshape(heads, count * length, -1)
            prefix_logits = (q_flat @ key_HPE.transpose(-1, -2)).view(heads, count, length, n_prefix)
            logits = torch.cat([prefix_logits, logits], dim=-1)
        # Summed in fp32 whatever the tower's precision.
        weights = logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32)).to(logits.dtype)
        out = weights[..., -length:] @ v
        if prefix is not None:
            prefix_weights = weights[..., :n_prefix].reshape(heads, count * length, -1)
            out = out + (prefix_weights @ value_HPE).view_as(out)
        outputs.append(out.permute(1, 2, 0, 3).reshape(count * length, -1))
    x_TW = x_TW + block.ls_1(attention.out_proj(torch.cat(outputs)))
    x_TW = x_TW + block.ls_2(block.mlp(block.ln_2(x_TW)))
    return x_TW, key_THE, value_THE
