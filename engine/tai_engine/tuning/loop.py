"""The loop: sentences in, contexts learned, a step at a time; every step may be the last, and the run can go on.

Shape legend: B sentences of a batch, C classes, D embedding size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.prompts.learner import ClassVectors, PromptLearner
from tai_engine.tuning.checkpoint import EpochMetrics, RunState
from tai_engine.tuning.config import TuningConfig
from tai_engine.tuning.held_out import HeldOut, evaluate, score_sentences, tuning_loss
from tai_engine.tuning.negatives.strategies import MinedNegatives, Strategy, describe, make_strategy, mix_into_batch
from tai_engine.tuning.noise import disturbed
from tai_engine.tuning.order import EpochOrder, mixing_generator, noise_generator
from tai_engine.tuning.run_folder import RunFolder
from tai_engine.tuning.sentence_table import SentenceStore, SentenceTable, Split, StoredVectors

CHECKPOINT_SECONDS = 60.0


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


def batch_loss(learner: PromptLearner, batch: FeatureBatch, labels_BC: Tensor, config: TuningConfig) -> Tensor:
    """The loss of a batch, differentiable w.r.t. the contexts.

    Args:
        learner: the contexts.
        batch: features of B sentences.
        labels_BC: [B, C] bool.
        config: the recipe.
    """
    return tuning_loss(score_sentences(batch, learner.class_vectors(), config), labels_BC, config)


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
        store: SentenceStore,
        split: Split,
        learner: PromptLearner,
        config: TuningConfig,
        *,
        folder: RunFolder | None = None,
        progress: Callable[[StepProgress], None] | None = None,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        evaluate_epochs: bool = True,
    ) -> None:
        """Begin a run, or take up the one in ``folder``.

        Args:
            store: where the sentences are.
            split: which of them train.
            learner: with the contexts to start from.
            config: the recipe.
            folder: for checkpoints and figures; None writes nothing.
            progress: called after every step.
            checkpoint_seconds: a checkpoint is written after so many, and after every epoch.
            evaluate_epochs: look at the held-out sentences after every epoch.

        Raises:
            UserError: as `load_checkpoint`.
        """
        self.learner = learner
        self._store = store
        self._split = split
        self._config = config
        self._folder = folder
        self._progress = progress
        self._checkpoint_seconds = checkpoint_seconds
        self._evaluate_epochs = evaluate_epochs
        self._optimizer = torch.optim.SGD(
            learner.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.order = EpochOrder(
            store,
            split.training,
            batch_size=config.batch_size,
            seed=config.seed,
            window_groups=config.window_groups,
        )
        self._strategy: Strategy | None = None
        self._last_good: dict[str, Tensor] = {}
        self._updating = False
        self._saved_at = time.monotonic()
        self.state = (folder.load() if folder else None) or RunState()
        if self.state.contexts:
            learner.load_contexts(self.state.contexts)
            self._optimizer.load_state_dict(self.state.optimizer)

    def run(self, max_steps: int | None = None) -> None:
        """Train to the end and take the contexts that are kept; or until ``max_steps`` steps are done in all.

        Raises:
            DivergedError: when the loss is not finite.
            KeyboardInterrupt: after the state was saved.
        """
        try:
            if max_steps is None or self.state.step < max_steps:
                for progress in self.steps():
                    if self._progress:
                        self._progress(progress)
                    if max_steps is not None and self.state.step >= max_steps:
                        return
        except KeyboardInterrupt:
            # Within an update contexts and momentum may not fit together: then the last checkpoint stands.
            if not self._updating:
                self._save()
            raise
        if self.state.finished and self._config.keep == "best":
            self.learner.load_contexts(self.state.best_contexts)

    def steps(self) -> Iterator[StepProgress]:
        """Train a step each time that the next one is asked for, to the end of the run.

        Raises:
            DivergedError: when the loss is not finite.
        """
        state, per_epoch = self.state, self.order.steps
        while not state.finished:
            epoch = len(state.history)
            last_map = state.history[-1].held_out_map if state.history else None
            begun = time.perf_counter()  # reading the sentences is part of a step
            for batch, indices_B in self.order.batches(epoch, state.step - epoch * per_epoch):
                value = self._train_on(batch, indices_B, epoch, begun)
                if self._folder and time.monotonic() - self._saved_at > self._checkpoint_seconds:
                    self._save()
                yield StepProgress(
                    step=state.step,
                    steps=self._config.epochs * per_epoch,
                    epoch=epoch + 1,
                    loss=value,
                    learning_rate=self._config.learning_rate_of(epoch),
                    steps_per_second=(state.step - epoch * per_epoch) / state.seconds,
                    held_out_map=last_map,
                )
                begun = time.perf_counter()
            self._finish_epoch(epoch)

    def class_vectors(self) -> ClassVectors:
        """Of the present contexts, without a gradient.

        Raises:
            DivergedError: when they are not finite.
        """
        with torch.no_grad():
            vectors = self.learner.class_vectors()
        if not all(bool(rows.isfinite().all()) for rows in vectors):
            raise self._diverged(min(len(self.state.history), self._config.epochs - 1))
        return vectors

    def evaluate(self) -> HeldOut | None:
        """Figures of the present contexts over the held-out sentences; None without any."""
        if not len(self._split.held_out):
            return None
        return evaluate(self._store, self._split.held_out, self.class_vectors(), self._config)

    # One step

    def _train_on(self, batch: FeatureBatch, indices_B: Tensor, epoch: int, begun: float) -> float:
        """One step, which began at ``begun``; returns the loss before it."""
        state = self.state
        batch, labels_BC = self._with_negatives(batch, indices_B)
        batch = disturbed(batch, self._config.noise, noise_generator(self._config.seed, state.step))
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate_of(epoch)
        self._optimizer.zero_grad(set_to_none=True)
        loss = batch_loss(self.learner, batch, labels_BC, self._config)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(epoch)
        loss.backward()
        self._updating = True
        self._remember()
        self._optimizer.step()
        state.step += 1
        state.loss_sum += value
        state.seconds += time.perf_counter() - begun
        self._updating = False
        return value

    def _with_negatives(self, batch: FeatureBatch, indices_B: Tensor) -> tuple[FeatureBatch, Tensor]:
        """The batch with its mined share, each sentence once, and its labels [B, C]."""
        config, state, training = self._config.negatives, self.state, self._split.training
        if config.strategy != "none" and config.refresh_is_due(state.step, self.order.steps):
            period = self.order.steps if config.refresh == "epoch" else int(config.refresh)
            state.mined = self._mine(state.step // period)
        if state.mined is not None:
            mixed_B = mix_into_batch(
                indices_B, state.mined, config.share, mixing_generator(self._config.seed, state.step)
            )
            kept = len(indices_B) - round(config.share * len(indices_B))
            if mixed_B is not indices_B:
                own, mined = mixed_B[:kept], torch.unique(mixed_B[kept:])
                mined = mined[~torch.isin(mined, own)]
                parts = [batch[:kept]] if kept else []
                if len(mined):
                    parts.append(self._store.read_items(training.positions[mined]))
                batch, indices_B = FeatureBatch.concatenate(parts), torch.cat([own, mined])
        return batch, training.labels(indices_B)

    def _mine(self, refresh: int) -> MinedNegatives:
        training = self._split.training
        if self._strategy is None:
            vectors = StoredVectors(self._store, training)
            device = "auto" if self.learner.tower.device.type == "cuda" else "cpu"
            self._strategy = make_strategy(self._config.negatives, vectors, training.holders(), device=device)
        with torch.no_grad():
            queries_CD = normalize(self.learner.tower(self.learner.global_contexts), dim=1)
        mined = self._strategy.mine(queries_CD, refresh)
        if self._folder and self._store.spec.has_text:
            lines = describe(mined, self._store.class_names, self._texts)
            title = (
                f"{self._config.negatives.strategy} negatives before step {self.state.step + 1}, {len(mined)} in all"
            )
            self._folder.write_mined(title, lines)
        return mined

    def _texts(self, sentences: object) -> list[str]:
        return self._store.read_texts(self._split.training.positions[torch.as_tensor(sentences, dtype=torch.int64)])

    def _remember(self) -> None:
        """Keep the contexts whose loss was just found to be finite."""
        for name, parameter in self.learner.named_parameters():
            if name in self._last_good:
                self._last_good[name].copy_(parameter.detach())
            else:
                self._last_good[name] = parameter.detach().clone()

    def _diverged(self, epoch: int) -> DivergedError:
        """Go back to the last good contexts; the error that says so."""
        if self._last_good:
            self.learner.load_contexts(self._last_good)
        rate = self._config.learning_rate_of(epoch)
        return DivergedError(
            f"The loss is not finite at step {self.state.step + 1} (epoch {epoch + 1}, learning rate {rate:g}), so the "
            "run stops with the contexts of the step before; take a lower learning rate."
        )

    # One epoch

    def _finish_epoch(self, epoch: int) -> None:
        config, state = self._config, self.state
        found = self.evaluate() if self._evaluate_epochs else None
        metrics = EpochMetrics(
            epoch=epoch + 1,
            steps=state.step,
            loss=state.loss_sum / self.order.steps,
            learning_rate=config.learning_rate_of(epoch),
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
        self._save()
        if self._folder:
            self._folder.write_metrics(state.history)

    def _save(self) -> None:
        contexts = self.learner.contexts()
        # Nothing could go on from contexts that are no numbers.
        if self._folder is None or not all(bool(rows.isfinite().all()) for rows in contexts.values()):
            return
        self.state.contexts = contexts
        self.state.optimizer = self._optimizer.state_dict()
        self._folder.save(self.state)
        self._saved_at = time.monotonic()


def table_of_classes(
    names: tuple[str, ...], training: SentenceTable, held_out: SentenceTable, found: HeldOut | None
) -> list[dict[str, object]]:
    """A row per class: its sentences, and its average precision where it is held out."""
    trained, held = training.class_counts().tolist(), held_out.class_counts().tolist()
    rows = []
    for c, name in enumerate(names):
        row: dict[str, object] = {"class": name, "training_sentences": trained[c], "held_out_sentences": held[c]}
        for kind in ("merged", "coarse", "fine"):
            value = float("nan") if found is None else float(getattr(found, kind).values[c])
            row[f"ap_{kind}"] = None if math.isnan(value) else value
        rows.append(row)
    return rows
