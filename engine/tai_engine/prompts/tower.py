"""Class vectors from learned contexts through a frozen text tower, sharing what the classes have in common.

Three ways with the same result (arXiv 2211.12739 runs every prompt at the tower's full length):

- ``shared``: in a causal tower no position sees a later one, so what all prompts begin with (the start token and, with
  shared contexts and the name behind them, the contexts) is computed **once**; each class's own few tokens attend to
  those keys and values. Nothing is computed after the end-of-text token, and nothing is padded.
- ``cut``: causal towers with blocks that are not taken apart here: every prompt up to its own end-of-text token.
- ``full``: all other towers (not causal, another pooling, another library's): the tower's own forward at full length.

Shape legend: C classes, W width of the text tower, D embedding size, K contexts per prompt, P positions of the shared
prefix, T packed own tokens of several classes, B classes with S own tokens each, H heads, E width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tai_engine.errors import UserError
from tai_engine.prompts.tokens import PromptChunk, PromptTokens, plan_prompts

# What autograd keeps per token and block, in vectors of width W: 14.3 measured with quick-GELU, 10.3 with GELU.
_KEPT_VECTORS = 15
_LAYERS_OF_OTHERS = 24

KeysValues = tuple[Tensor, Tensor]
"""[H, P, E] each: what the prefix is to the tokens after it, in one block."""


class PromptTower:
    """The frozen text tower of an open_clip model, from contexts to class vectors.

    Memory while learning: the tower and at most ``memory_bytes`` of what the gradient needs. More prompts than that are
    computed in chunks of a quarter of it, and each chunk again for its gradient.

    Attributes:
        width: W, the width that contexts must have.
        n_classes: C.
        n_contexts: K.
        class_specific: whether contexts are [C, K, W] rather than [K, W].
        position: of the class name, one of ``POSITIONS``.
        contexts_before_name: how many of the contexts stand before it.
        context_shape: (K, W), or (C, K, W) where every class has its own.
        device: where the tower computes.
        way: which of ``WAYS`` is taken.
    """

    def __init__(
        self,
        model: Any,
        tokens: PromptTokens,
        *,
        n_contexts: int = 16,
        class_specific: bool = False,
        position: str = "end",
        way: str = "auto",
        memory_bytes: int = 1 << 30,
    ) -> None:
        """Plan the work; no prompt is computed yet.

        Args:
            model: an open_clip model (an ``nn.Module``); it is put in evaluation mode and its weights are frozen.
            tokens: of `tokenize_prompts`.
            n_contexts: K, at least 1.
            class_specific: contexts [C, K, W] instead of [K, W].
            position: of the class name.
            way: one of ``WAYS``, or ``"auto"`` for the fastest that this tower allows.
            memory_bytes: see above; at least one prompt is computed at a time.

        Raises:
            UserError: for an unknown choice, a way that this tower does not allow, or a class name that is too long.
        """
        if n_contexts < 1:
            raise UserError(f"The number of contexts is {n_contexts}; it has to be 1 or more.")
        self._model = model.eval().requires_grad_(False)
        self._part = model.text if hasattr(model, "text") else model
        embedding = getattr(self._part, "token_embedding", None)
        if embedding is None:  # a tower of transformers
            embedding = self._part.transformer.get_input_embeddings()
        self._embedding: nn.Embedding = embedding
        self.width = int(self._embedding.weight.shape[1])
        self.n_classes = len(tokens.names)
        self.n_contexts = n_contexts
        self.class_specific = class_specific
        self.position = position
        self.context_shape = (self.n_classes,) * class_specific + (n_contexts, self.width)
        self.device = self._embedding.weight.device
        layers = len(getattr(self._part.transformer, "resblocks", ())) or _LAYERS_OF_OTHERS
        token_bytes = _KEPT_VECTORS * layers * self.width * self._embedding.weight.element_size()
        plan = plan_prompts(
            self._part,
            tokens,
            n_contexts=n_contexts,
            class_specific=class_specific,
            position=position,
            way=way,
            max_tokens=memory_bytes // token_bytes,
            device=self.device,
        )
        self.way, self.contexts_before_name = plan.way, plan.contexts_before_name
        self._prefix, self._chunks = plan.prefix, plan.chunks

    @property
    def n_chunks(self) -> int:
        """In how many pieces the prompts are computed, by their memory."""
        return len(self._chunks)

    def embed_words(self, ids: Tensor) -> Tensor:
        """[len(ids), W] fp32: the embeddings of tokens, to start contexts from."""
        return self._embedding.weight[ids.to(self._embedding.weight.device)].float()

    def __call__(self, contexts: Tensor) -> Tensor:
        """[C, D] class vectors, **not** normalised; differentiable with respect to ``contexts``.

        They are fp32, or fp64 from a tower in fp64.

        Args:
            contexts: `context_shape`, any float dtype, on the tower's device.

        Raises:
            ValueError: for another shape.
        """
        if tuple(contexts.shape) != self.context_shape:
            raise ValueError(f"contexts are {tuple(contexts.shape)}, expected {self.context_shape}")
        rows_KW = contexts.reshape(-1, self.width).to(self._embedding.weight.dtype)
        if len(self._chunks) > 1 and torch.is_grad_enabled() and rows_KW.requires_grad:
            recomputed: Tensor = _Recomputed.apply(self, rows_KW)
            return recomputed
        prefix: list[KeysValues] = []
        if len(self._prefix.ids):
            self._run_blocks(self._prefix, rows_KW, [], prefix)
        outputs = [self._vectors(chunk, rows_KW, prefix) for chunk in self._chunks]
        order = torch.cat([chunk.classes for chunk in self._chunks]).argsort()
        return torch.cat(outputs)[order]

    def _gradient(self, rows_KW: Tensor, gradient_CD: Tensor) -> Tensor:
        """Of the contexts, from that of the class vectors: every chunk is computed again, by itself."""
        with torch.enable_grad():
            rows_KW = rows_KW.detach().requires_grad_()
            prefix: list[KeysValues] = []
            if len(self._prefix.ids):
                self._run_blocks(self._prefix, rows_KW, [], prefix)
        learned = [tensor for pair in prefix for tensor in pair if tensor.requires_grad]
        leaves = [tensor.detach().requires_grad_() for tensor in learned]
        inputs = iter(leaves)
        detached = [(next(inputs), next(inputs)) if key.requires_grad else (key, value) for key, value in prefix]
        dtype = gradient_CD.dtype
        sums = [torch.zeros_like(tensor, dtype=dtype) for tensor in (rows_KW, *leaves)]
        for chunk in self._chunks:
            with torch.enable_grad():
                out_BD = self._vectors(chunk, rows_KW, detached)
            found = torch.autograd.grad(out_BD, [rows_KW, *leaves], gradient_CD[chunk.classes], allow_unused=True)
            for total, part in zip(sums, found, strict=True):
                if part is not None:
                    total += part
        if leaves:
            through_prefix = [total.to(tensor.dtype) for total, tensor in zip(sums[1:], learned, strict=True)]
            sums[0] += torch.autograd.grad(learned, [rows_KW], through_prefix)[0]
        return sums[0].to(rows_KW.dtype)

    def _vectors(self, chunk: PromptChunk, rows_KW: Tensor, prefix: list[KeysValues]) -> Tensor:
        """[B, D] of a chunk, in fp32 or better."""
        if self.way == "full":
            x_BW = self._run_whole(chunk, rows_KW)
        else:
            x_BW = self._part.ln_final(self._run_blocks(chunk, rows_KW, prefix)[chunk.ends])
            projection = self._part.text_projection
            if projection is not None:
                x_BW = projection(x_BW) if isinstance(projection, nn.Linear) else x_BW @ projection
        return x_BW.to(torch.promote_types(x_BW.dtype, torch.float32))

    def _run_blocks(
        self, chunk: PromptChunk, rows_KW: Tensor, prefix: list[KeysValues], kept: list[KeysValues] | None = None
    ) -> Tensor:
        """[T, W]: embedded tokens and contexts after all blocks; ``kept`` takes what they are to tokens after them."""
        x_TW = self._embedding(chunk.ids)
        if len(chunk.rows):
            x_TW = x_TW.index_copy(0, chunk.rows, rows_KW[chunk.contexts])
        x_TW = x_TW + self._part.positional_embedding[chunk.positions].to(x_TW.dtype)
        if self.way == "cut":
            mask, parts = self._part.attn_mask, []
            for rows, count, length in chunk.groups:
                x_BSW = x_TW[rows].view(count, length, self.width)
                parts.append(self._part.transformer(x_BSW, attn_mask=mask[:length, :length]).flatten(0, 1))
            return torch.cat(parts)
        for i, block in enumerate(self._part.transformer.resblocks):
            x_TW, key_THE, value_THE = run_block(block, x_TW, chunk, prefix[i] if prefix else None)
            if kept is not None:
                kept.append((key_THE.transpose(0, 1), value_THE.transpose(0, 1)))
        return x_TW

    def _run_whole(self, chunk: PromptChunk, rows_KW: Tensor) -> Tensor:
        """[B, D]: the tower's own forward, its embeddings replaced by contexts where these go."""

        def put_contexts(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
            x_TW = output.reshape(-1, self.width)
            return x_TW.index_copy(0, chunk.rows, rows_KW[chunk.contexts]).view_as(output)

        handle = self._embedding.register_forward_hook(put_contexts)
        try:
            result: Tensor = self._model.encode_text(chunk.ids.view(len(chunk.classes), -1), normalize=False)
        finally:
            handle.remove()
        return result


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


class _Recomputed(torch.autograd.Function):
    """Class vectors whose graph holds nothing but the contexts.

    ``torch.utils.checkpoint`` would leave the nodes of every chunk's graph scattered over the memory until the result
    is dropped; in long runs they kept the allocator from using it again.
    """

    @staticmethod
    def forward(ctx: Any, tower: PromptTower, rows_KW: Tensor) -> Tensor:
        ctx.tower = tower
        ctx.save_for_backward(rows_KW)
        return tower(rows_KW.view(tower.context_shape))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_CD: Tensor) -> tuple[None, Tensor]:
        return None, ctx.tower._gradient(ctx.saved_tensors[0], gradient_CD)
