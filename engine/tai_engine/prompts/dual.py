"""DualCoOp's pair of prompts per class: one for its presence, one for its absence.

Sun et al., NeurIPS 2022, arXiv 2206.09541; the form in which TaI-DPT (arXiv 2211.12739) is combined with prompts
learned on partly labelled images.

Shape legend: N items, T fine rows of all items together, C classes, K contexts, W width of the text tower, D embedding
size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tai_engine.prompts.learner import ContextLearner, DualVectors
from tai_engine.prompts.tower import PromptTower

POSITIVE, NEGATIVE = "positive_contexts", "negative_contexts"
START = 3.0
"""Of both temperatures, as published."""


class DualPromptLearner(ContextLearner):
    """Positive and negative contexts and the two learned temperatures.

    Attributes:
        positive_contexts: [K, W], or [C, K, W] for class-specific ones (DualCoOp's default); fp32.
        negative_contexts: the same.
        temperature: scalar, starts at 3.0.
        spatial_temperature: scalar, starts at 3.0.
    """

    context_names = (POSITIVE, NEGATIVE)
    positive_contexts: nn.Parameter
    negative_contexts: nn.Parameter

    def __init__(self, tower: PromptTower, *, seed: int = 1, words: Tensor | None = None) -> None:
        """As `ContextLearner`: positive contexts are drawn first."""
        super().__init__(tower, seed=seed, words=words)
        self.temperature = nn.Parameter(torch.tensor(START, device=tower.device))
        self.spatial_temperature = nn.Parameter(torch.tensor(START, device=tower.device))

    def class_vectors(self) -> DualVectors:
        """Vectors of presence, for coarse and for fine vectors the same, vectors of absence, and both temperatures."""
        positive_CD = self._unit_vectors(POSITIVE)
        return DualVectors(
            positive_CD, positive_CD, self._unit_vectors(NEGATIVE), self.temperature, self.spatial_temperature
        )

    forward = class_vectors
