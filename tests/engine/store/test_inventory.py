"""What is in a store, by id."""

import numpy as np
import pytest
import torch

from tai_engine.features import FeatureBatch
from tai_engine.store import FeatureStore, StoredItem, StoreSpec


@pytest.fixture
def store(tmp_path):
    spec = StoreSpec(
        kind="images", space_key="space:s", recipe_key="r", dim=2, rows_per_item_max=0, group_items=4, chunk_items=4,
        has_content_hash=True,
    )  # fmt: skip
    return FeatureStore.create(tmp_path / "store", spec)


def write(store, group, *items):
    done = [item.id for item in items if item.status == "done"]
    rows = torch.nn.functional.normalize(torch.ones(len(done), 2), dim=1)
    batch = FeatureBatch(tuple(done), rows, rows[:0], torch.zeros(len(done) + 1, dtype=torch.int64), "space:s")
    store.write_group(group, items, [batch] if done else [])


def test_items_are_found_with_what_is_known_of_them(store):
    with store.writing():
        write(store, 0, StoredItem("a", size=5, modified_ns=-7, content_hash=b"h" * 16), StoredItem("ü"))
        write(store, 2, StoredItem("c", "failed", "broken", size=0))
    inventory = store.inventory(with_hashes=True)
    assert len(inventory) == 3
    found = inventory.find("a")
    assert (found.position, found.status, found.size, found.modified_ns, found.content_hash) == (
        0, "done", 5, -7, b"h" * 16,
    )  # fmt: skip
    found = inventory.find("ü")
    assert (found.position, found.size, found.modified_ns, found.content_hash) == (1, None, None, None)
    found = inventory.find("c")
    assert (found.position, found.status, found.size) == (8, "failed", 0)
    assert inventory.find("b") is None
    assert store.inventory().find("a").content_hash is None


def test_an_empty_store_has_nothing(store):
    inventory = store.inventory(with_hashes=True)
    assert (len(inventory), inventory.find("a")) == (0, None)
    assert inventory.unseen().tolist() == inventory.superseded.tolist() == []


def test_deleted_items_are_not_there(store):
    with store.writing():
        write(store, 0, StoredItem("a"), StoredItem("b"), StoredItem("c", "failed", "broken"))
        store.delete([0, 2])
    inventory = store.inventory()
    assert len(inventory) == 1
    assert [inventory.find(name) and inventory.find(name).position for name in "abc"] == [None, 1, None]
    assert inventory.unseen().tolist() == [1]


def test_of_equal_ids_the_last_position_counts(store):
    with store.writing():
        write(store, 3, StoredItem("a", size=3), StoredItem("b"))
        write(store, 0, StoredItem("b", size=0), StoredItem("a", size=0))
        write(store, 1, StoredItem("a", size=1))
    inventory = store.inventory()
    assert len(inventory) == 2
    assert (inventory.find("a").position, inventory.find("a").size) == (12, 3)
    assert inventory.find("b").position == 13
    assert inventory.superseded.tolist() == [0, 1, 4]
    assert inventory.unseen().tolist() == [12, 13]


def test_what_has_come_is_remembered(store):
    with store.writing():
        write(store, 0, StoredItem("a"), StoredItem("b"), StoredItem("c"))
    inventory = store.inventory()
    b = inventory.find("b")
    assert inventory.see(b)
    assert not inventory.see(b)
    assert inventory.unseen().tolist() == [0, 2]


def test_many_items_are_found_in_any_order(store):
    names = [f"picture {n}" for n in range(100)]
    order = np.random.default_rng(0).permutation(100)
    with store.writing():
        for group in range(25):
            write(store, group, *(StoredItem(names[n], size=int(n)) for n in order[group * 4 : group * 4 + 4]))
    inventory = store.inventory()
    for position, n in enumerate(order.tolist()):
        found = inventory.find(names[n])
        assert (found.position, found.size) == (position, n)
    assert inventory.find("picture 100") is None
