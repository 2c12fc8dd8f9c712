"""The part of ``tai demo`` that learns: sentences into a store, prompts out of it, and how well they tag pictures.

Shape legend: N pictures, C classes.
"""

from __future__ import annotations

from pathlib import Path

import torch

from tai_engine.caching.report import CacheReport, ProgressCallback
from tai_engine.caching.texts import cache_sentences, label_spec
from tai_engine.demo.sentences import embedded_sentences
from tai_engine.encoders import Encoder
from tai_engine.evaluation.measures import mean_average_precision
from tai_engine.evaluation.truth import Truth
from tai_engine.files import write_atomically
from tai_engine.prompts.prompt_set import PromptSet, ScoringConstants
from tai_engine.sentences.corpus import CorpusOptions, LabelledCorpus
from tai_engine.store import FeatureStore
from tai_engine.tagging.scoring import SCORES, ScoringConfig, Which, default_scoring, score
from tai_engine.tuning import TuningConfig, TuningTask
from tai_engine.vocabulary import Vocabulary


def cache_demo_sentences(
    folder: Path, count: int, encoder: Encoder, vocabulary: Vocabulary, progress: ProgressCallback | None = None
) -> CacheReport:
    """The first ``count`` embedded sentences into ``folder/sentences.txt``, their features and labels beside it.

    No template sentences are added: no drawing shows 17 of the 80 words, and the embedded model has learned one and the
    same vector for all of them, so templates of these could not be told apart by any prompt.
    """
    text_path = folder / "sentences.txt"
    if not text_path.exists():
        write_atomically(text_path, "".join(f"{sentence}\n" for sentence in embedded_sentences()[:count]))
    corpus = LabelledCorpus(text_path, vocabulary, CorpusOptions(templates=()))
    sentences = ((one.id, one.text, one.class_indices) for one in corpus)
    return cache_sentences(
        sentences, encoder, sentences_path(folder), labels=label_spec(corpus), progress=progress, total=count
    )


def sentences_path(folder: Path) -> Path:
    """Where `cache_demo_sentences` keeps the store."""
    return folder / "sentences.zarr"


def untuned_prompts(task: TuningTask, config: TuningConfig) -> PromptSet:
    """The prompts that tuning starts from."""
    with torch.no_grad():
        vectors = task.learner(config.seed).class_vectors()
    return PromptSet(
        class_names=task.vocabulary.names,
        global_vectors=vectors.global_vectors.float(),
        local_vectors=vectors.local_vectors.float(),
        space_key=str(task.store.spec.space_key),
        logit_scale=task.text_model.logit_scale,
        method="tuned",
        constants=ScoringConstants(config.scale, config.temperature_for_images),
    )


def precision(store: FeatureStore, truth: Truth, prompts: PromptSet, scoring: ScoringConfig) -> float:
    """mAP from 0 to 1 over the pictures of a store, all of which the truth knows. Memory: the scores [N, C]."""
    row_of = {name: row for row, name in enumerate(truth.ids)}
    rows, scores = [], []
    with torch.inference_mode():
        for batch in store.iter_batches():
            rows += [row_of[name] for name in batch.ids]
            scores.append(score(batch, prompts, scoring).scores)
    return mean_average_precision(torch.cat(scores), truth.labels[rows], prompts.class_names).mean


def precisions(store: FeatureStore, truth: Truth, prompts: PromptSet) -> dict[Which, float]:
    """mAP of each kind of score, with the constants that belong to the prompts."""
    return {which: precision(store, truth, prompts, default_scoring(prompts, which)) for which in SCORES}
