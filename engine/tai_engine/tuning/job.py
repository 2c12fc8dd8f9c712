"""A run of tuning from its task to a prompt set: learn, choose the contexts, judge them, and gather what came of it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tai_engine.prompts.learner import ClassVectors, DualVectors
from tai_engine.prompts.prompt_set import PromptSet, ScoringConstants
from tai_engine.tuning.config import TuningConfig
from tai_engine.tuning.epoch_metrics import EpochMetrics
from tai_engine.tuning.loop import DivergedError, StepProgress, Tuner
from tai_engine.tuning.objective import HeldOut, evaluate
from tai_engine.tuning.run_folder import LAST_GOOD, PER_CLASS, RunFolder
from tai_engine.tuning.sentence_table import Split
from tai_engine.tuning.task import TuningTask
from tai_engine.tuning.training_pictures import TrainingPictures

_SHOWN_CLASSES = 10


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
        trained_on: ``"sentences"`` or ``"pictures"``, which the counts above are of.
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
    trained_on: str = "sentences"


def tune(
    task: TuningTask,
    config: TuningConfig,
    run: str | Path | None = None,
    progress: Callable[[StepProgress], None] | None = None,
) -> TuningResult:
    """Learn contexts on the sentences of a store; no picture is ever read (Guo et al., arXiv 2211.12739).

    Memory: see `Tuner`.

    Args:
        task: what to tune, prepared with the same shape of contexts and held-out share.
        config: the recipe.
        run: a folder for checkpoints and figures. A run that was stopped goes on from there, with the same result.
        progress: called after every step.

    Raises:
        UserError: as `LearnerStart.learner` and `RunFolder.load`; when the folder cannot be written.
        DivergedError: when the loss is not finite; the last good prompts are in the run folder then.
        KeyboardInterrupt: after the state was saved.
    """
    begun = time.perf_counter()
    folder = RunFolder(Path(run), {"recipe": config.as_recipe(), **task.identity}) if run is not None else None
    tuner = Tuner(task.split, task.start.learner(config.seed), config, folder=folder)
    state = tuner.state
    try:
        for step in tuner.steps():
            if progress:
                progress(step)
        if config.keep == "best":
            tuner.learner.load_contexts(state.best_contexts)
        vectors = tuner.class_vectors()
    except KeyboardInterrupt:
        tuner.save()
        raise
    except DivergedError as error:
        with torch.no_grad():
            vectors = tuner.learner.class_vectors()
        if folder is None or not all(bool(rows.isfinite().all()) for rows in vectors):
            raise
        _prompt_set(task, config, tuner, vectors, epoch=len(state.history)).save(folder.path / LAST_GOOD)
        raise DivergedError(f"{error} The prompts of the step before are in {folder.path / LAST_GOOD}.") from error
    found = evaluate(task.split.held_out, vectors, config) if len(task.split.held_out) else None
    per_class = _table_of_classes(task.vocabulary.names, task.split, found)
    if folder:
        folder.write_lines(PER_CLASS, per_class)
    epoch = state.best_epoch if config.keep == "best" else len(state.history)
    return TuningResult(
        prompts=_prompt_set(task, config, tuner, vectors, epoch, found),
        history=tuple(state.history),
        per_class=tuple(per_class),
        held_out=found,
        epoch=epoch,
        steps=state.step,
        training_sentences=len(task.split.training),
        held_out_sentences=len(task.split.held_out),
        seconds=time.perf_counter() - begun,
        remarks=tuple(_remarks(task, per_class)),
        trained_on="pictures" if isinstance(task.store, TrainingPictures) else "sentences",
    )


def _prompt_set(
    task: TuningTask,
    config: TuningConfig,
    tuner: Tuner,
    vectors: ClassVectors | DualVectors,
    epoch: int,
    found: HeldOut | None = None,
) -> PromptSet:
    """The learner's prompts with everything that they come from."""
    store, vocabulary = task.store, task.vocabulary
    contexts = tuner.learner.contexts()
    constants = ScoringConstants(config.scale, config.temperature_for_images)
    negative_CD: Tensor | None = None
    if isinstance(vectors, DualVectors):
        # The two factors are learned as logarithms, and kept as every prompt set keeps its own.
        constants = ScoringConstants(
            *(float(t.detach().exp()) for t in (vectors.temperature, vectors.spatial_temperature))
        )
        negative_CD = vectors.negative_vectors.float().cpu()
    metadata = {
        "system": config.system,
        "vocabulary": vocabulary.name,
        "vocabulary_fingerprint": vocabulary.fingerprint,
        "data_fingerprint": task.identity["data"],
        "recipe_key": str(store.spec.recipe_key),
        "recipe": json.dumps(config.as_recipe(), sort_keys=True),
        "seed": str(config.seed),
        "n_contexts": str(config.n_contexts),
        "position": config.position,
        "class_specific": json.dumps(config.class_specific),
        "init": task.identity["init"],
        "encoder": json.dumps(dict(store.spec.provenance), sort_keys=True),
        "precision": task.text_model.precision,
        "training_sentences": str(len(task.split.training)),
        "held_out_sentences": str(len(task.split.held_out)),
        "epoch": str(epoch),
        "steps": str(tuner.state.step),
    }
    if config.normalise != "none":
        metadata["normalise"] = config.normalise
    if task.source is not None:
        metadata["sentences"] = task.source
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
        contexts={name: contexts[name] for name in tuner.learner.context_names},
        constants=constants,
        negative_vectors=negative_CD,
    )


def _remarks(task: TuningTask, per_class: Sequence[Mapping[str, object]]) -> list[str]:
    missing = [row["class"] for row in per_class if not row["training_sentences"]]
    lines = []
    if missing:
        is_pictures = isinstance(task.store, TrainingPictures)
        advice = (
            "label more pictures."
            if is_pictures
            else "add sentences or synonyms, or let `tai cache texts` add templates."
        )
        shown = ", ".join(map(repr, missing[:_SHOWN_CLASSES]))
        more = f" and {len(missing) - _SHOWN_CLASSES} more" if len(missing) > _SHOWN_CLASSES else ""
        lines.append(
            f"No training {'picture shows' if is_pictures else 'sentence names'} {len(missing)} of {len(per_class)} "
            f"classes ({shown}{more}): their prompts have learned from other classes only; {advice}"
        )
    if not task.store.spec.has_fine:
        what = "pictures have no patch" if isinstance(task.store, TrainingPictures) else "sentences have no token"
        lines.append(f"The {what} vectors, so the fine prompts are copies of the coarse ones.")
    return lines


def _table_of_classes(names: tuple[str, ...], split: Split, found: HeldOut | None) -> list[dict[str, object]]:
    """A row per class: its sentences, and its average precision where it is held out."""
    trained, held = split.training.class_counts().tolist(), split.held_out.class_counts().tolist()
    rows = []
    for c, name in enumerate(names):
        row: dict[str, object] = {"class": name, "training_sentences": trained[c], "held_out_sentences": held[c]}
        for kind in ("merged", "coarse", "fine"):
            value = float("nan") if found is None else float(getattr(found, kind).values[c])
            row[f"ap_{kind}"] = None if math.isnan(value) else value
        rows.append(row)
    return rows
