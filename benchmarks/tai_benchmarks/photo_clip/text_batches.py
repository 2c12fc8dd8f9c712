"""Names in templates and captions as batches of token ids.

Shape legend: B items of a batch, T tokens, D joint size.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from tai_benchmarks.photo_clip.captions import Mention, words_of
from tai_benchmarks.photo_clip.clip_vectors import plain_name
from tai_engine.vocabulary import imagenet_templates

# Beside CLIP's templates for ImageNet: bare names and what captions sound like.
_OWN_TEMPLATES = (
    "{}", "a {}", "the {}", "{}.", "a {}.", "a picture of a {}.", "an image of a {}.", "a photo of {}.",
    "there is a {}.", "a {} in the scene.", "a photo with a {}.", "a {} in the background.", "a view of a {}.",
    "someone with a {}.", "a {} in front of a building.", "a {} on a table.", "a {} outside.", "some {}.",
)  # fmt: skip
_PLAIN_SHARE = 0.3
_PLAIN = "a photo of a {}."
_WORD_DROPOUT = 0.1
_MOST_TOKENS = 40


class NameBatch(NamedTuple):
    """Prompts [B, T] and the targets [B, D] of their ends."""

    ids: Tensor
    targets: Tensor


class CaptionBatch(NamedTuple):
    """Captions [B, T], the numbers of their photographs [B], and places of nouns with their targets.

    Attributes:
        ids: token ids.
        photographs: numbers among the training photographs.
        noun_rows: [M] which caption.
        noun_places: [M] which token, the last one of the noun.
        noun_targets: [M, D].
    """

    ids: Tensor
    photographs: Tensor
    noun_rows: Tensor
    noun_places: Tensor
    noun_targets: Tensor


class Words:
    """CLIP's byte pairs, a word at a time."""

    def __init__(self) -> None:
        self._tokenizer = SimpleTokenizer()
        self.start, self.end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id
        self._known: dict[str, list[int]] = {}

    def ids(self, word: str) -> list[int]:
        """The ids of a word."""
        if word not in self._known:
            self._known[word] = self._tokenizer.encode(word)
        return self._known[word]

    def sentence(self, text: str) -> list[int]:
        """The ids of a text between start and end."""
        return [self.start, *(number for word in text.lower().split() for number in self.ids(word)), self.end]


def all_templates() -> tuple[str, ...]:
    """What names are put into, for ``{}``."""
    return (*imagenet_templates(), *_OWN_TEMPLATES)


def padded(sentences: Sequence[Sequence[int]]) -> Tensor:
    """[B, T] ids, 0 behind the ends."""
    length = max(len(ids) for ids in sentences)
    return torch.tensor([[*ids, *[0] * (length - len(ids))] for ids in sentences])


@dataclass(frozen=True)
class Tokenised:
    """A caption: its ids, and of each noun that has a target its last place and its name."""

    ids: tuple[int, ...]
    nouns: tuple[tuple[int, str], ...]


def tokenise_caption(
    caption: str, mentions: Sequence[Mention], words: Words, targets: Mapping[str, Tensor]
) -> Tokenised:
    """Words of a caption as ids, cut at ``_MOST_TOKENS``."""
    ids, last_of_word = [words.start], []
    for word in words_of(caption):
        ids += words.ids(word)
        last_of_word.append(len(ids) - 1)
    nouns = [(last_of_word[m.first_word + m.n_words - 1], plain_name(m.noun)) for m in mentions]
    kept = tuple((place, noun) for place, noun in nouns if noun in targets and place < _MOST_TOKENS - 1)
    return Tokenised((*ids[: _MOST_TOKENS - 1], words.end), kept)


class TextBatches:
    """Random batches; the same series for the same seed.

    Args:
        targets: [D] unit vector by name.
        captions: of each training photograph its captions.
        seed: of everything random.
    """

    def __init__(self, targets: Mapping[str, Tensor], captions: Sequence[Sequence[Tokenised]], seed: int) -> None:
        self._names = sorted(targets)
        self._targets = targets
        self._captions = captions
        self._words = Words()
        self._random = random.Random(seed)
        self._templates = all_templates()

    @property
    def trained_ids(self) -> list[int]:
        """The ids of all words in names, templates and captions, the padding's excepted."""
        texts = (*self._names, *(template.replace("{}", " ") for template in self._templates))
        ids = {number for text in texts for number in self._words.sentence(text)}
        ids.update(number for photograph in self._captions for caption in photograph for number in caption.ids)
        return sorted(ids - {0})

    def names(self, size: int) -> NameBatch:
        """Names drawn evenly, in templates drawn evenly but for CLIP's plain one."""
        chosen = [self._random.choice(self._names) for _ in range(size)]
        texts = [self._template().replace("{}", name) for name in chosen]
        return NameBatch(
            padded([self._words.sentence(text) for text in texts]),
            torch.stack([self._targets[name] for name in chosen]),
        )

    def captions(self, size: int) -> CaptionBatch:
        """Photographs drawn without repetition, one caption each, some of its tokens left blank."""
        photographs = self._random.sample(range(len(self._captions)), size)
        chosen = [self._random.choice(self._captions[number]) for number in photographs]
        nouns = [(row, place, noun) for row, caption in enumerate(chosen) for place, noun in caption.nouns]
        return CaptionBatch(
            padded([self._blanked(caption.ids) for caption in chosen]),
            torch.tensor(photographs),
            torch.tensor([row for row, _, _ in nouns], dtype=torch.long),
            torch.tensor([place for _, place, _ in nouns], dtype=torch.long),
            torch.stack([self._targets[noun] for _, _, noun in nouns]),
        )

    def _template(self) -> str:
        return _PLAIN if self._random.random() < _PLAIN_SHARE else self._random.choice(self._templates)

    def _blanked(self, ids: Sequence[int]) -> list[int]:
        """Ids with a tenth of those between the ends set to 0, whose row stays zero."""
        inner = [0 if self._random.random() < _WORD_DROPOUT else number for number in ids[1:-1]]
        return [ids[0], *inner, ids[-1]]
