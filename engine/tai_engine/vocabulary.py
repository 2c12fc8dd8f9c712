"""What can be tagged: class names, the words that sentences use for them, and templates around the names.

A vocabulary file is TOML::

    name = "pets"
    templates = ["a photo of a {}, a pet."]     # optional
    other_names = ["hot dog"]                   # optional: no class, though a class's word is in it

    [[class]]
    name = "dog"
    synonyms = ["puppy", "guide dog"]           # optional

or text with one name a line, synonyms after a colon and a blank; lines that begin with ``#`` are comments::

    dog: puppy, hound
    cat

A colon that no blank follows belongs to the name (``rating:safe``).
"""

from __future__ import annotations

import hashlib
import json
import tomllib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from tai_engine.errors import UserError, unknown_choice

BUILT_IN_VOCABULARIES = ("coco80", "nuswide81", "voc20")
DEFAULT_TEMPLATE = "a photo of a {}."


@dataclass(frozen=True)
class VocabularyClass:
    """One thing to tag.

    Attributes:
        name: what the tag is called, and the word that goes into prompts; underscores become blanks.
        synonyms: other words and compounds for it, as sentences use them.
    """

    name: str
    synonyms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", tidy_name(self.name))
        object.__setattr__(self, "synonyms", tuple(map(tidy_name, self.synonyms)))

    @property
    def words(self) -> tuple[str, ...]:
        """The name and its synonyms."""
        return (self.name, *self.synonyms)


@dataclass(frozen=True)
class Vocabulary:
    """Classes in a fixed order; every word belongs to one class alone.

    Attributes:
        name: what the vocabulary is called.
        classes: at least one.
        templates: sentences with the place ``{}`` for a class name; empty where the vocabulary brings none.
        other_names: of things that are no class but hold a class's word, such as "hot dog" where only dogs are tagged.

    Raises:
        UserError: for no classes, an empty name or synonym, a word that occurs twice (whatever its case), or a template
            without the place for the name.
    """

    name: str
    classes: tuple[VocabularyClass, ...]
    templates: tuple[str, ...] = ()
    other_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "other_names", tuple(map(tidy_name, self.other_names)))
        if not self.classes:
            raise UserError(f"The vocabulary {self.name!r} has no classes: give it at least one name.")
        owners: dict[str, int] = {}
        for number, entry in enumerate(self.classes, 1):
            if not entry.name:
                raise UserError(f"Class {number} of the vocabulary {self.name!r} has an empty name: name or remove it.")
            for word in entry.words:
                if not word:
                    raise UserError(
                        f"The class {entry.name!r} of the vocabulary {self.name!r} has an empty synonym: remove it."
                    )
                owner = owners.setdefault(word.casefold(), number)
                if owner != number or entry.words.count(word) > 1:
                    both = f"{self.classes[owner - 1].name!r} (number {owner}) and {entry.name!r} (number {number})"
                    where = f"the classes {both}" if owner != number else f"the class {entry.name!r} twice"
                    raise UserError(
                        f"The word {word!r} stands in {where} of the vocabulary {self.name!r}; a word may stand for "
                        "one class only, and once (case does not count): remove one of the two."
                    )
        for word in self.other_names:
            if not word or word.casefold() in owners:
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
        """The class names, in order."""
        return tuple(entry.name for entry in self.classes)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the names in order, and of their synonyms and the other names as sets.

        What the vocabulary is called, its templates and the order of synonyms do not change which class a sentence or a
        score column belongs to, so they do not count.
        """
        parts: list[list[object]] = [[entry.name, sorted(entry.synonyms)] for entry in self.classes]
        if self.other_names:
            parts.append([*sorted(self.other_names)])
        content = json.dumps(parts, ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def tidy_name(text: str) -> str:
    """A name as prompts want it: underscores become blanks, runs of blanks one, letters are composed (NFC)."""
    return unicodedata.normalize("NFC", " ".join(text.replace("_", " ").split()))


def imagenet_templates() -> tuple[str, ...]:
    """The 80 templates that CLIP's authors wrote for ImageNet, as open_clip has them, ``{}`` for the name."""
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES  # slow to import, and seldom wanted

    return tuple(fill("{}") for fill in OPENAI_IMAGENET_TEMPLATES)


def load_vocabulary(spec: str | Path) -> Vocabulary:
    """A built-in vocabulary by its name, or one's own from a file.

    Args:
        spec: one of `BUILT_IN_VOCABULARIES`, or the path of a ``.toml`` file or of a text file in UTF-8. A file that is
            called like a built-in one is reached by a path with a folder, such as ``./coco80``.

    Raises:
        UserError: for an unknown name, a missing or unreadable file, text that is not UTF-8, TOML with a mistake, and
            whatever `Vocabulary` refuses.
    """
    if str(spec) in BUILT_IN_VOCABULARIES:
        resource = files("tai_engine") / "vocabularies" / f"{spec}.toml"
        return _parse_toml(resource.read_text(encoding="utf-8"), str(spec), f"built-in vocabulary {spec!r}")
    path = Path(spec)
    if not path.exists():
        if len(path.parts) > 1 or path.suffix:
            raise UserError(
                f"There is no vocabulary file '{spec}': check the path, or name a built-in vocabulary "
                f"({', '.join(BUILT_IN_VOCABULARIES)})."
            )
        unknown = unknown_choice("vocabulary", str(spec), BUILT_IN_VOCABULARIES)
        raise UserError(f"{str(unknown).rstrip('.?')}, or give the path of a TOML or text file.")
    text = _read_text(path)
    where = f"vocabulary file '{path}'"
    try:
        if path.suffix.lower() == ".toml":
            return _parse_toml(text, path.stem, where)
        return Vocabulary(path.stem, tuple(_parse_lines(text)))
    except UserError as error:
        if str(path) in str(error):
            raise
        raise UserError(f"In the {where}: {error}") from error


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"The vocabulary file '{path}' cannot be read ({error.strerror}): check the path.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"The vocabulary file '{path}' is not UTF-8 in line {line}: save it as UTF-8.") from error


def _parse_lines(text: str) -> Iterable[VocabularyClass]:
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, rest = (line + " ").partition(": ")
        synonyms = rest.split(",") if rest.strip() else []
        yield VocabularyClass(name, tuple(synonyms))


def _parse_toml(text: str, name: str, where: str) -> Vocabulary:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"The {where} is not valid TOML: {error}.") from error
    _check_keys(document, ("name", "class", "templates", "other_names"), where)
    entries = document.get("class", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"In the {where} classes are tables: write [[class]] above each name.")
    classes = []
    for number, entry in enumerate(entries, 1):
        _check_keys(entry, ("name", "synonyms"), f"class {number} of the {where}")
        classes.append(
            VocabularyClass(
                _string(entry.get("name", ""), f"name of class {number} of the {where}"),
                _strings(entry.get("synonyms", []), f"synonyms of class {number} of the {where}"),
            )
        )
    title = _string(document.get("name", name), f"name of the {where}")
    templates, others = (
        _strings(document.get(key, []), f"{key.replace('_', ' ')} of the {where}")
        for key in ("templates", "other_names")
    )
    return Vocabulary(title, tuple(classes), templates, others)


def _check_keys(table: dict[str, Any], allowed: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in allowed:
            raise unknown_choice(f"key in the {where}:", key, allowed)


def _string(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"The {what} is {value!r}; it must be text in quotation marks.")
    return value


def _strings(value: object, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise UserError(f"The {what} are {value!r}; they must be a list of texts in quotation marks.")
    return tuple(value)
