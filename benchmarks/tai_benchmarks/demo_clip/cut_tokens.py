"""The CLIP token ids that training uses, and their place in a token table cut down to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from tai_engine.demo.sentences import SentenceWriter, generate_sentences, plural
from tai_engine.vocabulary import imagenet_templates, load_vocabulary

EXTRA_WORDS = """
emoji icon sticker symbol clipart sketch cartoon drawing illustration picture image photo photograph scene of the a an
in on at with and or no not is are one two three four five six seven eight nine ten this that these those its his her
their my your our it they he she we i you there here very really quite just only also other another each left right
top bottom side middle center back front up down over through between around inside outside black orange violet golden
silver wooden metal plastic paper round square long short tall thin fat happy sad funny cute sweet fresh hot cold warm
wet dry clean dirty empty full open closed broken standing sitting lying walking running flying eating drinking
sleeping playing holding looking wearing riding driving parked hanging
"""
"""Common words that names, templates and sentences may lack; the model knows of them that they name no class."""


@dataclass(frozen=True)
class CutVocabulary:
    """The used CLIP ids, ascending, so that the end of text keeps the highest index after the cut."""

    ids: tuple[int, ...]

    @property
    def start(self) -> int:
        """The cut index of the start of text."""
        return len(self.ids) - 2

    @property
    def end(self) -> int:
        """The cut index of the end of text."""
        return len(self.ids) - 1


class CutTokenizer:
    """Turns text into indices of the cut table; words outside of it get index ``unknown`` (a row that stays zero)."""

    def __init__(self, vocabulary: CutVocabulary, context_length: int = 77) -> None:
        self.vocabulary = vocabulary
        self.context_length = context_length
        self._full = SimpleTokenizer()
        self._index = {clip_id: index for index, clip_id in enumerate(vocabulary.ids)}
        self._cache: dict[str, tuple[int, ...]] = {}

    def words(self, text: str) -> tuple[int, ...]:
        """The indices of a text's tokens, without start and end of text."""
        if text not in self._cache:
            self._cache[text] = tuple(self._index.get(clip_id, 0) for clip_id in self._full.encode(text))
        return self._cache[text]

    def pad(self, sentences: Sequence[Sequence[int]]) -> Tensor:
        """[N, L] int64: start of text, words, end of text, zeros; L fits the longest, 77 at most."""
        cut = [list(sentence)[: self.context_length - 2] for sentence in sentences]
        length = max(map(len, cut)) + 2
        rows = np.zeros((len(cut), length), dtype=np.int64)
        for row, sentence in zip(rows, cut, strict=True):
            row[: len(sentence) + 2] = [self.vocabulary.start, *sentence, self.vocabulary.end]
        return torch.from_numpy(rows)


def cut_vocabulary() -> CutVocabulary:
    """The ids of every word that names, templates and sentences can hold, and of some common words besides.

    Index 0 is kept for the unused id 0 ("!"), whose row stays zero and stands for unknown words.
    """
    tokenizer = SimpleTokenizer()
    ids: set[int] = {0, tokenizer.sot_token_id, tokenizer.eot_token_id}
    for text in _texts():
        ids.update(tokenizer.encode(text))
    return CutVocabulary(tuple(sorted(ids)))


def _texts() -> Iterable[str]:
    yield EXTRA_WORDS
    for entry in load_vocabulary("coco80").classes:
        for word in entry.words:
            yield word
            yield plural(word)
    yield from imagenet_templates()
    yield from generate_sentences(4000, seed=1)
    yield from (piece.text for piece in SentenceWriter().pieces(np.random.default_rng(0), ["cat"]))
