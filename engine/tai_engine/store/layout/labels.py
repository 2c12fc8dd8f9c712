"""Texts and labels beside the vectors: what the labels mean, how they are packed, and what tells two inputs apart.

Shape legend: N items, C classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from tai_engine.errors import UserError
from tai_engine.vocabulary.spelling import comparable_name

_SHOWN = 60  # characters of a setting in a message


@dataclass(frozen=True)
class LabelSpec:
    """What the labels of a store mean and how its sentences were chosen; part of the store's identity.

    Attributes:
        class_names: C names in the order of the labels, at least one.
        vocabulary: what the vocabulary is called.
        vocabulary_fingerprint: of its names and synonyms, which decide what is labelled.
        corpus: settings that decide which sentences are kept and how they are labelled (language, limits, templates,
            ...), as JSON has them.

    Raises:
        ValueError: for no classes.
    """

    class_names: tuple[str, ...]
    vocabulary: str
    vocabulary_fingerprint: str
    corpus: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.class_names:
            raise ValueError("labels need at least one class")

    @property
    def corpus_fingerprint(self) -> str:
        """16 hexadecimal digits of the corpus settings."""
        return hashlib.sha256(json.dumps(dict(self.corpus), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def packed_bytes(self) -> int:
        """Bytes of an item's labels."""
        return -(-len(self.class_names) // 8)

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> LabelSpec:
        """The same from JSON.

        Raises:
            KeyError, TypeError, ValueError: for attributes that make no sense.
        """
        values = {f.name: attributes[f.name] for f in fields(cls)}
        names = values["class_names"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("class_names is not a list of names")
        return cls(**{**values, "class_names": tuple(names)})


def require_same_labels(stored: LabelSpec | None, wanted: LabelSpec | None, path: object) -> None:
    """Refuse to go on filling a store with sentences that were labelled or chosen in another way.

    Raises:
        UserError: naming both vocabularies or both settings, with their fingerprints.
    """
    if stored is None or wanted is None:
        if stored is not None:
            raise UserError(
                f"The store {path} has labels of the vocabulary {stored.vocabulary!r} "
                f"({stored.vocabulary_fingerprint}), but this run has no vocabulary; give it with --vocabulary, or "
                "choose another store."
            )
        if wanted is not None:
            raise UserError(
                f"The store {path} has no labels, but this run labels with the vocabulary {wanted.vocabulary!r} "
                f"({wanted.vocabulary_fingerprint}); leave --vocabulary out, or choose another store."
            )
        return
    same_names = [*map(comparable_name, stored.class_names)] == [*map(comparable_name, wanted.class_names)]
    if stored.vocabulary_fingerprint != wanted.vocabulary_fingerprint or not same_names:
        if stored.vocabulary == wanted.vocabulary:
            what = (
                f"The vocabulary {wanted.vocabulary!r} has changed since the store {path} was made "
                f"(fingerprint {stored.vocabulary_fingerprint} then, {wanted.vocabulary_fingerprint} now)"
            )
        else:
            what = (
                f"The store {path} has labels of the vocabulary {stored.vocabulary!r} "
                f"(fingerprint {stored.vocabulary_fingerprint}), but this run has {wanted.vocabulary!r} "
                f"({wanted.vocabulary_fingerprint})"
            )
        raise UserError(f"{what}: labels of two vocabularies do not mix; give the old one, or choose another store.")
    if stored.corpus_fingerprint != wanted.corpus_fingerprint:
        missing = "not set"
        differing = [
            f"{name} {_short(stored.corpus.get(name, missing))} then, {_short(wanted.corpus.get(name, missing))} now"
            for name in sorted({*stored.corpus, *wanted.corpus})
            if stored.corpus.get(name, missing) != wanted.corpus.get(name, missing)
        ]
        raise UserError(
            f"The corpus settings have changed since the store {path} was made (fingerprint "
            f"{stored.corpus_fingerprint} then, {wanted.corpus_fingerprint} now: {'; '.join(differing)}); give the "
            "same options as before, or choose another store."
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def pack_labels(labels: Sequence[Sequence[int]], class_count: int) -> np.ndarray:
    """[N, ceil(C / 8)] uint8: class c of an item is bit c mod 8, from the lowest, of its byte c // 8.

    Args:
        labels: the class indices of each item.
        class_count: C.

    Raises:
        ValueError: for an index outside [0, C).
    """
    labels_NC = np.zeros((len(labels), class_count), dtype=np.bool_)
    items = np.repeat(np.arange(len(labels)), [len(indices) for indices in labels])
    classes = np.array([index for indices in labels for index in indices], dtype=np.int64)
    if len(classes) and not 0 <= classes.min() <= classes.max() < class_count:
        raise ValueError(f"labels reach outside the {class_count} classes")
    labels_NC[items, classes] = True
    return np.packbits(labels_NC, axis=1, bitorder="little")


def unpack_labels(packed: np.ndarray, class_count: int) -> np.ndarray:
    """[N, C] bool: what `pack_labels` packed."""
    return np.unpackbits(packed, axis=1, count=class_count, bitorder="little").astype(np.bool_)


def content_of(name: str, text: str | None, labels: Iterable[int] | None) -> str:
    """One text that is equal for two inputs if and only if they have the same id, text and labels."""
    return json.dumps([name, text, None if labels is None else sorted(set(labels))], ensure_ascii=True)


def contents_digest(contents: Iterable[str]) -> str:
    """32 hexadecimal digits that do not depend on the order: the sum of the contents' 128-bit hashes modulo 2^128.

    Digests of disjoint parts add up to that of the whole (`add_digests`). It tells changed data, and is no proof
    against somebody who sets out to deceive.
    """
    return add_digests(hashlib.blake2b(content.encode(), digest_size=16).hexdigest() for content in contents)


def add_digests(digests: Iterable[str]) -> str:
    """The digest of everything that was put into ``digests``."""
    return f"{sum(int(digest, 16) for digest in digests) % (1 << 128):032x}"


def subtract_digest(whole: str, part: str) -> str:
    """The digest of what is left of ``whole`` without ``part``."""
    return f"{(int(whole, 16) - int(part, 16)) % (1 << 128):032x}"
