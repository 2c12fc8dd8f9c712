"""Scores whose truth is known, to hold calibrations against; with sentences, where the scores have some.

Shape legend: N pictures, S sentences, C classes, D embedding size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tai_engine.encoders import load_encoder
from tai_engine.encoders.embedded import embedded_folder
from tai_engine.evaluation.truth import load_truth
from tai_engine.features import FeatureBatch
from tai_engine.prompts.prompt_set import PromptSet, zero_shot_prompts
from tai_engine.sentences.built_in import built_in_captions
from tai_engine.sentences.nouns import NounFilter
from tai_engine.sentences.read import read_sentences
from tai_engine.store import FeatureStore
from tai_engine.tagging.normalisation import normalise
from tai_engine.tagging.scoring import default_scoring, score
from tai_engine.vocabulary import Vocabulary, load_vocabulary

VOC_FILE = "voc2007_test_taidpt_rn50_scores.npz"
CLIP_FILE = "real_clip_vitb32.npz"
EMBEDDED = "photos"
CAPTION_STEP = 10
"""Of the captions beside the embedded model every so manieth is encoded: 2,022."""

_CLIP_SCALE = 100.0
_AT_A_TIME = 256

Floats = NDArray[np.float64]
Labels = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class LabelledScores:
    """Scores of pictures with their labels, and of sentences with the classes that they name.

    Attributes:
        name: what they are, in a few words.
        remark: what a reader has to know of them.
        scores: [N, C] float64, as tags carry them.
        labels: [N, C] int8: +1 there, -1 not there, 0 not known.
        sentence_scores: [S, C] float64, scored like the pictures; S is 0 where there are no sentences.
        sentence_labels: [S, C] int8: +1 named, -1 not named.
    """

    name: str
    remark: str
    scores: Floats
    labels: Labels
    sentence_scores: Floats
    sentence_labels: Labels


def voc_scores(folder: Path) -> LabelledScores:
    """The TaI-DPT authors' saved scores of VOC2007's test pictures: coarse and fine half and half, minus each picture's
    mean."""
    saved = np.load(folder / VOC_FILE)
    scores = (saved["a"].astype(np.float64) + saved["b"]) / 2
    scores -= scores.mean(axis=1, keepdims=True)
    classes = scores.shape[1]
    return LabelledScores(
        "VOC2007, TaI-DPT's RN50",
        "4,952 pictures, 20 classes, labelled by people; tuned prompts, merged and centred; no sentences are saved",
        scores,
        saved["labels"].astype(np.int8),
        np.zeros((0, classes)),
        np.zeros((0, classes), dtype=np.int8),
    )


def clip_scores(folder: Path) -> LabelledScores:
    """OpenAI's ViT-B/32 on photographs of Flickr8k, coarse and standardised; labels are what captions name."""
    saved = np.load(folder / CLIP_FILE)
    classes_DC = saved["class_features"].astype(np.float64).T
    names = NounFilter(Vocabulary.from_names(saved["class_names"].tolist()))

    def standardised(rows: NDArray[np.float16]) -> Floats:
        cosines = torch.from_numpy(_CLIP_SCALE * rows.astype(np.float64) @ classes_DC)
        return np.asarray(normalise(cosines, "standard").numpy())

    return LabelledScores(
        "Flickr8k, CLIP ViT-B/32",
        "489 photographs, 80 classes, coarse and standardised; a class counts as there if one of five captions names "
        "it, and captions omit things: labels are positives only, so that what counts as wrong may be right",
        standardised(saved["image_features"]),
        np.where(saved["caption_labels"] > 0, 1, -1).astype(np.int8),
        standardised(saved["sentence_features"]),
        named_in(saved["sentences"].tolist(), names, classes_DC.shape[1]),
    )


def photograph_scores() -> LabelledScores:
    """The embedded model on the 152 photographs of COCO whose features come with it, and on captions of others."""
    folder = embedded_folder(EMBEDDED)
    assert folder is not None
    vocabulary = load_vocabulary("coco80")
    encoder = load_encoder(EMBEDDED, device="cpu")
    prompts = zero_shot_prompts(encoder, vocabulary)
    store = FeatureStore.open(folder / "coco_photographs.zarr")
    batches = list(store.iter_batches(_AT_A_TIME))
    truth = load_truth(folder / "coco_photographs.jsonl", vocabulary.names)
    row_of = {name: row for row, name in enumerate(truth.ids)}
    captions = [sentence.text for sentence in islice(read_sentences(built_in_captions()), 0, None, CAPTION_STEP)]

    def encoded() -> Iterator[FeatureBatch]:
        for start in range(0, len(captions), _AT_A_TIME):
            block = captions[start : start + _AT_A_TIME]
            yield encoder.encode_sentences(block, [str(start + n) for n in range(len(block))])

    return LabelledScores(
        "COCO, the model `photos`",
        "152 photographs, 80 classes, labelled by people; zero-shot, merged and standardised; 2,022 captions of other "
        "pictures",
        _scored(batches, prompts),
        truth.labels[[row_of[name] for batch in batches for name in batch.ids]],
        _scored(encoded(), prompts),
        named_in(captions, NounFilter(vocabulary), len(vocabulary)),
    )


def named_in(sentences: Iterable[str], nouns: NounFilter, classes: int) -> Labels:
    """[S, C] int8: +1 for the classes that a sentence names, -1 for the others."""
    rows = []
    for sentence in sentences:
        row = np.full(classes, -1, dtype=np.int8)
        row[list(nouns.classes_in(sentence))] = 1
        rows.append(row)
    return np.array(rows, dtype=np.int8).reshape(len(rows), classes)


def _scored(batches: Iterable[FeatureBatch], prompts: PromptSet) -> Floats:
    with torch.inference_mode():
        return np.concatenate([score(b, prompts, default_scoring(prompts)).scores.double().numpy() for b in batches])
