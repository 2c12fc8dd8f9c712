"""Classes and the words for them; every word belongs to one class alone."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from tai_engine.errors import UserError
from tai_engine.vocabulary.spelling import comparable_name, prompt_words, tidy_words

MAX_NAME_CHARACTERS = 1000
_CLASHES_SHOWN = 20


@dataclass(frozen=True)
class VocabularyClass:
    """One thing to tag.

    Attributes:
        name: what the tag is called, as it was written but for blanks at its ends.
        synonyms: other words and compounds for it, as sentences use them; underscores become blanks.
    """

    name: str
    synonyms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name.strip())
        object.__setattr__(self, "synonyms", tuple(map(tidy_words, self.synonyms)))

    @property
    def words(self) -> tuple[str, ...]:
        """The name, as sentences would have it, and its synonyms."""
        return (tidy_words(self.name), *self.synonyms)


@dataclass(frozen=True)
class Vocabulary:
    """Classes in a fixed order; every word belongs to one class alone.

    Attributes:
        name: what the vocabulary is called.
        classes: at least one.
        templates: sentences with the place ``{}`` for a class name; empty where the vocabulary brings none.
        other_names: of things that are no class but hold a class's word, such as "hot dog" where only dogs are tagged.

    Raises:
        UserError: for no classes, an empty or endless name or synonym, words that occur twice (whatever their case or
            underscores; all of them are named at once), or a template without the place for the name.
    """

    name: str
    classes: tuple[VocabularyClass, ...]
    templates: tuple[str, ...] = ()
    other_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "other_names", tuple(map(tidy_words, self.other_names)))
        if not self.classes:
            raise UserError(f"The vocabulary {self.name!r} has no classes: give it at least one name.")
        for number, entry in enumerate(self.classes, 1):
            self._check_words(number, entry)
        owners = self._owners()
        for word in self.other_names:
            if not word or comparable_name(word) in owners:
                raise UserError(
                    f"Among the other names of the vocabulary {self.name!r} is {word!r}, which is "
                    f"{'a word of a class' if word else 'empty'}: remove it there."
                )
        for template in self.templates:
            if template.count("{}") != 1:
                raise UserError(
                    f"The template {template!r} of the vocabulary {self.name!r} must have the place {{}} for the name "
                    "exactly once."
                )

    def _check_words(self, number: int, entry: VocabularyClass) -> None:
        name, *synonyms = entry.words
        if not name:
            raise UserError(f"Class {number} of the vocabulary {self.name!r} has an empty name: name or remove it.")
        if not all(synonyms):
            raise UserError(
                f"The class {entry.name!r} of the vocabulary {self.name!r} has an empty synonym: remove it."
            )
        for word in (entry.name, *synonyms):
            if len(word) > MAX_NAME_CHARACTERS:
                raise UserError(
                    f"Class {number} of the vocabulary {self.name!r} has a name or synonym of {len(word):,} characters "
                    f"({word[:30]!r}...); tai-engine takes at most {MAX_NAME_CHARACTERS:,}: is it the right file?"
                )
            unseen = next(filter(_is_unseen, word.strip()), None)
            if unseen is not None:
                what = "a control" if unicodedata.category(unseen) == "Cc" else "an invisible"
                raise UserError(
                    f"Class {number} of the vocabulary {self.name!r} has the word {word!a}, in which {what} "
                    f"character stands (U+{ord(unseen):04X}): remove it."
                )
            try:
                word.encode("utf-8")
            except UnicodeEncodeError:
                raise UserError(
                    f"Class {number} of the vocabulary {self.name!r} has the word {word!r}, which is not valid "
                    "Unicode: mend it."
                ) from None

    def _owners(self) -> dict[str, int]:
        """Number of the class of every word, from 1.

        Raises:
            UserError: for all words that stand more than once.
        """
        owners: dict[str, int] = {}
        clashes: list[str] = []
        count = 0
        for number, entry in enumerate(self.classes, 1):
            own: set[str] = set()
            for word, shown in zip(entry.words, (entry.name, *entry.synonyms), strict=True):
                key = comparable_name(word)
                owner = owners.setdefault(key, number)
                if owner != number or key in own:
                    count += 1
                    if len(clashes) < _CLASHES_SHOWN:
                        clashes.append(self._clash(shown, owner, number))
                own.add(key)
        if clashes:
            more = f"; and {count - len(clashes):,} more" if count > len(clashes) else ""
            first, *others = clashes
            listed = "; ".join((first[0].upper() + first[1:], *others))
            raise UserError(
                f"{listed}{more}, in the vocabulary {self.name!r}; a word may stand for one class only, and once (case "
                "and underscores do not count): remove one of each two, or take such classes together with "
                "--merge-duplicates."
            )
        return owners

    def _clash(self, word: str, owner: int, number: int) -> str:
        name = self.classes[number - 1].name
        if owner == number:
            return f"the word {word!r} stands in the class {name!r} twice"
        return (
            f"the word {word!r} stands in the classes {self.classes[owner - 1].name!r} (number {owner}) and {name!r} "
            f"(number {number})"
        )

    @classmethod
    def from_names(cls, names: Iterable[str], name: str = "names") -> Vocabulary:
        """A vocabulary of bare names.

        Raises:
            UserError: as the class itself.
        """
        return cls(name, tuple(VocabularyClass(n) for n in names))

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """The class names, in order, as they were written: what tags are called."""
        return tuple(entry.name for entry in self.classes)

    @property
    def prompt_names(self) -> tuple[str, ...]:
        """The class names, in order, as prompts want them."""
        return tuple(prompt_words(entry.name) for entry in self.classes)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the names in order, and of their synonyms and the other names as sets.

        What the vocabulary is called, its templates, the order of synonyms, and underscores or blanks in names do not
        change which class a sentence or a score column belongs to, so they do not count.
        """
        parts: list[list[object]] = [[entry.words[0], sorted(entry.synonyms)] for entry in self.classes]
        if self.other_names:
            parts.append([*sorted(self.other_names)])
        content = json.dumps(parts, ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def _is_unseen(letter: str) -> bool:
    """Whether a letter controls or formats; joiners, which scripts and emoji need, and the tags of flags do not."""
    is_needed = letter in "\u200c\u200d" or 0xE0020 <= ord(letter) <= 0xE007F
    return unicodedata.category(letter) in ("Cc", "Cf") and not is_needed


def merged(classes: Sequence[VocabularyClass]) -> tuple[VocabularyClass, ...]:
    """The same classes, those of one name taken together, and every other word left to the first class that has it.

    A merged class is called as the first of its name; it stands where that one stood.
    """
    by_name: dict[str, list[VocabularyClass]] = {}
    for entry in classes:
        by_name.setdefault(comparable_name(entry.name), []).append(entry)
    owned = set(by_name)
    result = []
    for entries in by_name.values():
        synonyms = []
        for word in (word for entry in entries for word in entry.synonyms):
            key = comparable_name(word)
            if key not in owned:
                owned.add(key)
                synonyms.append(word)
        result.append(VocabularyClass(entries[0].name, tuple(synonyms)))
    return tuple(result)
