"""Those who take a tuning step in `bench_tune`: the published code's way and the engine's loop, which are compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tai_benchmarks.tune_problem import TuneProblem, write_store
from tai_engine.tuning import Tuner
from tai_engine.tuning.objective import score_sentences, tuning_loss
from tai_engine.tuning.sentence_table import split_sentences

_CHECKED_SENTENCES = 8
_TOLERANCE = 1e-3


class WrongStepError(RuntimeError):
    """Our step is not the published one."""


def check_step(problem: TuneProblem) -> float:
    """The larger relative error of our two gradients against the published ones, on a few sentences.

    Raises:
        WrongStepError: for a loss or a gradient that is off by more than a thousandth.
    """
    tokens_NL, labels = problem.sentence_tokens(_CHECKED_SENTENCES), problem.labels(_CHECKED_SENTENCES)
    labels_NC = _dense(labels, problem.classes).to(problem.device)
    published, ours = problem.published(), problem.learner()
    expected = published.loss(tokens_NL.to(problem.device), labels_NC.float())
    expected.backward()
    scores = score_sentences(problem.encode(tokens_NL), ours.class_vectors(), problem.config)
    found = tuning_loss(scores, labels_NC, problem.config)
    found.backward()
    errors = [abs(float(found.detach() / expected.detach()) - 1)]
    for name, parameter in ours.named_parameters():
        wanted, got = published.get_parameter(name).grad, parameter.grad
        assert wanted is not None
        assert got is not None
        errors.append(float((got - wanted).norm() / wanted.norm()))
    if not max(errors) <= _TOLERANCE:
        raise WrongStepError(f"our loss and gradients are off by {errors}")
    return max(errors[1:])


def published_step(problem: TuneProblem, tokens_NL: Tensor, labels: list[tuple[int, ...]]) -> Callable[[], object]:
    """One step of the baseline, its sentences encoded within it."""
    tuning, labels_NC = problem.published(), _dense(labels, problem.classes).float().to(problem.device)
    on_device_NL = tokens_NL.to(problem.device)
    recipe = problem.config
    optimizer = torch.optim.SGD(
        tuning.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )

    def step() -> float:
        optimizer.zero_grad()
        loss = tuning.loss(on_device_NL, labels_NC)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def our_step(problem: TuneProblem, folder: Path) -> Callable[[], object]:
    """One step of the loop that `tai tune` runs, over a store of a few batches made in ``folder``."""
    store = write_store(folder / "sentences.zarr", problem, batches=4)
    tuner = Tuner(split_sentences(store, 0), problem.learner(), problem.config)
    steps = tuner.steps()
    return lambda: next(steps)


def _dense(labels: list[tuple[int, ...]], classes: int) -> Tensor:
    labels_NC = torch.zeros(len(labels), classes, dtype=torch.bool)
    for row, present in zip(labels_NC, labels, strict=True):
        row[list(present)] = True
    return labels_NC
