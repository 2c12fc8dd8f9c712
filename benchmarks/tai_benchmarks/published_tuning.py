"""The published formulation of prompt tuning, written plainly: the baseline of the tuning benchmark.

As the code of TaI-DPT (Guo et al., arXiv 2211.12739) has it: every class's prompt goes through the text tower at its
full length in every step, once for each of the two sets of contexts; so do the batch's sentences, though they never
change; all in fp32; the similarities of all sentences, tokens and classes are one tensor, and so are all pairs of
classes in the loss.

Shape legend: N sentences, L token positions (77), W width of the tower, D embedding size, C classes, K contexts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tai_benchmarks.published import published_scores


class PublishedTuning(nn.Module):
    """Contexts, the frozen text tower and the loss of a batch of token ids.

    Attributes:
        global_contexts: [K, W], or [C, K, W] for class-specific ones.
        local_contexts: the same.
    """

    def __init__(
        self,
        model: Any,
        prompt_tokens_CL: Tensor,
        global_contexts: Tensor,
        local_contexts: Tensor,
        *,
        temperature: float,
        scale: float,
    ) -> None:
        """Take the tower as it is.

        Args:
            model: an open_clip model with a causal text tower; it is frozen.
            prompt_tokens_CL: [C, L] int64: start, K placeholders, name, full stop, end, padding.
            global_contexts: where they start.
            local_contexts: likewise.
            temperature: tau of the softmax over the tokens of a sentence.
            scale: k.
        """
        super().__init__()
        self._model = [model.eval().requires_grad_(False)]  # in a list, for it is no part of this module's state
        self._prompt_tokens_CL = prompt_tokens_CL
        self.global_contexts = nn.Parameter(global_contexts.clone())
        self.local_contexts = nn.Parameter(local_contexts.clone())
        self._temperature = temperature
        self._scale = scale

    def class_vectors(self, contexts: Tensor) -> Tensor:
        """[C, D]: the prompts' end-of-text positions, not normalised."""
        tokens_CL, n = self._prompt_tokens_CL, contexts.shape[-2]
        embedded_CLW = self._model[0].token_embedding(tokens_CL)
        own_CKW = contexts if contexts.ndim == 3 else contexts.expand(len(tokens_CL), *contexts.shape)
        x_CLD = self._encode(torch.cat([embedded_CLW[:, :1], own_CKW, embedded_CLW[:, 1 + n :]], dim=1))
        return x_CLD[torch.arange(len(tokens_CL)), tokens_CL.argmax(dim=1)]

    def loss(self, tokens_NL: Tensor, labels_NC: Tensor) -> Tensor:
        """Ranking loss of the coarse plus that of the fine scores.

        Args:
            tokens_NL: [N, L] int64, padded with zeros.
            labels_NC: [N, C] of 0 and 1.
        """
        with torch.no_grad():
            rows_NLD = self._encode(self._model[0].token_embedding(tokens_NL))
        scores = published_scores(
            rows_NLD[torch.arange(len(tokens_NL)), tokens_NL.argmax(dim=1)],
            rows_NLD,
            self.class_vectors(self.global_contexts),
            self.class_vectors(self.local_contexts),
            temperature=self._temperature,
            scale=self._scale,
            mask_NL=tokens_NL != 0,
        )
        return _ranking(scores.coarse, labels_NC) + _ranking(scores.fine, labels_NC)

    def _encode(self, embedded_NLW: Tensor) -> Tensor:
        """[N, L, D]: every position through the whole tower."""
        model = self._model[0]
        x_NLW = model.transformer(embedded_NLW + model.positional_embedding, attn_mask=model.attn_mask)
        result: Tensor = model.ln_final(x_NLW) @ model.text_projection
        return result


def _ranking(scores_NC: Tensor, labels_NC: Tensor) -> Tensor:
    """``mean over n of the sum over present i and absent j of max(0, 1 - s_i + s_j)``, all pairs formed."""
    pairs_NCC = (1 - scores_NC[:, :, None] + scores_NC[:, None, :]).clamp(min=0)
    counted_NCC = labels_NC[:, :, None] * (1 - labels_NC[:, None, :])
    return (pairs_NCC * counted_NCC).sum(dim=(1, 2)).mean()
