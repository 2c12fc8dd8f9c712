"""Which classes a sentence names: words are brought to their singular and looked up, compound names first.

The lemmas are simplemma's, which knows neither word classes nor context. For English its other readings would make
"training" a train and "skies" a ski, so there only plural forms are brought back, and the few plurals that it gets
wrong are listed here. Other languages take its lemmas as they are.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tai_engine.errors import UserError, unknown_choice
from tai_engine.vocabulary import Vocabulary

NO_LEMMAS = "none"
_UNINFLECTED = ("ja", "zh")
"""Languages that simplemma does not know and whose nouns have one form alone."""

_ASCII_WORD = re.compile(r"[a-z0-9]+")
_IRREGULAR_ENGLISH = {
    "calves": "calf",
    "children": "child",
    "dwarves": "dwarf",
    "elves": "elf",
    "feet": "foot",
    "geese": "goose",
    "grandchildren": "grandchild",
    "halves": "half",
    "housewives": "housewife",
    "kiwis": "kiwi",
    "leaves": "leaf",
    "lenses": "lens",
    "lice": "louse",
    "lives": "life",
    "loaves": "loaf",
    "mice": "mouse",
    "oxen": "ox",
    "scarves": "scarf",
    "selves": "self",
    "sheaves": "sheaf",
    "shelves": "shelf",
    "skies": "sky",
    "teeth": "tooth",
    "wharves": "wharf",
    "wives": "wife",
}
# Plural nouns whose singular is another word: "shorts" are not short and "glasses" not always more than one glass.
_PLURAL_ONLY_ENGLISH = {"arms", "briefs", "glasses", "goods", "greens", "overalls", "shorts", "spectacles", "tights"}
# Here a capital tells the noun from the verb: "Haus" is a house, "haus" a form of to dwell.
_CAPITALISED_NOUNS = {"de", "lb"}
_CACHED_WORDS = 200_000
# Chinese characters and hiragana. Written without blanks, and each a word or a part of one.
_WORD_LETTERS = "\u3005\u3007\u3041-\u3096\u309d\u309e\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Written without blanks too, but a letter is no word: where words begin is not to be told without a dictionary.
_UNPARTED_SCRIPTS = {
    "Thai": "\u0e00-\u0e7f",
    "Lao": "\u0e80-\u0eff",
    "Burmese": "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f",
    "Khmer": "\u1780-\u17ff",
}
_UNPARTED = re.compile(f"[{''.join(_UNPARTED_SCRIPTS.values())}]")
_NAMES_SHOWN = 20


def language_codes() -> tuple[str, ...]:
    """The languages whose words can be brought to their lemmas, beside ``"none"``."""
    from simplemma.strategies.dictionaries.dictionary_factory import SUPPORTED_LANGUAGES

    return tuple(sorted({*SUPPORTED_LANGUAGES, *_UNINFLECTED}))


@functools.lru_cache(maxsize=1)
def _any_word() -> re.Pattern[str]:
    """Letters and digits of every script with their combining marks, which ``\\w`` leaves out."""
    marks = "".join(chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c))[0] == "M")
    return re.compile(
        rf"[{_WORD_LETTERS}][{marks}]*|(?![{_WORD_LETTERS}])[^\W_](?:(?![{_WORD_LETTERS}])[^\W_]|[{marks}])*"
    )


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; blanks, punctuation, hyphens, apostrophes and underscores part them.

    Chinese and Japanese put no blanks between words: each Chinese character or hiragana counts as a word, so that names
    of several are found as compounds are. Katakana stand together, as words from other languages are written.
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return _any_word().findall(unicodedata.normalize("NFC", text).lower())


def lemmatiser(language: str) -> Callable[[str], str]:
    """A function from a lower-case word to its singular (English) or lemma (others), in lower case.

    Args:
        language: a code of ``language_codes``, or ``"none"`` to leave words as they are.

    Raises:
        UserError: for another language.
    """
    if language == NO_LEMMAS:
        return lambda word: word
    if language in _UNINFLECTED:
        return lambda word: word
    if language not in language_codes():
        raise unknown_choice("language", language, [*language_codes(), NO_LEMMAS])
    import simplemma

    def english(word: str) -> str:
        if word in _PLURAL_ONLY_ENGLISH:
            return word
        if word in _IRREGULAR_ENGLISH:
            return _IRREGULAR_ENGLISH[word]
        if word.endswith("men"):
            return simplemma.lemmatize(word, "en").lower()
        if not word.endswith("s") or word.endswith("ss") or len(word) < 3:
            return word
        if simplemma.is_known(word, "en"):
            return simplemma.lemmatize(word, "en").lower()
        return word if word.endswith(("us", "is")) else word[:-1]

    if language == "en":
        return english
    if language in _CAPITALISED_NOUNS:
        return lambda word: simplemma.lemmatize(word.capitalize(), language).lower()
    return lambda word: simplemma.lemmatize(word, language).lower()


@dataclass(frozen=True, slots=True)
class _Phrase:
    rank: int
    classes: tuple[int, ...]


class _WordNumbers(dict[str, int]):
    """Word as written to the number of its lemma, 0 for lemmas that are in no name; filled as words come by.

    Holds at most ``_CACHED_WORDS`` words: past that it starts anew.
    """

    def __init__(self, lemma: Callable[[str], str], lemmas: dict[str, int]) -> None:
        super().__init__()
        self._lemma, self._lemmas = lemma, lemmas

    def __missing__(self, word: str) -> int:
        if len(self) >= _CACHED_WORDS:
            self.clear()
        number = self[word] = self._lemmas.get(self._lemma(word), 0)
        return number


class NounFilter:
    """Finds the classes of a vocabulary in sentences.

    A name or synonym counts where its words stand in a row, each in any form with the same lemma; the joined form of a
    compound counts too ("motorbike" for "motor bike"). Longer names are looked up first, and what was found is taken
    out of the sentence, so a teddy bear is not a bear. Among names of as many words those with more letters come
    first, then the alphabet decides: the result depends on neither the order of the vocabulary nor chance.

    Args:
        vocabulary: the C classes.
        language: code of ``language_codes``, or ``"none"``.
        other_names: more names, beside the vocabulary's own, of other things that hold a class's word, such as "hot
            dog" where dogs are classes and hot dogs are not: looked up and taken out too, but without a class.

    Attributes:
        class_names: C names.
        shared: names that have become the same through their lemmas, each with the classes that it stands for.

    Raises:
        UserError: for an unknown language, or words that cannot be found in a sentence (all of them at once): without a
            letter or digit, or in a script that parts no words, such as Thai. The name of a class may be one if the
            class has synonyms.
    """

    def __init__(self, vocabulary: Vocabulary, language: str = "en", other_names: Iterable[str] = ()) -> None:
        self.class_names: tuple[str, ...] = tuple(vocabulary.names)
        self._lemma = lemmatiser(language)
        classes_of: dict[tuple[str, ...], set[int]] = {}
        lost: list[str] = []
        for index, entry in enumerate(vocabulary.classes):
            found = {name: lemmas for name in entry.words if (lemmas := self._lemmas(name))}
            for lemmas in found.values():
                classes_of.setdefault(lemmas, set()).add(index)
            # A tag may be called >_< if another word of its class stands in sentences.
            lost += [word for word in entry.synonyms if word not in found] + ([] if found else [entry.name])
        _check_words_are_found(vocabulary, lost)
        self.shared = {
            " ".join(lemmas): tuple(self.class_names[i] for i in sorted(classes))
            for lemmas, classes in sorted(classes_of.items())
            if len(classes) > 1
        }
        for name in (*vocabulary.other_names, *other_names):
            if lemmas := self._lemmas(name):
                classes_of.setdefault(lemmas, set())
        names = list(classes_of.items())
        written = set(classes_of)
        for lemmas, classes in names:
            for derived in self._derived(lemmas, language):
                if derived not in written:  # what a vocabulary says itself goes before what follows from it
                    classes_of.setdefault(derived, set()).update(classes)
        self._compile(classes_of)

    def _lemmas(self, name: str) -> tuple[str, ...]:
        """The lemmas of a name's words; none where it cannot be looked for."""
        return () if _UNPARTED.search(name) else tuple(self._lemma(word) for word in words_of(name))

    def _derived(self, lemmas: tuple[str, ...], language: str) -> Iterable[tuple[str, ...]]:
        if len(lemmas) > 1:
            yield (self._lemma("".join(lemmas)),)
        if language == "en":
            for place, word in enumerate(lemmas):
                for plural in (word + "s", word + "es"):
                    if plural in _PLURAL_ONLY_ENGLISH:
                        yield (*lemmas[:place], plural, *lemmas[place + 1 :])

    def _compile(self, classes_of: dict[tuple[str, ...], set[int]]) -> None:
        numbers: dict[str, int] = {}
        self._phrases: dict[tuple[int, ...], _Phrase] = {}
        lengths: dict[int, set[int]] = {}
        in_order = sorted(classes_of, key=lambda lemmas: (-len(lemmas), -sum(map(len, lemmas)), lemmas))
        for rank, lemmas in enumerate(in_order):
            words = tuple(numbers.setdefault(lemma, len(numbers) + 1) for lemma in lemmas)
            self._phrases[words] = _Phrase(rank, tuple(sorted(classes_of[lemmas])))
            lengths.setdefault(words[0], set()).add(len(words))
        self._lengths_from = {first: tuple(sorted(found)) for first, found in lengths.items()}
        self._numbers = _WordNumbers(self._lemma, numbers)

    def classes_in(self, text: str) -> tuple[int, ...]:
        """Indices of the classes that the text names, rising."""
        found = self._find(words_of(text))
        if len(found) == 1:
            return found[0][2]
        return tuple(sorted({index for _, _, classes in found for index in classes}))

    def matches_in(self, text: str) -> list[tuple[str, tuple[int, ...]]]:
        """What was found in the text, from left to right: its words there, in lower case, and their classes."""
        words = words_of(text)
        return [(" ".join(words[start:end]), classes) for start, end, classes in sorted(self._find(words))]

    def _find(self, words: list[str]) -> list[tuple[int, int, tuple[int, ...]]]:
        """Start, end and classes of every name, in the order of look-up; no two share a word."""
        numbers = self._numbers
        row = [numbers[word] for word in words]
        candidates: list[tuple[int, int, int, tuple[int, ...]]] = []
        if any(row):
            for start, number in enumerate(row):
                if number:
                    for length in self._lengths_from.get(number, ()):
                        phrase = self._phrases.get(tuple(row[start : start + length]))
                        # At the end of the text a slice is shorter, and then found under its own length already.
                        if phrase is not None and start + length <= len(row):
                            candidates.append((phrase.rank, start, start + length, phrase.classes))
        if len(candidates) < 2:
            return [candidate[1:] for candidate in candidates]
        # By rank, then from left to right: just as if each name were looked up in turn and its words removed.
        candidates.sort()
        free = [True] * len(row)
        found = []
        for _, start, end, classes in candidates:
            if all(free[start:end]):
                free[start:end] = [False] * (end - start)
                found.append((start, end, classes))
        return found


def _check_words_are_found(vocabulary: Vocabulary, lost: list[str]) -> None:
    if not lost:
        return
    more = f" and {len(lost) - _NAMES_SHOWN} more" if len(lost) > _NAMES_SHOWN else ""
    scripts = [name for name, letters in _UNPARTED_SCRIPTS.items() if re.search(f"[{letters}]", " ".join(lost))]
    reasons = []
    if scripts:
        puts = "put" if len(scripts) > 1 else "puts"
        reasons.append(f"are in {' and '.join(scripts)}, which {puts} no blanks between words and cannot be searched")
    if not all(map(_UNPARTED.search, lost)):
        reasons.append("have no letter or digit")
    raise UserError(
        f"{len(lost)} of the words of the vocabulary {vocabulary.name!r} cannot stand in sentences, since they "
        f"{', or '.join(reasons)}: {', '.join(map(repr, lost[:_NAMES_SHOWN]))}{more}; give such classes synonyms that "
        "can, and remove such synonyms."
    )
