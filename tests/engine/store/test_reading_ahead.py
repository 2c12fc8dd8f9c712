"""Reading in order, shuffled and by id; what is read ahead and what memory is used again."""

import gc

import numpy as np
import pytest
import torch

from feature_samples import done, random_batch, same, small_spec, write_group
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.store import FeatureStore, StoredItem, rows
from tai_engine.store.rows import RowBuffers, merged_runs


@pytest.fixture
def store(tmp_path):
    """Groups of six, four (one failed) and one items; d and h are deleted."""
    store = FeatureStore.create(tmp_path / "s", small_spec(has_content_hash=True))
    write_group(store, 0, done(*"abcdef"), [random_batch("abcdef", [3, 1, 2, 3, 0, 3])])
    items = [StoredItem("g", content_hash=b"0123456789abcdef"), StoredItem("h"), StoredItem("i", "failed", "x: y")]
    write_group(store, 1, [*items, StoredItem("j")], [random_batch("ghj", [3, 2, 1], seed=1)])
    write_group(store, 2, done("k"), [random_batch("k", [3], seed=2)])
    with store.writing():
        assert store.delete([3, 7]) == 2
    return FeatureStore.open(store.path)


LIVE = "abcefgjk"


def test_deleted_items_are_not_there(store):
    whole = FeatureBatch.concatenate(list(store.iter_batches(2)))
    assert "".join(whole.ids) == LIVE
    assert same(store.read_group(0), random_batch("abcdef", [3, 1, 2, 3, 0, 3]).select([0, 1, 2, 4, 5]))
    assert same(store.read_group(1), random_batch("ghj", [3, 2, 1], seed=1).select([0, 2]))
    assert (len(store), store.counts()) == (9, {"done": 8, "failed": 1})
    assert [item.status for item in store.items(1)] == ["done", "deleted", "failed", "done"]
    assert [item.id for item in store.ledger()] == [*"abcefgijk"]
    known = store.known_ids()
    assert ["d" in known, "h" in known, "i" in known, len(known)] == [False, False, True, 9]
    assert [batch.positions.tolist() for batch in store.iter_coarse()] == [[0, 1, 2, 4, 5], [6, 9], [12]]
    with pytest.raises(ValueError, match="the position 3 holds no features"):
        store.read_items([0, 3])


def test_hashes_come_back(store):
    assert [item.content_hash for item in store.items(1)] == [b"0123456789abcdef", None, None, None]


def test_batches_with_their_groups(store):
    found = [(group, "".join(batch.ids)) for group, batch in store.iter_group_batches(4)]
    assert found == [(0, "abc"), (0, "ef"), (1, "gj"), (2, "k")]
    assert [group for group, _ in store.iter_group_batches(4, groups=[2, 0], with_fine=False)] == [2, 0, 0]


@pytest.mark.parametrize("batch_items", [1, 3, 8, 100])
def test_shuffled_batches_hold_every_item_once(store, batch_items):
    batches = list(store.iter_shuffled(batch_items, seed=3))
    assert [len(batch) for batch in batches] == [batch_items] * (8 // batch_items) + [8 % batch_items] * bool(
        8 % batch_items
    )
    shuffled = FeatureBatch.concatenate(batches)
    assert sorted(shuffled.ids) == [*LIVE]
    in_order = FeatureBatch.concatenate(list(store.iter_batches()))
    assert same(shuffled, in_order.select([LIVE.index(name) for name in shuffled.ids]))


def test_the_order_is_that_of_the_seed(store):
    orders = [tuple(name for b in store.iter_shuffled(3, seed) for name in b.ids) for seed in (0, 0, 1, 2)]
    assert orders[0] == orders[1]
    assert len(set(orders)) == 3
    with pytest.raises(ValueError, match="batch_items is 0"):
        store.iter_shuffled(0, 0)


def test_nothing_to_shuffle(tmp_path):
    store = FeatureStore.create(tmp_path / "s", small_spec())
    assert list(store.iter_shuffled(3, 0)) == []
    assert store.done_positions().tolist() == []


