"""Captions of photographs and the nouns in them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tai_benchmarks.photo_clip.wordnet import Nouns
from tai_engine.errors import UserError

_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")
_LONGEST = 3  # words of a compound

# Words of captions that WordNet also knows as nouns, but that name nothing to be seen by themselves: function words,
# postures, places relative to others, numbers and colours ("orange" is a colour here nine times out of ten).
_STOP_TEXT = """
    a above air all am an and another another's are area as at back background be behind being big bit black blond
    blonde blue both bottom brown by can case catch climbing colored colorful couple dark day distance do does down
    edge end female flying foreground four free from front get getting go going gold gray green grey ground group had
    half hanging has have having he her high his hold holding i in inside into is it its jump jumping just kind large
    laying leaping left like line little look looking lot low make make's making male man's many may middle more my
    near next no not number of off old on one open or orange others out outside over pair part past performing piece
    pink place play playing pose posing purple red ride riding right run running see set several show side silver
    sitting small smiling so some someone something stand standing still stop t take taking tall tan that the their
    them then there they this three through time top try turn two up us very walk walking was watch watching way wear
    wearing well were wet what which while white who will with woman's yellow young
"""
STOP_WORDS = frozenset(_STOP_TEXT.split())


class Mention(NamedTuple):
    """A noun in a sentence: its lemma, the number of its first word and how many words it has."""

    noun: str
    first_word: int
    n_words: int


@dataclass(frozen=True)
class CaptionedPhotographs:
    """Photographs by name, in order, each with its captions."""

    names: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]


def read_captions(path: Path, names: Sequence[str]) -> CaptionedPhotographs:
    """Read lines of ``name#number``, a tab and a caption, as Flickr8k has them.

    Args:
        path: of the file.
        names: the photographs that there are; captions of others are left out.

    Raises:
        UserError: if the file is missing or a photograph has no caption.
    """
    if not path.is_file():
        raise UserError(f"There is no file of captions at {path}.")
    found: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, text = line.partition("\t")
        found[key.partition("#")[0]].append(text)
    lacking = [name for name in names if name not in found]
    if lacking:
        raise UserError(f"{len(lacking)} photographs have no caption in {path}, such as {lacking[0]}; take them out.")
    return CaptionedPhotographs(tuple(names), tuple(tuple(found[name]) for name in names))


def words_of(sentence: str) -> list[str]:
    """The words in lower case."""
    return _WORD.findall(sentence.lower())


def mentions(sentence: str, nouns: Nouns) -> list[Mention]:
    """The nouns of a sentence, compounds first, from left to right; those of ``STOP_WORDS`` left out."""
    words = words_of(sentence)
    found: list[Mention] = []
    place = 0
    while place < len(words):
        mention = _mention_at(words, place, nouns)
        if mention is not None:
            found.append(mention)
        place += mention.n_words if mention is not None else 1
    return found


def _mention_at(words: Sequence[str], place: int, nouns: Nouns) -> Mention | None:
    if words[place] in STOP_WORDS:
        return None
    for length in range(min(_LONGEST, len(words) - place), 1, -1):
        head = nouns.lemma(words[place + length - 1])
        compound = " ".join([*words[place : place + length - 1], head or ""])
        if head is not None and compound in nouns.senses:
            return Mention(compound, place, length)
    lemma = nouns.lemma(words[place])
    return None if lemma is None or lemma in STOP_WORDS else Mention(lemma, place, 1)


def frequent_nouns(mentioned: Iterable[Iterable[Iterable[Mention]]], least: int) -> tuple[str, ...]:
    """Nouns that captions of at least ``least`` photographs name, in alphabetical order.

    Args:
        mentioned: by photograph and caption.
        least: number of photographs.
    """
    counts: Counter[str] = Counter()
    for photograph in mentioned:
        counts.update({mention.noun for caption in photograph for mention in caption})
    return tuple(sorted(noun for noun, count in counts.items() if count >= least))
