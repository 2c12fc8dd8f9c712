"""Constants for a model whose similarities lie in another range than those of the published one.

The published learning rate and temperature belong to OpenAI's RN50. Others are found by short runs, each judged by the
sentences that are held out; no picture takes part. What sentences cannot tell stays in the published relation: the
temperature for pictures is 0.8 of that for sentences.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tai_engine.errors import ItemError, UserError
from tai_engine.files import write_atomically
from tai_engine.json_documents import parse_json, read_json
from tai_engine.tuning.config import NegativeConfig, TuningConfig
from tai_engine.tuning.loop import DivergedError, Tuner
from tai_engine.tuning.objective import evaluate
from tai_engine.tuning.task import TuningTask

NAME = "constants.json"
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class ConstantsGrid:
    """What is tried, from careful to bold.

    Attributes:
        learning_rates: of the short runs, constant and without a warm-up.
        text_temperatures: tau for sentences.
        steps: of each short run.

    Raises:
        UserError: for an empty list or fewer than one step.
    """

    learning_rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    text_temperatures: tuple[float, ...] = (12.5, 25.0, 50.0, 100.0)
    steps: int = 40

    def __post_init__(self) -> None:
        if not self.learning_rates or not self.text_temperatures or self.steps < 1:
            raise UserError("Finding constants needs at least one learning rate, one temperature and one step.")


@dataclass(frozen=True)
class Trial:
    """One short run; its figures are None if the loss went wrong.

    Attributes:
        learning_rate: tried; above 0.
        text_temperature: tried; above 0.
        merged: held-out mAP of the merged scores, from 0 to 1.
        coarse: of the coarse ones.
        fine: of the fine ones.
        loss: of the held-out sentences; with another temperature it is another measure.
    """

    learning_rate: float
    text_temperature: float
    merged: float | None = None
    coarse: float | None = None
    fine: float | None = None
    loss: float | None = None


@dataclass(frozen=True)
class FoundConstants:
    """What was tried and what was best.

    Attributes:
        trials: all short runs.
        best: the one with the highest held-out mAP of the merged scores; of equal ones the first.
    """

    trials: tuple[Trial, ...]
    best: Trial

    def apply(self, config: TuningConfig) -> TuningConfig:
        """``config`` with the constants found; the warm-up's rate keeps its relation to the learning rate."""
        return replace(
            config,
            learning_rate=self.best.learning_rate,
            warmup_learning_rate=config.warmup_learning_rate * self.best.learning_rate / config.learning_rate,
            text_temperature=self.best.text_temperature,
        )

    def describe(self) -> str:
        """What was chosen and why, with the limit of the method."""
        equal = sum(trial.merged == self.best.merged for trial in self.trials)
        tie = f", the first of {equal} equal ones" if equal > 1 else ""
        edges = [name.replace("_", " ") for name in ("learning_rate", "text_temperature") if self._is_at_edge(name)]
        edge = f"The best {' and '.join(edges)} lies at the edge of what was tried. " if edges else ""
        return (
            f"Chosen: learning rate {self.best.learning_rate:g} and temperature {self.best.text_temperature:g}, with "
            f"the best held-out mAP of {len(self.trials)} short runs ({100 * (self.best.merged or 0):.2f} %{tie}). "
            f"{edge}Sentences say nothing of the temperature for pictures; it is 0.8 of this one, as published."
        )

    def _is_at_edge(self, name: str) -> bool:
        tried = [getattr(trial, name) for trial in self.trials]
        return min(tried) < max(tried) and getattr(self.best, name) in (min(tried), max(tried))


def find_constants(
    task: TuningTask,
    config: TuningConfig,
    grid: ConstantsGrid | None = None,
    *,
    folder: Path | None = None,
    progress: Callable[[int, int, Trial], None] | None = None,
) -> FoundConstants:
    """Learning rate and temperature by short runs; for models other than the published one.

    Args:
        task: what to tune.
        config: everything else of the recipe; negatives are left out of the short runs.
        grid: what to try.
        folder: ``constants.json`` is kept there, and not found a second time.
        progress: called after each trial with how many are done, how many there are, and the trial.

    Raises:
        UserError: without held-out sentences, or if the loss went wrong in all trials.
    """
    grid = grid or ConstantsGrid()
    if not len(task.split.held_out):
        raise UserError(
            "Finding constants goes by held-out sentences, but there are none: hold some out, or give more sentences."
        )
    identity = parse_json(json.dumps({"recipe": config.as_recipe(), **task.identity, "grid": asdict(grid)}))
    if folder is not None and (kept := _load(folder / NAME, identity)) is not None:
        return kept
    trials = []
    pairs = list(itertools.product(grid.learning_rates, grid.text_temperatures))
    for number, (rate, temperature) in enumerate(pairs, 1):
        trials.append(_try(task, config, rate, temperature, grid.steps))
        if progress:
            progress(number, len(pairs), trials[-1])
    finished = [trial for trial in trials if trial.merged is not None]
    if not finished:
        raise UserError("The loss went wrong with every learning rate that was tried; check the sentences' features.")
    found = FoundConstants(tuple(trials), max(finished, key=lambda trial: trial.merged or 0.0))
    if folder is not None:
        write_atomically(folder / NAME, json.dumps({"identity": identity, **asdict(found)}, indent=2) + "\n")
    return found


def _load(path: Path, identity: dict[str, Any]) -> FoundConstants | None:
    """What was found before under the same identity; None for whatever else is there, which is found anew."""
    try:
        content = read_json(path, _MOST_BYTES)
        if content["identity"] != identity:
            return None
        trials = tuple(Trial(**trial) for trial in content["trials"])
        best = Trial(**content["best"])
    except (ItemError, ValueError, KeyError, TypeError):
        return None
    figures = [value for trial in trials for value in vars(trial).values() if value is not None]
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in figures):
        return None
    return FoundConstants(trials, best) if best in trials and best.merged is not None else None


def _try(task: TuningTask, config: TuningConfig, rate: float, temperature: float, steps: int) -> Trial:
    short = replace(
        config,
        learning_rate=rate,
        text_temperature=temperature,
        schedule="constant",
        warmup_epochs=0,
        patience=None,
        keep="last",
        epochs=steps,  # never fewer than are wanted: the number of steps is what ends it
        negatives=NegativeConfig(strategy="none"),
    )
    # Nothing is judged before the end.
    split = task.split._replace(held_out=task.split.held_out.subset(torch.zeros(len(task.split.held_out)).bool()))
    tuner = Tuner(split, task.start.learner(short.seed), short)
    try:
        for _ in itertools.islice(tuner.steps(), steps):
            pass
        found = evaluate(task.split.held_out, tuner.class_vectors(), short)
    except DivergedError:
        return Trial(rate, temperature)
    return Trial(rate, temperature, found.merged.mean, found.coarse.mean, found.fine.mean, found.loss)
