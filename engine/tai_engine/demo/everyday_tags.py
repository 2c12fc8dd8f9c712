"""Photographs tagged with everyday words that are more likely than not.

Some words of a vocabulary are near to everything (hubs): one threshold for all scores would write them below every
picture. So each word's scores are made probabilities first, by how often captions name it and by the scores that
photographs without any label have. No labelled picture is needed, and no threshold has to be chosen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tai_engine.annotating.calibrate_store import calibrate_by_rates
from tai_engine.calibration.calibration import Calibration
from tai_engine.demo.material import CAPTIONS, LABELLED_STORE
from tai_engine.encoders import Encoder
from tai_engine.prompts.prompt_set import PromptSet, zero_shot_prompts
from tai_engine.sentences.nouns import NounFilter
from tai_engine.sentences.read import read_sentences
from tai_engine.store import FeatureStore
from tai_engine.tagging.batch_loop import TagReport, tag_store
from tai_engine.tagging.scoring import default_scoring
from tai_engine.tagging.tag_selection import Selection
from tai_engine.vocabulary import Vocabulary, load_vocabulary

VOCABULARY = "everyday"
MORE_LIKELY_THAN_NOT = 0.5


def rates_in_captions(captions: Path, vocabulary: Vocabulary) -> dict[str, float]:
    """The share of photographs that have a caption in which a class is named.

    Half a photograph is added to every count and one to their number, so that no rate is 0.

    Memory: the classes of every photograph.

    Args:
        captions: a file of sentences that name their photographs.
        vocabulary: the classes.
    """
    nouns = NounFilter(vocabulary)
    named: dict[str | None, set[int]] = defaultdict(set)
    for sentence in read_sentences(captions):
        named[sentence.image_id].update(nouns.classes_in(sentence.text))
    counts = [0] * len(vocabulary)
    for classes in named.values():
        for number in classes:
            counts[number] += 1
    return {name: (count + 0.5) / (len(named) + 1) for name, count in zip(vocabulary.names, counts, strict=True)}


@dataclass(frozen=True)
class EverydayTags:
    """What came of it.

    Attributes:
        prompts: of the words.
        calibration: their scores to probabilities.
        tagging: with the file.
    """

    prompts: PromptSet
    calibration: Calibration
    tagging: TagReport


def tag_with_everyday_words(
    store: FeatureStore, encoder: Encoder, out: Path, progress: Callable[[int, int | None], None] | None = None
) -> EverydayTags:
    """Tag a store of the embedded model with what is more likely there than not.

    Args:
        store: of pictures.
        encoder: of the same space.
        out: the file of tags.
        progress: called with pictures done and in all.

    Raises:
        UserError: when ``out`` cannot be written.
    """
    vocabulary = load_vocabulary(VOCABULARY)
    prompts = zero_shot_prompts(encoder, vocabulary)
    scoring = default_scoring(prompts)
    others = FeatureStore.open(LABELLED_STORE)
    calibration = calibrate_by_rates(others, prompts, scoring, rates_in_captions(CAPTIONS, vocabulary)).calibration
    selection = Selection(min_probability=MORE_LIKELY_THAN_NOT)
    tagging = tag_store(store, prompts, out, scoring, selection, calibration=calibration, progress=progress)
    return EverydayTags(prompts, calibration, tagging)
