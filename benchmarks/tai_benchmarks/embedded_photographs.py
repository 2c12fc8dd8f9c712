"""The embedded model with its photographs, their labels and captions, as `systems_table` measures on them."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tai_benchmarks.photo_tuning import ready_photographs, recipe
from tai_engine.caching.texts import cache_sentences, label_spec
from tai_engine.encoders import Encoder, load_encoder
from tai_engine.encoders.embedded import constants_of, embedded_folder
from tai_engine.evaluation.truth import Truth
from tai_engine.files import write_atomically
from tai_engine.label_free.teaching_sentences import written_sentences
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.sentences.corpus import CorpusOptions, LabelledCorpus
from tai_engine.store import FeatureStore
from tai_engine.tagging.scoring import default_scoring, score
from tai_engine.tuning import TuningConfig, TuningTask, tune
from tai_engine.vocabulary import Vocabulary, load_vocabulary

Scores = NDArray[np.floating]
CAPTION_STEP = 4


@dataclass(frozen=True, eq=False)
class Photographs:
    """The model 'photos' with its photographs, their truth in the order of the store, and its sentences."""

    encoder: Encoder
    vocabulary: Vocabulary
    store: FeatureStore
    truth: Truth
    sentences: FeatureStore
    work: Path

    @staticmethod
    def open(work: Path) -> Photographs:
        """Load all of it; sentences (every fourth caption) are encoded into ``work`` once."""
        folder, vocabulary = embedded_folder("photos"), load_vocabulary("coco80")
        assert folder is not None
        encoder = load_encoder("photos", "", device="cpu")
        captions = work / "captions.jsonl"
        if not captions.exists():
            lines = gzip.decompress((folder / "coco_captions.jsonl.gz").read_bytes()).splitlines(keepends=True)
            write_atomically(captions, b"".join(lines[CAPTION_STEP - 1 :: CAPTION_STEP]))
        corpus = LabelledCorpus(captions, vocabulary, CorpusOptions())
        named = ((one.id, one.text, one.class_indices) for one in corpus)
        cache_sentences(named, encoder, work / "sentences.zarr", labels=label_spec(corpus))
        ready = ready_photographs(vocabulary)
        truth = Truth(ready.features.ids, vocabulary.names, ready.labels)
        store = FeatureStore.open(folder / "coco_photographs.zarr")
        return Photographs(encoder, vocabulary, store, truth, FeatureStore.open(work / "sentences.zarr"), work)

    def scores(self, prompts: PromptSet, which: Any, normalisation: str = "standard") -> Scores:
        """[N, C] of all photographs."""
        config = replace(default_scoring(prompts, which), normalise=normalisation)
        with torch.inference_mode():
            found = [score(batch, prompts, config).scores for batch in self.store.iter_batches()]
        return torch.cat(found).numpy()

    def tuned(self, name: str, source: Any, config: TuningConfig, start: str | None) -> PromptSet:
        """Prompts of one run, which is kept in the folder of work and gone on with there."""
        task = TuningTask.prepare(source, self.encoder, self.vocabulary, config, start)
        return tune(task, config, self.work / "runs" / name).prompts

    def from_sentences(self, seed: int) -> PromptSet:
        """TaI-DPT's prompts, with the settings that come with the model."""
        constants = constants_of("photos")
        assert constants is not None
        config = replace(recipe(), seed=seed)
        return self.tuned(f"tai-dpt-{seed}", self.sentences, config, constants.initial_words)

    def written_sentences(self) -> tuple[Tensor, Tensor]:
        """Coarse vectors [M, D] fp32 and labels [M, C] bool, as `tai tag --linear-head` learns from them."""
        batches = list(written_sentences(self.sentences))
        return torch.cat([rows for rows, _ in batches]), torch.cat([holds for _, holds in batches])
