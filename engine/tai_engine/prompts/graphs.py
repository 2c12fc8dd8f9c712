"""The way through the text tower, forward and back, recorded once as CUDA graphs and replayed at every step.

A step of few classes launches thousands of small kernels; what the GPU waits for is then Python. Shapes never change
while prompts are tuned, so that the launches can be recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from tai_engine.errors import UserError
from tai_engine.prompts.tower import PromptTower

ContextsToVectors = Callable[[Tensor], Tensor]


def record_graphs(tower: PromptTower, contexts: Tensor) -> ContextsToVectors:
    """What ``tower`` does with contexts like the given ones, replayed instead of launched anew.

    The result of a call is overwritten by the next call: record one for each set of contexts. Memory: all that one step
    through the tower needs, kept for good.

    Args:
        tower: on a CUDA device, its prompts in one piece (few enough classes for its ``memory_bytes``).
        contexts: `PromptTower.context_shape`, on the tower's device; only their shape and dtype count.

    Raises:
        UserError: for another device, or prompts in several pieces.
    """
    if tower.device.type != "cuda":
        raise UserError(
            f"CUDA graphs need a CUDA GPU, but the text tower is on {tower.device}; leave --cuda-graphs out."
        )
    if tower.n_chunks > 1:
        raise UserError(
            f"CUDA graphs need all {tower.n_classes} prompts in one piece, but they come in {tower.n_chunks} to save "
            "memory; leave --cuda-graphs out."
        )
    example = contexts.detach().clone().requires_grad_()
    return cast("ContextsToVectors", torch.cuda.make_graphed_callables(tower, (example,)))
