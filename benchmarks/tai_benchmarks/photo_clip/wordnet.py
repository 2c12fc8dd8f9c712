"""The nouns of WordNet 3.0: lemmas, synsets, what they are kinds of, and plain forms of inflected words.

Format of the files: wndb(5WN). ImageNet's class numbers are the offsets of this version.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tai_engine.errors import UserError

FILES = ("data.noun", "index.noun", "noun.exc")
# Detachment rules of morphy(7WN), longest endings first.
_ENDINGS = (
    ("ches", "ch"),
    ("shes", "sh"),
    ("ses", "s"),
    ("ves", "f"),
    ("xes", "x"),
    ("zes", "z"),
    ("men", "man"),
    ("ies", "y"),
    ("s", ""),
)
_LEAST_SINGULAR = 3


@dataclass(frozen=True)
class Synset:
    """One sense.

    Attributes:
        lemmas: its names in lower case, blanks between words.
        parents: offsets of what it is a kind or an instance of.
        topic: number of its lexicographer file: 5 animals, 6 artifacts, 18 persons, see lexnames(5WN).
    """

    lemmas: tuple[str, ...]
    parents: tuple[int, ...]
    topic: int


@dataclass(frozen=True)
class Nouns:
    """The noun part of the database.

    Attributes:
        synsets: by offset.
        senses: offsets by lemma, the most frequent first.
        exceptions: plain forms of irregular words.
    """

    synsets: dict[int, Synset]
    senses: dict[str, tuple[int, ...]]
    exceptions: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> Nouns:
        """Read the three files of ``folder``.

        Raises:
            UserError: if one is missing.
        """
        for name in FILES:
            if not (folder / name).is_file():
                raise UserError(f"There is no {folder / name}: take WordNet 3.0's dictionary files {', '.join(FILES)}.")
        synsets = dict(_synset(line) for line in _entries(folder / "data.noun"))
        senses = dict(_senses(line) for line in _entries(folder / "index.noun"))
        exceptions = [line.split()[:2] for line in _entries(folder / "noun.exc")]
        return cls(synsets, senses, {_plain(word): _plain(lemma) for word, lemma in exceptions})

    def lemma(self, word: str) -> str | None:
        """The singular noun behind a word in lower case; None if there is none."""
        found = self.exceptions.get(word)
        if found in self.senses:
            return found
        regular_plural = len(word) > _LEAST_SINGULAR and word.endswith("s") and not word.endswith("ss")
        if word in self.senses and not (regular_plural and word[:-1] in self.senses):
            return word
        for ending, replacement in _ENDINGS:
            stem = word.removesuffix(ending) + replacement
            if word.endswith(ending) and len(word) > len(ending) + 1 and stem in self.senses:
                return stem
        return word if word in self.senses else None

    def ancestors(self, offset: int, levels: int | None = None) -> dict[int, int]:
        """What a synset is a kind of, itself included: the least number of steps by offset, up to ``levels``."""
        steps = {offset: 0}
        front = [offset]
        while front and (levels is None or steps[front[0]] < levels):
            following = []
            for child in front:
                for parent in self.synsets[child].parents:
                    if parent not in steps:
                        steps[parent] = steps[child] + 1
                        following.append(parent)
            front = following
        return steps

    def depth(self, offset: int) -> int:
        """Steps to the farthest ancestor: 0 for "entity"."""
        return max(self.ancestors(offset).values())

    @cached_property
    def first_senses(self) -> dict[str, int]:
        """The most frequent sense of each lemma."""
        return {lemma: offsets[0] for lemma, offsets in self.senses.items()}


def _entries(path: Path) -> list[str]:
    """The lines behind the licence, whose lines begin with blanks."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("  ")]


def _plain(lemma: str) -> str:
    return lemma.replace("_", " ").lower()


def _synset(line: str) -> tuple[int, Synset]:
    fields = line.split(" | ", maxsplit=1)[0].split()
    words = int(fields[3], 16)
    lemmas = tuple(_plain(word) for word in fields[4 : 4 + 2 * words : 2])
    place = 4 + 2 * words
    pointers = [fields[place + 1 + 4 * number : place + 5 + 4 * number] for number in range(int(fields[place]))]
    parents = tuple(int(target) for symbol, target, _, _ in pointers if symbol in ("@", "@i"))
    return int(fields[0]), Synset(lemmas, parents, int(fields[1]))


def _senses(line: str) -> tuple[str, tuple[int, ...]]:
    fields = line.split()
    return _plain(fields[0]), tuple(int(offset) for offset in fields[-int(fields[2]) :])
