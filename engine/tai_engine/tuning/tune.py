"""From a store of labelled sentences to a prompt set."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from tai_engine.errors import UserError
from tai_engine.features import require_same_space
from tai_engine.prompts.learner import ClassVectors, ContextInit, PromptLearner
from tai_engine.prompts.prompt_set import PromptSet, ScoringConstants
from tai_engine.prompts.tokens import tokenize_prompts, word_ids
from tai_engine.prompts.tower import PromptTower
from tai_engine.tuning.checkpoint import EpochMetrics
from tai_engine.tuning.config import TuningConfig
from tai_engine.tuning.held_out import HeldOut
from tai_engine.tuning.loop import DivergedError, StepProgress, Tuner, table_of_classes
from tai_engine.tuning.run_folder import RunFolder
from tai_engine.tuning.sentence_table import SentenceStore, Split, split_sentences
from tai_engine.vocabulary import Vocabulary

_SHOWN_CLASSES = 10

Init: TypeAlias = str | PromptSet | Mapping[str, Tensor] | None
"""What contexts start from: words, tuned prompts, contexts by name, or chance."""


class TextModel(Protocol):
    """What tuning needs of an encoder; `tai_engine.encoders.Encoder` has it."""

    model: Any
    space_key: str
    context_length: int
    logit_scale: float
    precision: str

    def tokenize(self, sentences: Sequence[str], /) -> Tensor:
        """[N, context_length] int64."""


@dataclass(frozen=True, eq=False)
class TuningResult:
    """What came of a run.

    Attributes:
        prompts: the tuned prompt set.
        history: figures of each epoch.
        per_class: a row per class: sentences and, where held out, average precisions.
        held_out: figures of ``prompts``; None without held-out sentences.
        epoch: whose contexts these are, from 1.
        steps: done in all.
        training_sentences: how many.
        held_out_sentences: how many.
        seconds: wall time of this call.
        remarks: what the user should know, a sentence each.
    """

    prompts: PromptSet
    history: tuple[EpochMetrics, ...]
    per_class: tuple[dict[str, object], ...]
    held_out: HeldOut | None
    epoch: int
    steps: int
    training_sentences: int
    held_out_sentences: int
    seconds: float
    remarks: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TuningTask:
    """A store, a text tower and a vocabulary that fit together: everything but the recipe's numbers.

    Attributes:
        store: labelled sentences.
        text_model: the encoder of the store.
        vocabulary: of the labels.
        split: training and held-out sentences.
        tower: over the vocabulary's names.
    """

    store: SentenceStore
    text_model: TextModel
    vocabulary: Vocabulary
    split: Split
    tower: PromptTower

    @classmethod
    def prepare(
        cls, store: SentenceStore, text_model: TextModel, vocabulary: Vocabulary, config: TuningConfig
    ) -> TuningTask:
        """Check that all fit, and read which sentences there are.

        Raises:
            UserError: for a store of pictures, without labels, of another vocabulary or space, or without a sentence to
                train on; and as `PromptTower`.
        """
        check_store(store, vocabulary)
        require_same_space(store.spec.space_key, text_model.space_key, f"The store {store.path}", "the text tower")
        tower = PromptTower(
            text_model.model,
            tokenize_prompts(text_model.tokenize, vocabulary.names, text_model.context_length),
            n_contexts=config.n_contexts,
            class_specific=config.class_specific,
            position=config.position,
        )
        return cls(store, text_model, vocabulary, split_sentences(store, config.held_out), tower)

    def learner(self, config: TuningConfig, init: Init) -> PromptLearner:
        """Contexts at their start, see `tune`."""
        words = None
        if isinstance(init, str):
            tokens = tokenize_prompts(self.text_model.tokenize, self.vocabulary.names, self.text_model.context_length)
            words = self.tower.embed_words(word_ids(self.text_model.tokenize, tokens, init))
        learner = PromptLearner(self.tower, ContextInit(seed=config.seed, words=words))
        if isinstance(init, PromptSet):
            require_same_space(init.space_key, self.store.spec.space_key, "The initial prompt set", "the store")
            learner.load_contexts(init.contexts)
        elif init is not None and not isinstance(init, str):
            learner.load_contexts(init)
        return learner


def check_store(store: SentenceStore, vocabulary: Vocabulary) -> None:
    """Refuse a store that holds no sentences labelled with the vocabulary.

    Raises:
        UserError: saying what is wrong.
    """
    if store.spec.kind != "sentences":
        raise UserError(
            f"The store {store.path} holds {store.spec.kind}, but prompts are tuned on sentences; make a store of them "
            "with `tai cache texts FILE STORE --vocabulary V`."
        )
    labels = store.spec.labels
    if labels is None:
        raise UserError(
            f"The store {store.path} has no labels; make one with `tai cache texts FILE STORE --vocabulary V`."
        )
    if labels.vocabulary_fingerprint != vocabulary.fingerprint or tuple(store.class_names) != vocabulary.names:
        same_name = labels.vocabulary == vocabulary.name
        raise UserError(
            f"The store {store.path} has labels of the vocabulary {labels.vocabulary!r} "
            f"({labels.vocabulary_fingerprint}), but the vocabulary given is "
            f"{'now' if same_name else repr(vocabulary.name)} ({vocabulary.fingerprint}): give the one that labelled "
            "the sentences, or label them anew with `tai cache texts` into another store."
        )


def tune(
    store: SentenceStore,
    text_model: TextModel,
    vocabulary: Vocabulary,
    config: TuningConfig | None = None,
    *,
    init: Init = None,
    run: str | Path | None = None,
    progress: Callable[[StepProgress], None] | None = None,
    cuda_graphs: bool = False,
) -> TuningResult:
    """Learn contexts on the sentences of a store; no picture is ever read (Guo et al., arXiv 2211.12739).

    Memory: see `Tuner`.

    Args:
        store: sentences with labels of ``vocabulary``.
        text_model: the encoder whose features they are.
        vocabulary: what to tag.
        config: the recipe, by default the published one.
        init: words whose embeddings take the contexts nearest to the name, tuned prompts of the same space, or contexts
            by name; None draws them at random.
        run: a folder for checkpoints and figures. A run that was stopped goes on from there, with the same result.
        progress: called after every step.
        cuda_graphs: record the way through the text tower once and replay it; for GPUs and few classes.

    Raises:
        UserError: as `TuningTask.prepare`, `PromptLearner.record_graphs`, `load_checkpoint` and `PromptLearner`; when
            the folder cannot be written.
        DivergedError: when the loss is not finite; the last good prompts are in the run folder then.
    """
    config = config or TuningConfig()
    task = TuningTask.prepare(store, text_model, vocabulary, config)
    return tune_task(task, config, init, run, progress, cuda_graphs)


def identity_of(task: TuningTask, config: TuningConfig, init: Init) -> dict[str, Any]:
    """Everything that decides what comes of a run, as JSON."""
    return {
        "recipe": config.as_recipe(),
        "vocabulary": task.vocabulary.fingerprint,
        "data": task.store.data_fingerprint,
        "space_key": task.store.spec.space_key,
        "features": task.store.spec.recipe_key,
        "init": _describe_init(init),
    }


def tune_task(
    task: TuningTask,
    config: TuningConfig,
    init: Init = None,
    run: str | Path | None = None,
    progress: Callable[[StepProgress], None] | None = None,
    cuda_graphs: bool = False,
) -> TuningResult:
    """`tune` for a task that is prepared already, with the same shape of contexts and held-out share."""
    begun, vocabulary = time.perf_counter(), task.vocabulary
    folder = RunFolder(Path(run), identity_of(task, config, init)) if run is not None else None
    learner = task.learner(config, init)
    if cuda_graphs:
        learner.record_graphs()
    tuner = Tuner(task.store, task.split, learner, config, folder=folder, progress=progress)
    try:
        tuner.run()
        vectors = tuner.class_vectors()
    except DivergedError as error:
        with torch.no_grad():
            vectors = tuner.learner.class_vectors()
        if folder is None or not all(bool(rows.isfinite().all()) for rows in vectors):
            raise
        path = folder.write_last_good(_prompt_set(task, config, tuner, vectors, init, epoch=len(tuner.state.history)))
        raise DivergedError(f"{error} The prompts of the step before are in {path}.") from error
    found = tuner.evaluate()
    per_class = table_of_classes(vocabulary.names, *task.split, found)
    if folder:
        folder.write_per_class(per_class)
    history = tuner.state.history
    epoch = tuner.state.best_epoch if config.keep == "best" else len(history)
    return TuningResult(
        prompts=_prompt_set(task, config, tuner, vectors, init, epoch, found),
        history=tuple(history),
        per_class=tuple(per_class),
        held_out=found,
        epoch=epoch,
        steps=tuner.state.step,
        training_sentences=len(task.split.training),
        held_out_sentences=len(task.split.held_out),
        seconds=time.perf_counter() - begun,
        remarks=tuple(_remarks(task)),
    )


def _describe_init(init: Init) -> str:
    if init is None or isinstance(init, str):
        return "random" if init is None else f"words: {init}"
    contexts = init.contexts if isinstance(init, PromptSet) else init
    sums = {name: f"{float(tensor.double().sum()):.12g}" for name, tensor in sorted(contexts.items())}
    return f"contexts with the sums {json.dumps(sums)}"


def _prompt_set(
    task: TuningTask,
    config: TuningConfig,
    tuner: Tuner,
    vectors: ClassVectors,
    init: Init,
    epoch: int,
    found: HeldOut | None = None,
) -> PromptSet:
    """The learner's prompts with everything that they come from."""
    store, vocabulary = task.store, task.vocabulary
    metadata = {
        "vocabulary": vocabulary.name,
        "vocabulary_fingerprint": vocabulary.fingerprint,
        "data_fingerprint": store.data_fingerprint,
        "recipe_key": str(store.spec.recipe_key),
        "recipe": json.dumps(config.as_recipe(), sort_keys=True),
        "seed": str(config.seed),
        "n_contexts": str(config.n_contexts),
        "position": config.position,
        "class_specific": json.dumps(config.class_specific),
        "init": _describe_init(init),
        "encoder": json.dumps(dict(store.spec.provenance), sort_keys=True),
        "precision": task.text_model.precision,
        "training_sentences": str(len(task.split.training)),
        "held_out_sentences": str(len(task.split.held_out)),
        "epoch": str(epoch),
        "steps": str(tuner.state.step),
    }
    if found is not None:
        metadata |= {"held_out_map": repr(found.merged.mean), "held_out_loss": repr(found.loss)}
    global_CD = vectors.global_vectors.float().cpu()
    # Where sentences have no fine rows the local contexts have learned nothing.
    local_CD = vectors.local_vectors.float().cpu() if store.spec.has_fine else global_CD
    return PromptSet(
        class_names=vocabulary.names,
        global_vectors=global_CD,
        local_vectors=local_CD,
        space_key=str(store.spec.space_key),
        logit_scale=task.text_model.logit_scale,
        method="tuned",
        metadata=metadata,
        contexts=tuner.learner.contexts(),
        constants=ScoringConstants(config.scale, config.temperature_for_images),
    )


def _remarks(task: TuningTask) -> list[str]:
    counts = task.split.training.class_counts()
    missing = [name for name, count in zip(task.vocabulary.names, counts.tolist(), strict=True) if not count]
    lines = []
    if missing:
        shown = ", ".join(map(repr, missing[:_SHOWN_CLASSES]))
        more = f" and {len(missing) - _SHOWN_CLASSES} more" if len(missing) > _SHOWN_CLASSES else ""
        lines.append(
            f"No training sentence names {len(missing)} of {len(counts)} classes ({shown}{more}): their prompts have "
            "learned from other classes only; add sentences or synonyms, or let `tai cache texts` add templates."
        )
    if not task.store.spec.has_fine:
        lines.append("The sentences have no token vectors, so the fine prompts are copies of the coarse ones.")
    return lines
