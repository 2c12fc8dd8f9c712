"""The part of the demonstration that learns: captions into a store, prompts out of it, and what they are worth.

Shape legend: N photographs, C classes.
"""

from __future__ import annotations

import gzip
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tai_engine.caching.report import CacheReport, ProgressCallback
from tai_engine.caching.texts import cache_corpus
from tai_engine.demo.material import CAPTIONS, LABELLED_STORE, LABELS, MODEL
from tai_engine.encoders import Encoder
from tai_engine.encoders.embedded import constants_of
from tai_engine.evaluation.bootstrap import Comparison, compare
from tai_engine.evaluation.truth import load_truth
from tai_engine.features import FeatureBatch
from tai_engine.files import write_atomically
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.sentences.corpus import CorpusOptions, LabelledCorpus, published_templates
from tai_engine.store import FeatureStore
from tai_engine.tagging.scoring import SCORES, Which, default_scoring, score
from tai_engine.tuning import TuningConfig
from tai_engine.vocabulary import Vocabulary

TEMPLATES = 8


def cache_captions(
    folder: Path, count: int, encoder: Encoder, vocabulary: Vocabulary, progress: ProgressCallback | None = None
) -> CacheReport:
    """The first ``count`` built-in captions into ``folder/captions.jsonl``, those that name a class beside it.

    Raises:
        UserError: if the folder cannot be written.
    """
    file = folder / "captions.jsonl"
    with gzip.open(CAPTIONS, "rt", encoding="utf-8") as lines:
        write_atomically(file, "".join(itertools.islice(lines, count)))
    # A few templates are enough for words that no caption names; all 80 would be half of the sentences.
    corpus = LabelledCorpus(file, vocabulary, CorpusOptions(templates=published_templates()[:TEMPLATES]))
    return cache_corpus(corpus, encoder, captions_place(folder), progress=progress)


def captions_place(folder: Path) -> Path:
    """Where `cache_captions` keeps the store."""
    return folder / "captions.zarr"


def tuning_settings() -> tuple[TuningConfig, str]:
    """The settings that come with the model, and the words that contexts start from."""
    constants = constants_of(MODEL)
    assert constants is not None
    return TuningConfig(**constants.tuning), constants.initial_words


@dataclass(frozen=True, eq=False)
class ReadyPhotographs:
    """Photographs that prompts are held against.

    Attributes:
        features: of N photographs.
        labels: [N, C] int8: +1 there, -1 not there.
    """

    features: FeatureBatch
    labels: NDArray[np.int8]

    @classmethod
    def ready(cls, vocabulary: Vocabulary) -> ReadyPhotographs:
        """The 152 photographs whose features come with the engine. Memory: these."""
        features = FeatureBatch.concatenate(list(FeatureStore.open(LABELLED_STORE).iter_batches()))
        truth = load_truth(LABELS, vocabulary.names)
        row_of = {name: row for row, name in enumerate(truth.ids)}
        return cls(features, truth.labels[[row_of[name] for name in features.ids]])

    def compare(self, first: PromptSet, second: PromptSet) -> dict[Which, Comparison]:
        """Two sets of prompts on the same photographs, by each kind of score, as the prompts want to be scored."""
        return {
            which: compare(self._scores(first, which), self._scores(second, which), self.labels) for which in SCORES
        }

    def _scores(self, prompts: PromptSet, which: Which) -> NDArray[np.float32]:
        scores_NC: NDArray[np.float32] = score(self.features, prompts, default_scoring(prompts, which)).scores.numpy()
        return scores_NC
