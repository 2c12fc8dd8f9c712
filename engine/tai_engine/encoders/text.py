"""Coarse and fine vectors of sentences.

A causal text tower (CLIP's) sees nothing after the end of a sentence, so a batch is computed up to its longest sentence
only. In any other tower (SigLIP's, MobileCLIP's, CLIPA's) the padding takes part: it runs over the full context with
its own pooling, the plain way.

Shape legend: N sentences, L token positions, T fine rows of all sentences together, W width, D embedding size.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

import torch
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

logger = logging.getLogger(__name__)


class TextTower(Protocol):
    """What computes the vectors of sentences, in the tower's own precision and before normalisation."""

    name: str
    has_fine: bool

    def lengths(self, tokens_NL: Tensor) -> Tensor:
        """[N] int64: tokens of each sentence, start and end included, padding not."""
        ...

    def compute(self, tokens_NL: Tensor, lengths_N: Tensor, wants_fine: bool) -> tuple[Tensor, Tensor | None]:
        """Coarse [N, D], and fine [T, D] packed in sentence order (None if not wanted or not to be had)."""
        ...


def text_tower(model: Any, padding_id: int = 0, padding_ends_sentence: bool = False) -> TextTower:
    """The way to run a model's text tower.

    Args:
        model: an open_clip model (an ``nn.Module``).
        padding_id: the token id after the end of a sentence.
        padding_ends_sentence: whether the end of a sentence is marked by that same id.
    """
    part = model.text if hasattr(model, "text") else model
    pool_type = getattr(part, "pool_type", getattr(part, "text_pool_type", None))
    if _is_causal(part) and pool_type in ("argmax", "eos"):
        eos_id = getattr(part, "eos_id", getattr(part, "text_eos_id", None)) if pool_type == "eos" else None
        return CausalTextTower(part, eos_id)
    # Without ln_final it is a tower of another library; an appended class token (CoCa) is what alone reaches the space.
    has_fine = hasattr(part, "ln_final") and getattr(part, "cls_emb", None) is None
    if not has_fine:
        logger.warning("coarse vectors only for sentences: this text tower has no token vectors in the joint space")
    return PlainTextTower(model, part, has_fine, padding_id, padding_ends_sentence)


def _is_causal(part: Any) -> bool:
    """Whether no position sees a later one: read off the mask, and only for towers whose parts we know."""
    known = isinstance(part, TextTransformer) or hasattr(part, "text_pool_type")
    mask = getattr(part, "attn_mask", None)
    if not known or mask is None or mask.ndim != 2 or getattr(part, "cls_emb", None) is not None:
        return False
    return bool(torch.equal(mask, torch.full_like(mask, float("-inf")).triu(1)))


class CausalTextTower:
    """Cut at the longest sentence of the batch; coarse is the end-of-text position, fine is every one up to it."""

    name = "causal"
    has_fine = True

    def __init__(self, part: Any, eos_id: int | None) -> None:
        self._part = part
        self._eos_id = eos_id

    def lengths(self, tokens_NL: Tensor) -> Tensor:
        """[N] int64: the position after the first end-of-text token (CLIP's is the largest id of all)."""
        if tokens_NL.shape[0] == 0:
            return torch.zeros(0, dtype=torch.int64)
        ends = tokens_NL if self._eos_id is None else (tokens_NL == self._eos_id).int()
        return ends.argmax(dim=1) + 1

    def compute(self, tokens_NL: Tensor, lengths_N: Tensor, wants_fine: bool) -> tuple[Tensor, Tensor | None]:
        """See `TextTower`."""
        part, longest = self._part, int(lengths_N.max())
        embedding = part.token_embedding(tokens_NL[:, :longest])
        x_NLW = embedding + part.positional_embedding[:longest].to(embedding.dtype)
        x_NLW = part.transformer(x_NLW, attn_mask=part.attn_mask[:longest, :longest])
        rows = torch.arange(len(tokens_NL), device=tokens_NL.device)
        last_N = (lengths_N - 1).to(tokens_NL.device)
        if not wants_fine:
            return _project(part, part.ln_final(x_NLW[rows, last_N])), None
        fine = _project(part, part.ln_final(_pack(x_NLW, lengths_N)))
        # The end of each sentence is the last of its own rows.
        return fine[lengths_N.cumsum(0).to(fine.device) - 1], fine


class PlainTextTower:
    """The full context and the model's own pooling; fine is every position that is not padding."""

    name = "plain"

    def __init__(self, model: Any, part: Any, has_fine: bool, padding_id: int, padding_ends_sentence: bool) -> None:
        self._model = model
        self._part = part
        self.has_fine = has_fine
        self._padding_id = padding_id
        self._padding_ends_sentence = padding_ends_sentence

    def lengths(self, tokens_NL: Tensor) -> Tensor:
        """[N] int64: the position after the last token that is not padding; at least 1."""
        positions = torch.arange(1, tokens_NL.shape[1] + 1)
        last = torch.where(tokens_NL == self._padding_id, 0, positions).amax(dim=1)
        # Where one id both ends and fills (SigLIP), the first of them is the end.
        return (last + int(self._padding_ends_sentence)).clamp(1, tokens_NL.shape[1])

    def compute(self, tokens_NL: Tensor, lengths_N: Tensor, wants_fine: bool) -> tuple[Tensor, Tensor | None]:
        """See `TextTower`."""
        if not (wants_fine and self.has_fine):
            return self._model.encode_text(tokens_NL, normalize=False), None
        outputs: list[Tensor] = []
        handle = self._part.ln_final.register_forward_hook(lambda _module, _args, output: outputs.append(output))
        try:
            coarse = self._model.encode_text(tokens_NL, normalize=False)
        finally:
            handle.remove()
        return coarse, _project(self._part, _pack(outputs[0], lengths_N))


def _pack(x_NLW: Tensor, lengths_N: Tensor) -> Tensor:
    """[T, W]: the first ``lengths[n]`` positions of every sentence, one after the other."""
    keep_NL = torch.arange(x_NLW.shape[1])[None, :] < lengths_N[:, None]
    return x_NLW[keep_NL.to(x_NLW.device)]


def _project(part: Any, x_W: Tensor) -> Tensor:
    """Rows of width W to rows of the joint space."""
    projection = part.text_projection
    if projection is None:
        return x_W
    result: Tensor = projection(x_W) if isinstance(projection, nn.Linear) else x_W @ projection
    return result
