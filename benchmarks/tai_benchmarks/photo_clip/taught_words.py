"""Which words the text tower knows: those of the names that it is taught, and those that captions often hold.

Byte pairs give it a vector of any word; of one that it hardly read, that vector is as good as none
(`tai_benchmarks.known_words_table`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tai_benchmarks.photo_clip.captions import words_of
from tai_benchmarks.photo_clip.text_batches import all_templates
from tai_engine.encoders.known_words import words_of_name
from tai_engine.files import atomic_path

LEAST_PHOTOGRAPHS = 4
"""Training photographs whose captions hold a word that no name has, for it to be known."""


def count_words(captions: Iterable[Sequence[str]]) -> Counter[str]:
    """The number of photographs one of whose captions holds each word; numbers are not read in captions.

    Args:
        captions: of each photograph.
    """
    counts: Counter[str] = Counter()
    for of_one in captions:
        counts.update({word for text in of_one for word in words_of_name(" ".join(words_of(text)))})
    return counts


def known_words(names: Iterable[str], counts: Mapping[str, int], least: int = LEAST_PHOTOGRAPHS) -> tuple[str, ...]:
    """In alphabetical order.

    Args:
        names: that are taught.
        counts: of `count_words`, over the photographs that are learned from.
        least: number of photographs.
    """
    taught = {word for text in (*names, *all_templates()) for word in words_of_name(text)}
    return tuple(sorted(taught | {word for word, count in counts.items() if count >= least}))


def write_known_words(words: Sequence[str], path: Path) -> None:
    """As `tai_engine.encoders.known_words` reads them; the file appears whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(words) + "\n", encoding="utf-8")
