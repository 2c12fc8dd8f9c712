"""How prompts for the embedded model are tuned: the published recipe with constants of this model.

All of them were chosen by held-out sentences alone, see `tai_benchmarks.tuning_search`; what made less than half a
point of difference there stayed as published, but for the hard negatives: with them a run also tells what it mined.
"""

from __future__ import annotations

from dataclasses import replace

from tai_engine.tuning.config import NegativeConfig, TuningConfig
from tai_engine.vocabulary import Vocabulary, VocabularyClass

INITIAL_WORDS = "a photo of a"
"""What the contexts next to the name start from; the others are drawn at random."""


def tuning_recipe() -> TuningConfig:
    """For names that the model knows."""
    return TuningConfig(
        learning_rate=1e-2,
        warmup_learning_rate=1e-3,
        held_out=0.1,
        noise=2.0,
        negatives=NegativeConfig(strategy="hard"),
    )


def own_names(vocabulary: Vocabulary) -> Vocabulary:
    """The same classes under names that say nothing, "article 101" and so on; their words become synonyms."""
    classes = tuple(
        VocabularyClass(f"article {number}", entry.words) for number, entry in enumerate(vocabulary.classes, 101)
    )
    return Vocabulary(f"{vocabulary.name} under numbers", classes, other_names=vocabulary.other_names)


def own_names_recipe() -> TuningConfig:
    """For such names: shared contexts cannot tell them apart, so every class learns its own, all from chance."""
    return replace(
        tuning_recipe(),
        class_specific=True,
        learning_rate=0.1,
        warmup_learning_rate=0.01,
        negatives=NegativeConfig(strategy="none"),
    )
