"""A few items from anywhere: the same as reading everything and picking."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_samples import done, random_batch, same, small_spec, write_group
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.store import FeatureStore, LabelSpec, StoredItem


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


def write_groups(path, counts, **changes):
    """A store with a group per list; None is a failed item, a number one with so many fine rows."""
    spec = small_spec(**{"has_text": True, "labels": LabelSpec(("a", "b", "c"), "v", "f"), **changes})
    store = FeatureStore.create(path, spec)
    for group, group_counts in enumerate(counts):
        items = [
            StoredItem(
                f"{group}-{slot}",
                *(("failed", "x") if count is None else ()),
                text=f"text {group}-{slot}",
                labels=(slot % 3,),
            )
            for slot, count in enumerate(group_counts)
        ]
        good = [count for count in group_counts if count is not None]
        ids = [item.id for item in items if item.status == "done"]
        write_group(store, group, items, [random_batch(ids, good, seed=group, clip=spec.has_coarse_clip)])
    return FeatureStore.open(path)


# Chunks of fine rows are 6 long: items begin and end within them and across their ends.
COUNTS = [[3, 2, 3, None, 1, 3], [None, 3, 0, 3, 3, 2], [1]]
POSITIONS = [0, 1, 2, 4, 5, 7, 8, 9, 10, 11, 12]


@pytest.fixture
def store(path):
    return write_groups(path, COUNTS, has_coarse_clip=True)


def everything(store):
    return FeatureBatch.concatenate(list(store.iter_batches()))


def test_all_items_in_store_order(store):
    assert same(store.read_items(POSITIONS), everything(store))


def test_items_come_in_the_order_asked_for(store):
    got = store.read_items([12, 2, 9, 0])
    assert got.ids == ("2-0", "0-2", "1-3", "0-0")
    assert got.counts.tolist() == [1, 3, 3, 3]
    assert same(got, everything(store).select([10, 2, 7, 0]))


@pytest.mark.parametrize("as_what", [tuple, torch.tensor, np.array])
def test_positions_of_any_kind(store, as_what):
    assert store.read_items(as_what([9, 4])).ids == ("1-3", "0-4")


def test_nothing_asked_for(store):
    batch = store.read_items([])
    assert (len(batch), batch.fine.shape, batch.coarse_clip.shape) == (0, (0, 8), (0, 8))
    assert store.read_texts([]) == []


def test_without_fine_rows(store):
    batch = store.read_items([9, 4], with_fine=False)
    assert batch.fine.shape == (0, 8)
    assert torch.equal(batch.coarse, everything(store).coarse[[7, 3]])


def test_a_coarse_only_store(path):
    store = write_groups(path, [[0, None, 0]], rows_per_item_max=0)
    assert same(store.read_items([2, 0]), store.read_group(0).select([1, 0]))


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_items_of_any_store(tmp_path_factory, data):
    count = st.none() | st.integers(0, 3)
    counts = data.draw(st.lists(st.lists(count, min_size=1, max_size=6), min_size=1, max_size=3))
    kind = data.draw(st.sampled_from(["images", "sentences"]))
    store = write_groups(tmp_path_factory.mktemp("any") / "store", counts, kind=kind)
    positions = [6 * g + s for g, group in enumerate(counts) for s, count in enumerate(group) if count is not None]
    if not positions:
        return
    whole = everything(store)
    for _ in range(2):  # the first time chunks are tested, the second time rows are read from their places
        order = data.draw(st.permutations(range(len(positions))))[: data.draw(st.integers(1, len(positions)))]
        assert same(store.read_items([positions[i] for i in order]), whole.select(order))


def test_positions_that_hold_nothing(store):
    for position in (3, 6, 13):  # two failed ones, and one past the last group's items
        with pytest.raises(ValueError, match=f"the position {position} holds no features"):
            store.read_items([0, position])
        with pytest.raises(ValueError, match=f"the position {position} holds no features"):
            store.read_texts([position])
    for position in (-1, 18):
        with pytest.raises(UserError, match=f"has no group {position // 6};"):
            store.read_items([position])
    with pytest.raises(ValueError, match="twice"):
        store.read_items([4, 0, 4])


def test_a_chunk_is_read_whole_only_once(path, monkeypatch):
    store = write_groups(path, COUNTS, has_coarse_clip=True)
    whole = everything(store)
    store = FeatureStore.open(path)
    asked = []
    read = os.preadv

    def counted(descriptor, buffers, place):
        asked.extend(map(len, buffers))
        return read(descriptor, buffers, place)

    monkeypatch.setattr(os, "preadv", counted)
    assert same(store.read_items([2, 1]), whole.select([2, 1]))
    # Two chunks each of two coarse and of six fine rows of 16 bytes, one and four bytes for each slot of the group.
    assert sum(asked) == 2 * 2 * 2 * 16 + 2 * 6 * 16 + 6 * (1 + 4)
    asked.clear()
    assert same(store.read_items([1, 2, 0]), whole.select([1, 2, 0]))
    assert sum(asked) == 3 * 2 * 16 + (2 + 3 + 3) * 16


@pytest.mark.parametrize("chunk", ["coarse/c.1.0", "fine/c.0.0"])
def test_damage_is_found_at_the_first_touch(store, chunk):
    file = store.path / chunk
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    with pytest.raises(UserError, match=rf"Group 0 .*the chunk {chunk} is damaged"):
        store.read_items([2])


@pytest.mark.parametrize("chunk", ["coarse/c.1.0", "fine/c.0.0"])
def test_chunks_that_vanish_or_shrink_later_are_named(store, chunk):
    store.read_items([2])
    file = store.path / chunk
    os.truncate(file, 2)
    with pytest.raises(UserError, match=rf"Group 0 .*the chunk {chunk} is damaged: it ends too soon"):
        store.read_items([2])
    file.unlink()
    with pytest.raises(UserError, match=rf"Group 0 .*the chunk {chunk} is missing"):
        store.read_items([2])


def test_texts_of_some_items(store):
    assert store.read_texts([12, 2, 9, 2]) == ["text 2-0", "text 0-2", "text 1-3", "text 0-2"]


@pytest.mark.parametrize("batch_items", [1, 4, 6, 100])
def test_coarse_vectors_with_positions_and_labels(store, batch_items):
    for chunk in (store.path / "fine").glob("c.*"):
        chunk.unlink()  # so that reading fine rows would fail
    batches = list(store.iter_coarse(batch_items))
    assert all(0 < len(b.positions) <= batch_items for b in batches)
    positions = torch.cat([b.positions for b in batches])
    assert positions.dtype == torch.int64
    assert positions.tolist() == POSITIONS
    assert torch.equal(
        torch.cat([b.coarse for b in batches]), torch.cat([b.coarse for b in store.iter_batches(with_fine=False)])
    )
    # Slot s has class s mod 3.
    assert torch.cat([b.labels for b in batches]).int().argmax(dim=1).tolist() == [p % 6 % 3 for p in POSITIONS]
    assert all((b.labels.sum(dim=1) == 1).all() for b in batches)


def test_coarse_vectors_of_a_store_without_labels(path):
    store = FeatureStore.create(path, small_spec())
    write_group(store, 0, done("a", "b"), [random_batch("ab", [3, 3])])
    (batch,) = store.iter_coarse()
    assert (batch.positions.tolist(), batch.labels) == ([0, 1], None)
    assert [b.positions.tolist() for b in store.iter_coarse(groups=[])] == []
    with pytest.raises(ValueError, match="batch_items"):
        next(store.iter_coarse(0))
