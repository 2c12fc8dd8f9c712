"""What a run does with negatives: mine them on its training sentences, and mix them into its batches.

Shape legend: B sentences of a batch, C classes, D embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tai_engine.features import FeatureBatch
from tai_engine.tuning.config import NegativeConfig
from tai_engine.tuning.negatives.strategies import MinedNegatives, Strategy, describe, make_strategy, mix_into_batch
from tai_engine.tuning.sentence_table import SentenceStore, SentenceTable, StoredVectors


class NegativeMiner:
    """Mines among the training sentences of a store. Memory: that of the strategy, from the first mining on."""

    def __init__(self, store: SentenceStore, training: SentenceTable, config: NegativeConfig, *, device: str) -> None:
        """Nothing is read yet.

        Args:
            store: where the sentences are.
            training: which of them train.
            config: how negatives are found; its strategy is not ``none``.
            device: where to search, see `make_strategy`.
        """
        self._store = store
        self._training = training
        self._config = config
        self._device = device
        self._strategy: Strategy | None = None

    def mine(self, class_vectors_CD: Tensor, refresh: int) -> MinedNegatives:
        """Negatives for unit rows; ``refresh`` counts from 0."""
        if self._strategy is None:
            vectors = StoredVectors(self._store, self._training)
            self._strategy = make_strategy(self._config, vectors, self._training.holders(), device=self._device)
        return self._strategy.mine(class_vectors_CD, refresh)

    def mix(
        self, batch: FeatureBatch, indices_B: Tensor, mined: MinedNegatives, generator: torch.Generator
    ) -> tuple[FeatureBatch, Tensor]:
        """The batch with its mined share, each sentence once, and the numbers of its sentences in the table."""
        mixed_B = mix_into_batch(indices_B, mined, self._config.share, generator)
        if mixed_B is indices_B:
            return batch, indices_B
        kept = len(indices_B) - round(self._config.share * len(indices_B))
        own, others = mixed_B[:kept], torch.unique(mixed_B[kept:])
        others = others[~torch.isin(others, own)]
        parts = [batch[:kept]] if kept else []
        if len(others):
            parts.append(self._store.read_items(self._training.positions[others]))
        return FeatureBatch.concatenate(parts), torch.cat([own, others])

    def describe(self, mined: MinedNegatives) -> list[str]:
        """Lines for people; none from a store without texts."""
        return describe(mined, self._store.class_names, self._texts) if self._store.spec.has_text else []

    def _texts(self, sentences: object) -> list[str]:
        return self._store.read_texts(self._training.positions[torch.as_tensor(sentences, dtype=torch.int64)])
