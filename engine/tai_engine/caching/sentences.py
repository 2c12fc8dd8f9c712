"""Sentences into a store: the same kind of features as pictures have, packed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from tai_engine.caching.filling import Prepared, StoreFiller, group_sizes
from tai_engine.caching.report import CacheOptions, CacheReport, ProgressCallback
from tai_engine.features import FeatureBatch
from tai_engine.store import StoredItem, StoreSpec

MEAN_SENTENCE_ROWS = 16
"""Fine rows of a caption, about: for estimates of size only."""


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
        """Sentences to features, packed."""


def cache_sentences(
    sentences: Iterable[tuple[str, str]],
    encoder: SentenceEncoder,
    path: str | Path,
    *,
    total: int | None = None,
    options: CacheOptions | None = None,
    progress: ProgressCallback | None = None,
) -> CacheReport:
    """Encode the sentences that are not in the store at ``path`` yet; blank ones fail.

    Memory: as `cache_images`, with texts in place of pixels.

    Args:
        sentences: pairs of id and text.
        encoder: makes the features.
        path: the store; made if there is none.
        total: how many sentences there are, if that is known.
        options: sizes; there are no workers.
        progress: called after each slice.

    Raises:
        UserError: as `cache_images`.
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
    )
    run = StoreFiller(path, spec, options, progress, total, min(rows, MEAN_SENTENCE_ROWS))
    prepared = (_prepare_sentence(name, text) for name, text in run.new_items((pair[0], pair) for pair in sentences))
    return run.fill(prepared, encoder.encode_sentences)


def _prepare_sentence(name: str, text: str) -> Prepared[str]:
    if text.strip():
        return Prepared(StoredItem(name), text)
    return Prepared(StoredItem(name, status="failed", reason="empty: the sentence has no words"), None)
