"""The loop: sentences in, contexts learned, a step at a time; every step may be the last, and the run can go on.

Shape legend: B sentences of a batch, C classes, D embedding size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.files import write_atomically
from tai_engine.prompts.learner import ClassVectors, ContextLearner, DualVectors
from tai_engine.tuning.config import TuningConfig
from tai_engine.tuning.epoch_metrics import EpochMetrics
from tai_engine.tuning.negatives.strategies import NegativeMiner
from tai_engine.tuning.objective import disturbed, evaluate, score_sentences, tuning_loss
from tai_engine.tuning.run_folder import MINED, RunFolder, RunSizes, RunState
from tai_engine.tuning.sentence_table import MIX, NOISE, EpochOrder, Split, generator_of

CHECKPOINT_SECONDS = 60.0
"""A checkpoint is written after so many, and after every epoch."""


class DivergedError(UserError):
    """The loss is no number any more. The learner holds the last contexts whose loss was one."""


@dataclass(frozen=True)
class StepProgress:
    """What is known after a step.

    Attributes:
        step: steps done.
        steps: of the whole run.
        epoch: from 1.
        loss: of the step's batch.
        learning_rate: of the step.
        steps_per_second: mean rate of the epoch so far.
        held_out_map: of the last finished epoch, None before or without held-out sentences.
    """

    step: int
    steps: int
    epoch: int
    loss: float
    learning_rate: float
    steps_per_second: float
    held_out_map: float | None


class Tuner:
    """One run over one store.

    On a CPU the contexts that come out depend on store, learner and config alone, to the bit (for a given number of
    threads), however often the run was stopped in between. Memory: the tower's (`PromptTower`), the sentences'
    (`SentenceTable`, `EpochOrder`), those of the negatives (`SentenceIndex`), and six copies of the contexts.

    Attributes:
        learner: its contexts are the ones that learn.
        state: where the run stands.
        order: of the sentences.
    """

    def __init__(
        self,
        split: Split,
        learner: ContextLearner,
        config: TuningConfig,
        *,
        folder: RunFolder | None = None,
    ) -> None:
        """Begin a run, or take up the one in ``folder``.

        Args:
            split: which sentences train, and which are held out.
            learner: with the contexts to start from, also where a run is gone on with.
            config: the recipe.
            folder: for checkpoints and figures; None writes nothing.

        Raises:
            UserError: as `RunFolder.load`.
        """
        self.learner = learner
        self._split = split
        self._config = config
        self._folder = folder
        self._optimizer = torch.optim.SGD(
            learner.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.order = EpochOrder(split.training, config)
        self._miner: NegativeMiner | None = None
        if config.negatives.strategy != "none":
            device = "auto" if learner.tower.device.type == "cuda" else "cpu"
            self._miner = NegativeMiner(split.training, config.negatives, device=device)
        self._updating = False
        self._saved_at = time.monotonic()
        self._start: ClassVectors | DualVectors | None = None
        if config.start_share:
            with torch.no_grad():
                self._start = learner.class_vectors()
        self.state = RunState()
        if folder:
            shapes = {name: tuple(values.shape) for name, values in learner.named_parameters()}
            sizes = RunSizes(shapes, learner.tower.n_classes, len(split.training), config.negatives.per_class)
            self.state = folder.load(sizes) or self.state
        if self.state.contexts:
            learner.load_contexts(self.state.contexts)
            # Rates and the like are the recipe's.
            self._optimizer.load_state_dict({**self._optimizer.state_dict(), **self.state.optimizer})
        self._last_good = {name: contexts.detach().clone() for name, contexts in learner.named_parameters()}

    def steps(self) -> Iterator[StepProgress]:
        """Train a step each time that the next one is asked for, to the end of the run.

        Raises:
            DivergedError: when the loss is not finite.
        """
        state, per_epoch = self.state, self.order.steps
        while not state.finished:
            epoch = len(state.history)
            rate = self._config.learning_rate_of(epoch)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            last_map = state.history[-1].held_out_map if state.history else None
            begun = time.perf_counter()  # reading the sentences is part of a step
            for batch, indices_B in self.order.batches(epoch, state.step - epoch * per_epoch):
                value = self._train_on(batch, indices_B, epoch, begun)
                if self._folder and time.monotonic() - self._saved_at > CHECKPOINT_SECONDS:
                    self.save()
                yield StepProgress(
                    step=state.step,
                    steps=self._config.epochs * per_epoch,
                    epoch=epoch + 1,
                    loss=value,
                    learning_rate=rate,
                    steps_per_second=(state.step - epoch * per_epoch) / state.seconds,
                    held_out_map=last_map,
                )
                begun = time.perf_counter()
            self._finish_epoch(epoch)

    def class_vectors(self) -> ClassVectors | DualVectors:
        """Of the present contexts, without a gradient, and with their share of those of the start.

        Raises:
            DivergedError: when they are not finite.
        """
        with torch.no_grad():
            vectors = self.learner.class_vectors()
        if not all(bool(rows.isfinite().all()) for rows in vectors):
            raise self._diverged(min(len(self.state.history), self._config.epochs - 1))
        if self._start is None:
            return vectors
        share = self._config.start_share
        mixed = {
            name: normalize(share * old + (1 - share) * getattr(vectors, name), dim=1)
            for name, old in self._start._asdict().items()
            if old.ndim == 2  # the temperatures of dual prompts stay what was learned
        }
        return vectors._replace(**mixed)

    def save(self) -> None:
        """Write a checkpoint, where there is a folder; not one from which nothing could go on.

        Raises:
            UserError: when the file system refuses.
        """
        contexts = self.learner.contexts()
        # Within an update contexts and momentum may not fit together: then the last checkpoint stands.
        is_whole = not self._updating and all(bool(rows.isfinite().all()) for rows in contexts.values())
        if self._folder is None or not is_whole:
            return
        self.state.contexts = contexts
        self.state.optimizer = self._optimizer.state_dict()
        self._folder.save(self.state)
        self._saved_at = time.monotonic()

    # One step

    def _train_on(self, batch: FeatureBatch, indices_B: Tensor, epoch: int, begun: float) -> float:
        """One step, which began at ``begun``; returns the loss before it."""
        state, config = self.state, self._config
        if self._miner:
            batch, indices_B = self._with_negatives(self._miner, batch, indices_B)
        if config.noise:
            batch = disturbed(batch, config.noise, generator_of(config.seed, NOISE, state.step))
        self._optimizer.zero_grad(set_to_none=True)
        scores = score_sentences(batch, self.learner.class_vectors(), config)
        loss = tuning_loss(scores, self._split.training.targets(indices_B), config)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(epoch)
        loss.backward()
        self._updating = True
        for name, contexts in self.learner.named_parameters():  # whose loss was just found to be finite
            self._last_good[name].copy_(contexts.detach())
        self._optimizer.step()
        state.step += 1
        state.loss_sum += value
        state.seconds += time.perf_counter() - begun
        self._updating = False
        return value

    def _with_negatives(
        self, miner: NegativeMiner, batch: FeatureBatch, indices_B: Tensor
    ) -> tuple[FeatureBatch, Tensor]:
        """The batch with its mined share, after mining anew where that is due."""
        state, config = self.state, self._config
        refresh = config.negatives.refresh_before(state.step, self.order.steps)
        if refresh is not None:
            with torch.no_grad():
                queries_CD = self.learner.class_vectors().global_vectors
            state.mined = miner.mine(queries_CD, refresh)
            if self._folder and (lines := miner.describe(state.mined)):
                title = f"{config.negatives.strategy} negatives before step {state.step + 1}, {len(state.mined)} in all"
                write_atomically(self._folder.path / MINED, "".join(f"{line}\n" for line in (title, "", *lines)))
        if state.mined is None:
            return batch, indices_B
        return miner.mix(batch, indices_B, state.mined, generator_of(config.seed, MIX, state.step))

    def _diverged(self, epoch: int) -> DivergedError:
        """Go back to the last good contexts; the error that says so."""
        self.learner.load_contexts(self._last_good)
        rate = self._config.learning_rate_of(epoch)
        return DivergedError(
            f"The loss is not finite at step {self.state.step + 1} (epoch {epoch + 1}, learning rate {rate:g}), so the "
            "run stops with the contexts of the step before; take a lower learning rate."
        )

    # One epoch

    def _finish_epoch(self, epoch: int) -> None:
        config, state = self._config, self.state
        found = None
        if len(self._split.held_out):
            found = evaluate(self._split.held_out, self.class_vectors(), config)
        metrics = EpochMetrics(
            epoch=epoch + 1,
            steps=state.step,
            loss=state.loss_sum / self.order.steps,
            learning_rate=self._optimizer.param_groups[0]["lr"],
            held_out_loss=None if found is None else found.loss,
            held_out_map=None if found is None else found.merged.mean,
            held_out_map_coarse=None if found is None else found.coarse.mean,
            held_out_map_fine=None if found is None else found.fine.mean,
            seconds=state.seconds,
            steps_per_second=self.order.steps / state.seconds,
        )
        self._updating = True
        state.history.append(metrics)
        state.loss_sum = state.seconds = 0.0
        if metrics.held_out_map is not None:
            best = state.history[state.best_epoch - 1].held_out_map if state.best_epoch else None
            if best is None or metrics.held_out_map > best:
                state.best_epoch, state.best_contexts = epoch + 1, self.learner.contexts()
        waited = epoch + 1 - state.best_epoch
        state.finished = epoch + 1 == config.epochs or (config.patience is not None and waited >= config.patience)
        self._updating = False
        self.save()
        if self._folder:
            self._folder.write_metrics(state.history)
