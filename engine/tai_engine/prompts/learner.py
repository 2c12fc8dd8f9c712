"""The contexts that prompt tuning learns: one set for coarse vectors, one for fine ones.

Shape legend: C classes, K contexts per prompt, W width of the text tower, D embedding size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from tai_engine.errors import UserError
from tai_engine.prompts.graphs import ContextsToVectors, record_graphs
from tai_engine.prompts.tower import PromptTower

GLOBAL, LOCAL = "global_contexts", "local_contexts"


class ClassVectors(NamedTuple):
    """Two unit vectors per class, [C, D] fp32 each: scored against coarse and against fine vectors."""

    global_vectors: Tensor
    local_vectors: Tensor


class DualVectors(NamedTuple):
    """Unit vectors per class, [C, D] fp32: of presence, for coarse and for fine vectors, and of absence.

    The temperatures are natural logarithms of the learned factors, scalars; see `dual_scores`.
    """

    global_vectors: Tensor
    local_vectors: Tensor
    negative_vectors: Tensor
    temperature: Tensor
    spatial_temperature: Tensor


DEVIATION = 0.02
"""Of the normal distribution that contexts are drawn from, as published."""


class ContextLearner(nn.Module):
    """Two sets of contexts through one frozen text tower; what they mean is for the subclass to say.

    The tower is no part of this module's state. Memory: the contexts, and what `PromptTower` holds for one of the two
    sets at a time without a gradient, for both with one.

    Attributes:
        context_names: of the two, which are parameters [K, W], or [C, K, W] for class-specific ones; fp32.
    """

    context_names: ClassVar[tuple[str, str]]

    def __init__(self, tower: PromptTower, *, seed: int = 1, words: Tensor | None = None) -> None:
        """Draw the contexts from N(0, 0.02²) on the CPU, the same on every device, in the order of their names.

        Args:
            tower: from contexts to class vectors.
            seed: of the drawing.
            words: token embeddings [k, W] that take the k contexts nearest to the class name, or None for none; see
                `PromptTower.embed_words`.

        Raises:
            UserError: for more words than contexts.
        """
        super().__init__()
        self._tower = tower
        self._ways: dict[str, ContextsToVectors] = dict.fromkeys(self.context_names, tower)
        generator = torch.Generator().manual_seed(seed)
        device = tower.device
        start = 0 if words is None else _place_of_words(tower, len(words))
        for name in self.context_names:
            contexts = torch.randn(tower.context_shape, generator=generator) * DEVIATION
            if words is not None:
                contexts[..., start : start + len(words), :] = words.float().cpu()
            setattr(self, name, nn.Parameter(contexts.to(device)))

    @property
    def tower(self) -> PromptTower:
        """The frozen text tower."""
        return self._tower

    @abstractmethod
    def class_vectors(self) -> ClassVectors | DualVectors:
        """The class vectors of the present contexts, differentiable unless gradients are off."""

    def _unit_vectors(self, name: str) -> Tensor:
        """[C, D] fp32 unit rows of one of the sets."""
        return normalize(self._ways[name](getattr(self, name)), dim=1)

    def record_graphs(self) -> None:
        """Replay CUDA graphs from now on (`record_graphs`): the same vectors and gradients with less waiting.

        Raises:
            UserError: on another device than a CUDA GPU, or for more classes than are computed in one piece.
        """
        self._ways = {name: record_graphs(self._tower, getattr(self, name)) for name in self.context_names}

    def contexts(self) -> dict[str, Tensor]:
        """Copies of everything that learns on the CPU, to be saved."""
        return {name: values.detach().cpu().clone() for name, values in self.named_parameters()}

    def load_contexts(self, contexts: Mapping[str, Tensor]) -> None:
        """Start from contexts of another run over the same text tower, of this or another vocabulary.

        Shared contexts [K, W] may start class-specific ones: every class then gets the same. What else learns stays as
        it is where it is not given.

        Raises:
            UserError: if one is missing or has another shape; nothing is changed then.
        """
        wanted = self._tower.context_shape
        for name in self.context_names:
            if name not in contexts:
                raise UserError(
                    f"The saved prompts hold no {name}: only prompts tuned by this engine can be a start for others."
                )
            if tuple(contexts[name].shape) not in (wanted, wanted[-2:]):
                raise UserError(
                    f"The saved {name} have the shape {tuple(contexts[name].shape)} but {wanted} is needed here "
                    "(contexts and width of the text tower, after the classes where each has its own); use the same "
                    "model and the same number of contexts."
                )
        with torch.no_grad():
            for name, values in self.named_parameters():
                if name in contexts:
                    values.copy_(contexts[name].expand(values.shape))


class PromptLearner(ContextLearner):
    """Global and local contexts and the class vectors that they make (arXiv 2211.12739, section 3.2).

    Attributes:
        global_contexts: [K, W], or [C, K, W] for class-specific ones; fp32.
        local_contexts: the same.
    """

    context_names = (GLOBAL, LOCAL)
    global_contexts: nn.Parameter
    local_contexts: nn.Parameter

    def class_vectors(self) -> ClassVectors:
        """The class vectors of the present contexts, differentiable unless gradients are off."""
        return ClassVectors(self._unit_vectors(GLOBAL), self._unit_vectors(LOCAL))

    forward = class_vectors


def _place_of_words(tower: PromptTower, count: int) -> int:
    """The first of the ``count`` contexts nearest to the class name: the last ones when it stands at the end."""
    n = tower.n_contexts
    if count > n:
        raise UserError(
            f"The initial words take {count} tokens but there are only {n} contexts; use fewer words or more contexts."
        )
    before = tower.contexts_before_name
    return min(max(before - round(count * before / n), 0), n - count)