def test_items_by_their_ids(store):
    assert same(store.read_ids(["k", "a", "j"]), store.read_items([12, 0, 9]))
    assert len(store.read_ids(["k"], with_fine=False).fine) == 0
    assert len(store.read_ids([])) == 0
    with pytest.raises(ValueError, match="twice"):
        store.read_ids(["a", "b", "a"])
    for names, words in ((["a", "h", "nobody"], "'h' and 1 more"), (["i"], "'i';")):  # deleted; failed
        with pytest.raises(UserError, match=f"holds no features of {words}"):
            store.read_ids(names)


def test_ids_follow_what_is_written(store):
    assert store.read_ids(["a"]).ids == ("a",)
    write_group(store, 3, done("z"), [random_batch("z", [1])])
    with store.writing():
        store.delete([0])
    assert store.read_ids(["z"]).ids == ("z",)
    with pytest.raises(UserError, match="'a'"):
        store.read_ids(["a"])


def test_chunks_that_are_compressed_are_read_all_the_same(store):
    """A copy in another layout, as other tools make: what is read goes through zarr."""
    import zarr

    expected = [store.read_group(g) for g in (0, 1, 2)]
    group = zarr.open_group(store.path, mode="r+", zarr_format=3)
    for name in ("fine", "coarse", "status"):
        old = group[name]
        values = old[:]
        group.create_array(name, data=values, chunks=old.chunks, compressors=[zarr.codecs.ZstdCodec()], overwrite=True)
        assert not any((store.path / name).glob("c.*"))
    again = FeatureStore.open(store.path)
    assert [same(again.read_group(g), expected[g]) for g in (0, 1, 2)] == [True] * 3
    assert same(again.read_items([12, 2, 0, 9]), FeatureBatch.concatenate(expected).select([7, 2, 0, 6]))


def test_runs_that_touch_are_one():
    starts, lengths = merged_runs(np.array([0, 2, 5, 9, 9, 12]), np.array([2, 3, 1, 0, 3, 1]))
    assert (starts.tolist(), lengths.tolist()) == ([0, 9], [6, 4])
    starts, lengths = merged_runs(np.array([4, 0]), np.array([2, 4]))  # order counts
    assert (starts.tolist(), lengths.tolist()) == ([4, 0], [2, 4])
    assert [x.tolist() for x in merged_runs(np.zeros(0, np.int64), np.zeros(0, np.int64))] == [[], []]


@pytest.fixture
def small_buffers(monkeypatch):
    monkeypatch.setattr(rows, "_LEAST_BYTES", 0)


@pytest.mark.usefixtures("small_buffers")
def test_memory_is_used_again_when_nothing_refers_to_it():
    buffers = RowBuffers()
    first = buffers.empty((10, 4), torch.float32)
    place, view = first.data_ptr(), first[3:].view(torch.int32).numpy()
    assert place % 4096 == 0
    first.fill_(7)
    del first
    gc.collect()
    second = buffers.empty((10, 4), torch.float32)
    assert second.data_ptr() != place  # a view is still there
    second.fill_(0)
    assert (view.view(np.float32) == 7).all()
    del view
    gc.collect()
    third = buffers.empty((8,), torch.int8)
    assert third.data_ptr() == place
    assert third.shape == (8,)


@pytest.mark.usefixtures("small_buffers")
def test_the_largest_four_are_kept():
    buffers = RowBuffers()
    held = [buffers.empty((size,), torch.int8) for size in (5, 1, 3, 2, 4, 6)]
    held.clear()
    gc.collect()
    assert [len(memory) for memory in buffers._free] == [3, 4, 5, 6]
    taken = buffers.empty((4,), torch.int8)  # the smallest that will do
    assert [len(memory) for memory in buffers._free] == [3, 5, 6]
    del taken


@pytest.mark.usefixtures("small_buffers")
def test_batches_that_are_kept_do_not_change(store):
    kept = [batch for _ in range(3) for batch in store.iter_batches(2)]
    fresh = list(FeatureStore.open(store.path).iter_batches(2))
    assert all(same(a, b) for a, b in zip(kept, fresh * 3, strict=True))
