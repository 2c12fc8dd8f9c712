"""What every choice was made by: photographs that no stage has seen, and their captions.

Shape legend: H held-out photographs, L locations, C nouns, D joint size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_benchmarks.photo_clip.algebra import column_average_precision, recall_at
from tai_benchmarks.photo_clip.noun_labels import CONCRETE, CaptionLabels
from tai_benchmarks.photo_clip.text_batches import Words, padded
from tai_benchmarks.photo_clip.text_tower import ends, pick, token_rows
from tai_benchmarks.photo_clip.text_training import PhotographVectors, soft_pooled
from tai_benchmarks.photo_clip.wordnet import Nouns

HELD_OUT = 1000
TEMPERATURES = (5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0)
_LEAST_PHOTOGRAPHS = 5
_NAMED = 0.39  # share of captions: two of five
_SLICE = 128


@dataclass(frozen=True, eq=False)
class NounTruth:
    """Which nouns held-out photographs show, as far as their captions tell.

    Attributes:
        names: C concrete nouns that are shown often enough.
        shown: [H, C] bool.
    """

    names: tuple[str, ...]
    shown: Tensor


def split(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Numbers of the training and of the held-out photographs, each in order."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[HELD_OUT:].sort().values, order[:HELD_OUT].sort().values


def noun_truth(labels: CaptionLabels, held_out: Tensor, nouns: Nouns) -> NounTruth:
    """Concrete nouns that two captions or more of at least five held-out photographs name."""
    shown = labels.shares[held_out, : labels.n_nouns] >= _NAMED
    topics = [nouns.synsets[synset].topic if synset is not None else -1 for synset in labels.synsets[: labels.n_nouns]]
    columns = [
        number
        for number, topic in enumerate(topics)
        if topic in CONCRETE and int(shown[:, number].sum()) >= _LEAST_PHOTOGRAPHS
    ]
    return NounTruth(tuple(labels.names[number][0] for number in columns), shown[:, columns])


def encode_texts(model: Any, texts: list[str]) -> Tensor:
    """[N, D] fp32 unit vectors of texts."""
    words, found = Words(), []
    model.eval()
    with torch.inference_mode():
        for first in range(0, len(texts), 256):
            ids = padded([words.sentence(text)[:76] for text in texts[first : first + 256]])
            found.append(normalize(pick(token_rows(model, ids), ends(ids)).float(), dim=1))
    return torch.cat(found)


def fine_scores(text_CD: Tensor, fine_HLD: Tensor, temperature: float) -> Tensor:
    """[H, C] soft-pooled cosines."""
    return torch.cat([soft_pooled(text_CD, rows.float(), temperature).T for rows in fine_HLD.split(_SLICE)])


def mean_precisions(
    text_CD: Tensor, vectors: PhotographVectors, shown_HC: Tensor, temperature: float
) -> dict[str, float]:
    """Mean average precision of coarse, fine and merged scores."""
    coarse = vectors.coarse @ text_CD.T
    fine = fine_scores(text_CD, vectors.fine, temperature)
    return {
        name: float(column_average_precision(scores, shown_HC).mean())
        for name, scores in (("coarse", coarse), ("fine", fine), ("merged", (coarse + fine) / 2))
    }


def recalls(model: Any, captions: list[str], coarse_HD: Tensor) -> dict[str, float]:
    """R@1 and R@5 from one caption of each photograph to the photographs."""
    scores = encode_texts(model, captions) @ coarse_HD.T
    return {f"R@{k}": recall_at(scores, k) for k in (1, 5)}
