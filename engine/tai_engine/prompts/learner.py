"""The contexts that prompt tuning learns: one set for coarse and one for fine vectors, or for presence and absence.

Shape legend: C classes, K contexts per prompt, W width of the text tower, D embedding size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from tai_engine.errors import UserError
from tai_engine.prompts.tower import PromptTower

GLOBAL, LOCAL = "global_contexts", "local_contexts"
POSITIVE, NEGATIVE = "positive_contexts", "negative_contexts"
DEVIATION = 0.02
"""Of the normal distribution that contexts are drawn from, as published."""
DUAL_TEMPERATURE = 3.0
"""What both temperatures of dual prompts start at, as published."""


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


class ContextLearner(nn.Module):
    """Two sets of contexts through one frozen text tower; what they mean is for the subclass to say.

    The tower is no part of this module's state. Memory: the contexts, and what `PromptTower` holds for one of the two
    sets at a time without a gradient, for both with one.

    Attributes:
        context_names: of the two, which are parameters [K, W], or [C, K, W] for class-specific ones; fp32.
        tower: the frozen text tower.
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
        self.tower = tower
        self._vectors_of: dict[str, Callable[[Tensor], Tensor]] = dict.fromkeys(self.context_names, tower)
        generator = torch.Generator().manual_seed(seed)
        n, before = tower.n_contexts, tower.contexts_before_name
        count = 0 if words is None else len(words)
        if count > n:
            raise UserError(
                f"The initial words take {count} tokens but there are only {n} contexts; use fewer words or more "
                "contexts."
            )
        # The nearest to the name are the last ones when it stands at the end.
        start = min(max(before - round(count * before / n), 0), n - count)
        for name in self.context_names:
            contexts = torch.randn(tower.context_shape, generator=generator) * DEVIATION
            if words is not None:
                contexts[..., start : start + count, :] = words.float().cpu()
            setattr(self, name, nn.Parameter(contexts.to(tower.device)))

    @abstractmethod
    def class_vectors(self) -> ClassVectors | DualVectors:
        """The class vectors of the present contexts, differentiable unless gradients are off."""

    def record_graphs(self) -> None:
        """Record the way through the tower, forward and back, as CUDA graphs and replay them from now on.

        A step of few classes launches thousands of small kernels; what the GPU waits for is then Python. Shapes never
        change while prompts are tuned, so vectors and gradients are the same. The vectors of a call are overwritten by
        the next one. Memory: all that one step through the tower needs, for each set of contexts, kept for good.

        Raises:
            UserError: on another device than a CUDA GPU, or for more classes than are computed in one piece.
        """
        tower = self.tower
        if tower.device.type != "cuda":
            raise UserError(
                f"CUDA graphs need a CUDA GPU, but the text tower is on {tower.device}; leave --cuda-graphs out."
            )
        if tower.n_chunks > 1:
            raise UserError(
                f"CUDA graphs need all {tower.n_classes} prompts in one piece, but they come in {tower.n_chunks} to "
                "save memory; leave --cuda-graphs out."
            )
        for name in self.context_names:
            example = getattr(self, name).detach().clone().requires_grad_()
            recorded = torch.cuda.make_graphed_callables(tower, (example,))
            self._vectors_of[name] = cast("Callable[[Tensor], Tensor]", recorded)

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
        wanted = self.tower.context_shape
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
        """Unit rows of the present contexts, differentiable unless gradients are off."""
        return ClassVectors(
            normalize(self._vectors_of[GLOBAL](self.global_contexts), dim=1),
            normalize(self._vectors_of[LOCAL](self.local_contexts), dim=1),
        )

    forward = class_vectors


class DualPromptLearner(ContextLearner):
    """DualCoOp's pair of prompts per class, for its presence and its absence, and two learned temperatures.

    Sun et al., NeurIPS 2022, arXiv 2206.09541; the form in which TaI-DPT (arXiv 2211.12739) is combined with prompts
    learned on partly labelled images.

    Attributes:
        positive_contexts: [K, W], or [C, K, W] for class-specific ones (DualCoOp's default); fp32; drawn first.
        negative_contexts: the same.
        temperature: scalar, see `dual_scores`.
        spatial_temperature: the same.
    """

    context_names = (POSITIVE, NEGATIVE)
    positive_contexts: nn.Parameter
    negative_contexts: nn.Parameter

    def __init__(self, tower: PromptTower, *, seed: int = 1, words: Tensor | None = None) -> None:
        """As `ContextLearner`."""
        super().__init__(tower, seed=seed, words=words)
        self.temperature = nn.Parameter(torch.tensor(DUAL_TEMPERATURE, device=tower.device))
        self.spatial_temperature = nn.Parameter(torch.tensor(DUAL_TEMPERATURE, device=tower.device))

    def class_vectors(self) -> DualVectors:
        """Vectors of presence, for coarse and for fine vectors the same, vectors of absence, and both temperatures."""
        positive_CD = normalize(self._vectors_of[POSITIVE](self.positive_contexts), dim=1)
        negative_CD = normalize(self._vectors_of[NEGATIVE](self.negative_contexts), dim=1)
        return DualVectors(positive_CD, positive_CD, negative_CD, self.temperature, self.spatial_temperature)

    forward = class_vectors


@dataclass(frozen=True, eq=False)
class LearnerStart:
    """What learns, and from what it starts: everything but the seed.

    Attributes:
        tower: over the names of the classes.
        words: embeddings [k, W] that take the contexts nearest to the name; None for none.
        contexts: to start from, by name; None for those drawn at random.
        is_dual: prompts for presence and absence (`DualPromptLearner`), not for coarse and fine vectors.
        cuda_graphs: record the way through the text tower once and replay it; for GPUs and few classes.
    """

    tower: PromptTower
    words: Tensor | None = None
    contexts: Mapping[str, Tensor] | None = None
    is_dual: bool = False
    cuda_graphs: bool = False

    def learner(self, seed: int) -> ContextLearner:
        """Contexts at their start.

        Raises:
            UserError: as `ContextLearner`, its `load_contexts` and its `record_graphs`.
        """
        kind = DualPromptLearner if self.is_dual else PromptLearner
        learner = kind(self.tower, seed=seed, words=self.words)
        if self.contexts is not None:
            learner.load_contexts(self.contexts)
        if self.cuda_graphs:
            learner.record_graphs()
        return learner
