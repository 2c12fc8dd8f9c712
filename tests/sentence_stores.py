"""Stores of labelled sentences, made without a file of sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from feature_samples import write_group
from tai_engine import tuning
from tai_engine.store import FeatureStore, LabelSpec, StoredItem, StoreSpec
from tai_engine.tuning import TuningConfig
from tai_engine.vocabulary import Vocabulary

NAMES = ("dog", "potted plant", "zebra", "hair drier", "cat")
VERBS = ("sees", "likes", "stands near", "runs from", "is larger than")


def example_sentences(count: int) -> list[tuple[str, tuple[int, ...]]]:
    """Sentences of unequal length with one or two classes."""
    found = []
    for n in range(count):
        first, second = n % len(NAMES), (n // len(NAMES)) % len(NAMES)
        filler = " ".join(["very"] * (n % 4))
        found.append((f"the {filler} {NAMES[first]} {VERBS[n % 7 % 5]} a {NAMES[second]} {n}", (first, second)))
    return [(" ".join(text.split()), tuple(sorted(set(classes)))) for text, classes in found]


def tune(store: Any, encoder: Any, vocabulary: Vocabulary, config: TuningConfig, **options: Any) -> tuning.TuningResult:
    """The whole way of a run: ``init`` goes to the task, the other options to the run."""
    task = tuning.TuningTask.prepare(store, encoder, vocabulary, config, options.pop("init", None))
    return tuning.tune(task, config, **options)


def write_store(
    path: Path,
    encoder: Any,
    vocabulary: Vocabulary,
    sentences: Sequence[tuple[str, tuple[int, ...]]],
    *,
    group_items: int = 16,
    failed: Sequence[int] = (),
    encode: Callable[[list[str], list[str]], Any] | None = None,
    **changes: Any,
) -> FeatureStore:
    """A real store; the sentences at ``failed`` have no features."""
    settings: dict[str, Any] = {
        "kind": "sentences",
        "space_key": encoder.space_key,
        "recipe_key": encoder.sentence_recipe_key,
        "dim": encoder.dim,
        "rows_per_item_max": encoder.context_length,
        "row_dtype": "float32",
        "group_items": group_items,
        "chunk_items": group_items,
        "has_text": True,
        "labels": LabelSpec(vocabulary.names, vocabulary.name, vocabulary.fingerprint),
        "provenance": {"model": "tiny"},
    }
    store = FeatureStore.create(path, StoreSpec(**(settings | changes)))
    for group in range(-(-len(sentences) // group_items)):
        numbers = range(group * group_items, min((group + 1) * group_items, len(sentences)))
        items = [
            StoredItem(
                str(n),
                status="failed" if n in failed else "done",
                reason="empty" if n in failed else None,
                text=sentences[n][0] if store.spec.has_text else None,
                labels=sentences[n][1] if store.spec.labels else None,
            )
            for n in numbers
        ]
        done = [n for n in numbers if n not in failed]
        batch = (encode or encoder.encode_sentences)([sentences[n][0] for n in done], [str(n) for n in done])
        write_group(store, group, items, [batch])
    return store
