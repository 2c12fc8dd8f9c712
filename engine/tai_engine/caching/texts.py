"""Sentences into a store: the same kind of features as pictures have, packed, with their texts and labels."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from tai_engine.caching.cache_run import CacheRun
from tai_engine.caching.changes import Judged
from tai_engine.caching.groups import Prepared, write_groups
from tai_engine.caching.report import CacheOptions, CacheReport, ProgressCallback
from tai_engine.caching.sizes import group_sizes
from tai_engine.caching.stages import Stages
from tai_engine.decoding.feed import jobs_of
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.sentences.built_in import BUILT_IN, are_built_in
from tai_engine.sentences.corpus import LabelledCorpus
from tai_engine.store import IdSet, LabelSpec, StoredItem, StoreSpec, content_of

MEAN_SENTENCE_ROWS = 16
"""Fine rows of a caption, about: for estimates of size only."""
MAX_TEXT_CHARACTERS = 16_384
"""Of a longer text the rest is left out: no text tower reads that far, and a group of texts has to fit in memory."""

_SLICE_SENTENCES = 1024

SentenceInput: TypeAlias = tuple[str, str, Sequence[int] | None]
"""Id, text, and the indices of the classes that it names (None without a vocabulary)."""


class SentenceEncoder(Protocol):
    """What `cache_sentences` needs of an encoder; `tai_engine.encoders.Encoder` has it."""

    space_key: str
    sentence_recipe_key: str
    sentence_recipe: dict[str, Any]
    provenance: dict[str, str | int | float]
    dim: int
    context_length: int
    has_fine_sentences: bool

    def encode_sentences(self, sentences: Sequence[str], ids: Sequence[str], /) -> FeatureBatch:
        """Sentences to features, packed; sorts them by length within the call."""


def cache_sentences(
    sentences: Iterable[SentenceInput],
    encoder: SentenceEncoder,
    path: str | Path,
    *,
    labels: LabelSpec | None = None,
    total: int | None = None,
    options: CacheOptions | None = None,
    progress: ProgressCallback | None = None,
) -> CacheReport:
    """Encode the sentences that are not in the store at ``path`` yet; blank ones fail.

    Those that are in it already must have the text and labels that they had, so that a store never mixes two files.

    Memory: the rows of two commit groups in the store's dtype, the features and texts of one slice, and 32 bytes per
    sentence for the ids (64 when going on with a store); it does not grow with the input otherwise.

    Args:
        sentences: id, text and labels of each; labels are class indices of ``labels``, or None without it.
        encoder: makes the features.
        path: the store; made if there is none.
        labels: what labels mean and how the sentences were chosen; None keeps texts alone.
        total: how many sentences there are, if that is known.
        options: sizes; there are no workers.
        progress: called after each slice.

    Raises:
        UserError: for a store of another kind, space, recipe, vocabulary or other sentences, too little space, a disk
            that is full, an id that comes twice, or no sentences.
        ValueError: for labels that do not fit ``labels``.
    """
    options = options or CacheOptions()
    rows = encoder.context_length if encoder.has_fine_sentences else 0
    group_items, chunk_items = group_sizes(options, encoder.dim, rows)
    spec = StoreSpec(
        kind="sentences",
        space_key=encoder.space_key,
        recipe_key=encoder.sentence_recipe_key,
        dim=encoder.dim,
        rows_per_item_max=rows,
        row_dtype=options.row_dtype,
        group_items=group_items,
        chunk_items=chunk_items,
        provenance=dict(encoder.provenance),
        recipe=dict(encoder.sentence_recipe),
        has_text=True,
        labels=labels,
    )
    slice_items = options.slice_items or _SLICE_SENTENCES
    run: CacheRun[StoredItem] = CacheRun(path, spec, progress, total)
    with run:
        tasks = run.tasks(_judged((_stored_item(*sentence) for sentence in sentences), run, path))
        first = next(tasks, None)
        if first is not None:
            prepared = (
                Prepared(job.group, job.item, job.item.text if job.item.status == "done" else None, job.ends_group)
                for job in jobs_of(itertools.chain([first], tasks))
            )
            counter = run.counter
            records = write_groups(
                prepared, run.create(), lambda: _SentenceSlice(encoder), slice_items, counter.stages, counter.encoded
            )
            with contextlib.closing(records):
                run.commit(records)
        return run.end()


def cache_corpus(
    corpus: LabelledCorpus,
    encoder: SentenceEncoder,
    path: str | Path,
    *,
    options: CacheOptions | None = None,
    progress: ProgressCallback | None = None,
) -> CacheReport:
    """`cache_sentences` of the sentences that name a class, with their labels; memory and errors are as there."""
    sentences = ((one.id, one.text, one.class_indices) for one in corpus)
    return cache_sentences(sentences, encoder, path, labels=label_spec(corpus), options=options, progress=progress)


def _stored_item(name: str, text: str, labels: Sequence[int] | None) -> StoredItem:
    text = text[:MAX_TEXT_CHARACTERS]
    classes = None if labels is None else tuple(sorted(set(labels)))
    if text.strip():
        return StoredItem(name, text=text, labels=classes)
    return StoredItem(name, "failed", "empty: the sentence has no words", text=text, labels=classes)


def _judged(
    sentences: Iterable[StoredItem], run: CacheRun[StoredItem], path: str | Path
) -> Iterator[Judged[StoredItem]]:
    """Which sentences are not in the store yet; those that are must be the same as then."""
    known = IdSet() if run.store is None else run.store.known_ids()
    contents = IdSet() if run.store is None else run.store.known_contents()
    run.require_space(len(known), min(run.spec.rows_per_item_max, MEAN_SENTENCE_ROWS))
    new = IdSet()
    for item in sentences:
        if item.id in known:
            if content_of(item.id, item.text, item.labels) not in contents:
                raise UserError(
                    f"The store {path} was made from other sentences: the one with the id {item.id!r} is "
                    f"{item.text!r:.60} now, with another text or other labels than before; give the same files in "
                    "the same order, or choose another store."
                )
            yield Judged(item, "skipped")
            continue
        if not new.add(item.id):
            raise UserError(f"The id {item.id!r} comes twice in the input; every item needs an id of its own.")
        yield Judged(item, "new")


class _SentenceSlice:
    """Sentences that are encoded together."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder
        self._texts: list[str] = []
        self._names: list[str] = []

    def __len__(self) -> int:
        """How many there are."""
        return len(self._texts)

    def add(self, text: str, name: str) -> None:
        """Take one."""
        self._texts.append(text)
        self._names.append(name)

    def encode(self, stages: Stages) -> FeatureBatch:
        """Features of all, in order."""
        with stages.timed("encode"):
            return self._encoder.encode_sentences(self._texts, self._names)


def label_spec(corpus: LabelledCorpus) -> LabelSpec:
    """What a store has to know of its labels: the vocabulary, and all settings that decide which sentences come."""
    options = corpus.options
    excluded = sorted(options.exclude_images)
    settings: dict[str, Any] = {
        "language": options.language,
        "other_names": list(options.other_names),
        "max_words": options.max_words,
        "sentences_per_image": options.sentences_per_image,
        "limit_per_rarest_class": options.limit_per_rarest_class,
        "templates": list(options.templates),
        "excluded_images": len(excluded),
        "excluded_images_sha256": hashlib.sha256(json.dumps(excluded).encode()).hexdigest() if excluded else None,
    }
    if are_built_in(corpus.paths):
        settings["source"] = BUILT_IN
    vocabulary = corpus.vocabulary
    return LabelSpec(vocabulary.names, vocabulary.name, vocabulary.fingerprint, settings)
