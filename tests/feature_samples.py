"""Random features and small stores for tests."""

import torch

from tai_engine.features import FeatureBatch, offsets_from_counts
from tai_engine.store import FeatureStore, StoredItem, StoreSpec


def unit_rows(rows, dim, generator):
    return torch.nn.functional.normalize(torch.randn(rows, dim, generator=generator), dim=1)


def random_batch(ids, counts, dim=8, seed=0, *, clip=False, space_key="space:1", dtype=torch.float16):
    """A batch of random unit rows; item n has counts[n] fine rows."""
    generator = torch.Generator().manual_seed(seed)
    coarse, fine = unit_rows(len(ids), dim, generator), unit_rows(sum(counts), dim, generator)
    return FeatureBatch(
        ids=tuple(ids),
        coarse=coarse.to(dtype),
        fine=fine.to(dtype),
        offsets=offsets_from_counts(torch.tensor(counts, dtype=torch.int64)),
        space_key=space_key,
        coarse_clip=unit_rows(len(ids), dim, generator).to(dtype) if clip else None,
    )


def small_spec(**changes):
    """Groups of 6 items in chunks of 2, at most 3 fine rows of 8 numbers."""
    values = {
        "kind": "images",
        "space_key": "space:1",
        "recipe_key": "recipe:1",
        "dim": 8,
        "rows_per_item_max": 3,
        "group_items": 6,
        "chunk_items": 2,
    }
    return StoreSpec(**{**values, **changes})


def write_group(store, group, items, batches=()):
    """Write and commit one group, with the store's lock for that time only."""
    with store.writing():
        return store.write_group(group, items, batches)


def done(*ids):
    return [StoredItem(name) for name in ids]


def same(first, second):
    """Whether two batches are equal bit by bit."""
    clips = (first.coarse_clip is None) == (second.coarse_clip is None)
    if first.coarse_clip is not None and second.coarse_clip is not None:
        clips = torch.equal(first.coarse_clip, second.coarse_clip)
    return (
        clips
        and first.ids == second.ids
        and first.space_key == second.space_key
        and torch.equal(first.coarse, second.coarse)
        and torch.equal(first.fine, second.fine)
        and torch.equal(first.offsets, second.offsets)
        and first.coarse.dtype == second.coarse.dtype
    )


def stored_content(path):
    """All items of a store by id, and their vectors as bytes."""
    store = FeatureStore.open(path)
    items = sorted(store.ledger(), key=lambda item: item.id)
    rows = {}
    for batch in store.iter_batches():
        for n, name in enumerate(batch.ids):
            one = batch[n : n + 1]
            parts = (one.coarse, one.coarse_clip, one.fine, one.fine_scales)
            rows[name] = [None if part is None else part.numpy().tobytes() for part in parts]
    return items, rows
