"""Sentences to rows of unit length: tokens, batches of like length, and the way back to the order given.

Shape legend: N sentences, T fine rows of all sentences, D embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tai_engine.encoders import devices
from tai_engine.encoders.loading import LoadedModel
from tai_engine.encoders.text import text_tower
from tai_engine.encoders.unit_rows import join_rows, unit_rows


class SentenceEncoding:
    """The text half of an encoder. Memory: sentences and rows of one call, and the activations of one batch.

    Attributes:
        tower: how the model's text tower is run.
        context_length: tokens of the longest sentence.
    """

    def __init__(self, loaded: LoadedModel, dim: int, device: torch.device, precision: str, batch_size: int) -> None:
        """``loaded`` is on ``device`` in ``precision`` when it is first used; ``batch_size`` 0 is automatic."""
        self._model: Any = loaded.model
        self._tokenizer = loaded.tokenizer
        self._dim = dim
        self._device = device
        self._precision = precision
        self._batch = devices.sentence_batch(batch_size, device)
        self.context_length = loaded.context_length
        self.tower = text_tower(loaded.model, loaded.padding_id, loaded.padding_ends_sentence)

    def tokenize(self, sentences: Sequence[str]) -> Tensor:
        """[N, context_length] int64; what does not fit is cut off before the end-of-text token."""
        if not sentences:
            return torch.zeros(0, self.context_length, dtype=torch.int64)
        return self._tokenizer(list(sentences))

    def encode(self, tokens_NL: Tensor, wants_fine: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Coarse [N, D], fine [T, D] (T = 0 if not wanted) and lengths [N], in the order given.

        Raises:
            ValueError: for another shape or dtype, or ids outside the vocabulary.
        """
        self._check(tokens_NL)
        lengths_N = self.tower.lengths(tokens_NL)
        # Sentences of like length go together: little is computed beyond the end of the shorter ones.
        order_N = lengths_N.argsort(stable=True)

        def one_batch(start: int, stop: int) -> tuple[Tensor | None, ...]:
            chosen = order_N[start:stop]
            with torch.no_grad(), devices.exact_arithmetic(self._device, self._precision):
                coarse, fine = self.tower.compute(tokens_NL[chosen].to(self._device), lengths_N[chosen], wants_fine)
            return unit_rows(coarse, self._precision), unit_rows(fine, self._precision)

        coarse, fine = join_rows(list(self._batch.map(one_batch, len(tokens_NL))), kinds=2, dim=self._dim)
        back_N = order_N.argsort()
        if len(fine):
            sorted_fine = fine.split(lengths_N[order_N].tolist())
            fine = torch.cat([sorted_fine[i] for i in back_N.tolist()])
        return coarse[back_N], fine, lengths_N

    def _check(self, tokens_NL: Tensor) -> None:
        if tokens_NL.dtype != torch.int64 or tokens_NL.ndim != 2 or tokens_NL.shape[1] != self.context_length:
            raise ValueError(
                f"tokens are {tokens_NL.dtype} {tuple(tokens_NL.shape)}, expected int64 (N, {self.context_length})"
            )
        vocabulary = int(getattr(getattr(self._model, "text", self._model), "vocab_size", 0))
        if len(tokens_NL) and vocabulary and not 0 <= int(tokens_NL.min()) <= int(tokens_NL.max()) < vocabulary:
            raise ValueError(f"token ids reach outside the model's vocabulary of {vocabulary}")
