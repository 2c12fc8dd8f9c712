"""Sentences into a store: the same kind of features as pictures have, packed, with their texts and labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from tai_engine.caching.filling import Prepared, StoreFiller, group_sizes
from tai_engine.caching.report import CacheOptions, CacheReport, ProgressCallback
from tai_engine.features import FeatureBatch
from tai_engine.store import LabelSpec, StoredItem, StoreSpec

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

    Memory: the rows of one commit group in the store's dtype, the features and texts of one slice, and 32 bytes per
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
    run = StoreFiller(path, spec, slice_items, progress, total, min(rows, MEAN_SENTENCE_ROWS))
    prepared = (_prepare_sentence(*sentence) for sentence in sentences)
    return run.fill(run.new_items((one.item, one) for one in prepared), encoder.encode_sentences)


def _prepare_sentence(name: str, text: str, labels: Sequence[int] | None) -> Prepared[str]:
    text = text[:MAX_TEXT_CHARACTERS]
    classes = None if labels is None else tuple(sorted(set(labels)))
    if text.strip():
        return Prepared(StoredItem(name, text=text, labels=classes), text)
    reason = "empty: the sentence has no words"
    return Prepared(StoredItem(name, "failed", reason, text=text, labels=classes), None)
