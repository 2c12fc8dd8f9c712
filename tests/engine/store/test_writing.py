"""Writing under the lock, in several processes, and deleting."""

import contextlib
import json
import os
from dataclasses import replace

import pytest
import torch
import zarr

from feature_samples import done, random_batch, same, small_spec, write_group
from tai_engine.errors import UserError
from tai_engine.store import FeatureStore, LabelSpec, StoredItem, content_of
from tai_engine.store.layout.commits import CommitRecord
from tai_engine.store.layout.labels import contents_digest
from tai_engine.store.places import lease, lock
from tai_engine.unfinished import FOLDER_SUFFIX


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


@pytest.fixture(params=["folder", "address"])
def place(request, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)
    return tmp_path / "store" if request.param == "folder" else f"memory://{tmp_path.name}/store"


def three_groups(path, **changes):
    """Six, six and two items; 7 failed."""
    store = FeatureStore.create(path, small_spec(**changes))
    write_group(store, 0, done(*"abcdef"), [random_batch("abcdef", [3, 1, 0, 2, 3, 3])])
    items = [*done("g"), StoredItem("h", "failed", "empty"), *done(*"ijkl")]
    write_group(store, 1, items, [random_batch("gijkl", [3] * 5, seed=1)])
    write_group(store, 2, done("m", "n"), [random_batch("mn", [2, 2], seed=2)])
    return store


def ids(store):
    return [item.id for item in store.ledger()]


def test_changes_outside_of_writing_are_refused(path):
    store = FeatureStore.create(path, small_spec())
    batch = random_batch("a", [3])
    record = CommitRecord(0, 1, 1, 0, 3, 1, {})
    for change in (
        lambda: store.write_group(0, done("a"), [batch]),
        lambda: store.commit_group(record),
        lambda: store.reserve(1),
        lambda: store.delete([0]),
    ):
        with pytest.raises(RuntimeError, match="within `with store"):
            change()
    assert list(path.rglob("c.*")) == []
    with store.writing() as same_store:
        assert same_store is store
        with store.writing():  # may be nested
            store.write_group(0, done("a"), [batch])
        store.delete([0])
    with pytest.raises(RuntimeError):
        store.delete([0])


def test_a_second_writer_is_refused_and_the_first_goes_on(place):
    first = FeatureStore.create(place, small_spec())
    second = FeatureStore.open(place)
    with first.writing():
        first.write_group(0, done("a"), [random_batch("a", [3])])
        with pytest.raises(UserError, match="is being written by process"), second.writing():
            pytest.fail("two writers")
        first.write_group(1, done("b"), [random_batch("b", [3])])
    with second.writing():  # sees what came since it was opened
        assert next(second.free_groups()) == 2
        second.write_group(2, done("c"), [random_batch("c", [3])])
    assert ids(FeatureStore.open(place)) == ["a", "b", "c"]


def test_a_store_that_was_replaced_meanwhile_is_refused(path):
    store = FeatureStore.create(path, small_spec())
    path.rename(path.with_name("old"))
    FeatureStore.create(path, small_spec(dim=9))
    with pytest.raises(UserError, match="was replaced by another one"), store.writing():
        pytest.fail("another store")
    with FeatureStore.open(path).writing():
        pass  # the lock was given back


def test_groups_are_prepared_elsewhere_and_committed_by_the_holder(place):
    driver = FeatureStore.create(place, small_spec())
    worker = FeatureStore.open(place)
    first, second = random_batch("abcdef", [3] * 6), random_batch("ab", [3, 3], seed=1)
    with driver.writing():
        with pytest.raises(RuntimeError, match="no place for group 1"):
            worker.prepare_group(1, done("a", "b"), [second])
        driver.reserve(2)
        late = worker.prepare_group(1, done("x", "y"), [random_batch("xy", [3, 3], seed=1)])
        early = FeatureStore.open(place).prepare_group(0, done(*"abcdef"), [first])
        assert FeatureStore.open(place).groups() == []
        driver.commit_group(late)
        driver.commit_group(early)
        with pytest.raises(ValueError, match="committed already"):
            driver.commit_group(early)
    store = FeatureStore.open(place)
    assert store.groups() == [0, 1]
    assert same(store.read_group(0), first)
    assert ids(store) == [*"abcdefxy"]
    with pytest.raises(ValueError, match="committed already"):
        store.prepare_group(0, done("z"), [random_batch("z", [3])])


def test_reserving_makes_all_arrays_long_enough(path):
    store = FeatureStore.create(path, small_spec(has_coarse_clip=True))
    with store.writing():
        store.reserve(3)
        store.reserve(2)  # never shortens
    group = zarr.open_group(path, mode="r")
    assert {name: array.shape[0] for name, array in group.arrays()} == dict.fromkeys(
        ["id", "status", "count", "size", "modified_ns", "coarse", "coarse_clip"], 18
    ) | {"fine": 54}
    assert list(path.rglob("c.*")) == []


@pytest.mark.parametrize("change", ["remove", "shorten"])
def test_chunks_that_went_before_the_commit_are_noticed(path, change):
    store = FeatureStore.create(path, small_spec())
    with store.writing():
        record = store.prepare_group(0, done("a"), [random_batch("a", [3])])
        chunk = path / "coarse" / "c.0.0"
        if change == "remove":
            chunk.unlink()
        else:
            chunk.write_bytes(chunk.read_bytes()[:-1])
        with pytest.raises(UserError, match=r"chunks of group 0 .* are not those that were prepared"):
            store.commit_group(record)
        assert FeatureStore.open(path).groups() == []


@pytest.mark.parametrize("place", ["address"], indirect=True)  # a file lock is not taken over
def test_a_writer_that_was_taken_for_dead_commits_nothing_and_spoils_nothing(place, monkeypatch):
    slow = FeatureStore.create(place, small_spec())
    with slow.writing():
        record = slow.prepare_group(0, done("a"), [random_batch("a", [3])])
        with monkeypatch.context() as patched:
            patched.setattr(lease.FoundLease, "is_in_force", False)
            fast = FeatureStore.open(place)
            writing = fast.writing()
            writing.__enter__()
        with contextlib.ExitStack() as stack:
            stack.push(writing)
            assert next(fast.free_groups()) == 1  # the other one may be at work on group 0 still
            fast.write_group(1, done("b"), [random_batch("b", [3], seed=1)])
            with pytest.raises(UserError, match="was taken over"):
                slow.commit_group(record)
            with pytest.raises(UserError, match="was taken over"):
                slow.write_group(1, done("c"), [random_batch("c", [3])])
    assert FeatureStore.open(place).groups() == [1]
    assert same(FeatureStore.open(place).read_group(1), random_batch("b", [3], seed=1))


def test_deleted_items_are_gone_for_readers(place):
    store = three_groups(place)
    with store.writing():
        assert store.delete([1, 7, 12]) == 3
    before = random_batch("abcdef", [3, 1, 0, 2, 3, 3])
    for opened in (store, FeatureStore.open(place)):
        assert ids(opened) == [*"acdefgijkln"]
        assert (len(opened), opened.counts()) == (11, {"done": 11, "failed": 0})
        assert same(opened.read_group(0), before.select([0, 2, 3, 4, 5]))
        assert [b.ids for b in opened.iter_batches(4)] == [
            ("a", "c", "d"),
            ("e", "f"),
            ("g", "i", "j"),
            ("k", "l"),
            ("n",),
        ]
        assert opened.read_group(2).ids == ("n",)
        assert torch.cat([b.positions for b in opened.iter_coarse()]).tolist() == [0, 2, 3, 4, 5, 6, 8, 9, 10, 11, 13]
        known = opened.known_ids()
        assert ["b" in known, "h" in known, "a" in known] == [False, False, True]
        with pytest.raises(ValueError, match="position 1 holds no features"):
            opened.read_items([1])
        assert [item.status for item in opened.items(0)] == ["done", "deleted", "done", "done", "done", "done"]


def test_random_access_forgets_what_was_deleted(path):
    store = three_groups(path)
    assert store.read_items([0, 1]).ids == ("a", "b")
    with store.writing():
        store.delete(torch.tensor([1]))
    with pytest.raises(ValueError, match="position 1"):
        store.read_items([1])
    assert store.read_items([0]).ids == ("a",)


def test_deleting_twice_counts_once_and_chunks_stay(path):
    store = three_groups(path)
    chunks = {p: p.read_bytes() for p in path.rglob("c.*")}
    fingerprint = store.fingerprint
    with store.writing():
        assert store.delete([2, 2, 0]) == 2
        assert store.delete([0, 5, 2]) == 1
        assert store.delete([]) == 0
    assert json.loads((path / "commits" / "00000000.json").read_text())["deleted"] == [0, 2, 5]
    assert {p: p.read_bytes() for p in path.rglob("c.*")} == chunks
    assert store.fingerprint != fingerprint
    assert store.fingerprint == FeatureStore.open(path).fingerprint


@pytest.mark.parametrize("position", [-1, 14, 17, 18, 1000])
def test_places_that_hold_nothing_cannot_be_deleted(path, position):
    store = three_groups(path)
    with store.writing(), pytest.raises(ValueError, match=f"the position {position} holds no item"):
        store.delete([0, position])
    assert len(FeatureStore.open(path)) == 14  # nothing was deleted


def test_a_group_of_which_nothing_is_left(path):
    store = three_groups(path)
    with store.writing():
        assert store.delete([12, 13]) == 2
    assert (len(store), len(store.read_group(2)), ids(store)) == (12, 0, [*"abcdefghijkl"])
    assert [b.ids for b in store.iter_batches()] == [tuple("abcdef"), tuple("gijkl")]


def test_the_data_fingerprint_is_that_of_what_is_left(path):
    spec = small_spec(kind="sentences", has_text=True, labels=LabelSpec(("x", "y"), "v", "f"))
    items = [
        StoredItem(name, text=f"text {name}", labels=labels)
        for name, labels in zip("abc", [(), (1,), (0, 1)], strict=True)
    ]
    store = FeatureStore.create(path, spec)
    write_group(store, 0, items, [random_batch("abc", [1, 2, 3])])
    with store.writing():
        store.delete([1])
    left = contents_digest(content_of(i.id, i.text, i.labels) for i in (items[0], items[2]))
    assert store.data_fingerprint == FeatureStore.open(path).data_fingerprint == left
    assert store.read_texts([0, 2]) == ["text a", "text c"]
    assert next(store.iter_coarse()).labels.tolist() == [[False, False], [True, True]]


def test_an_id_may_come_back_after_it_was_deleted(path):
    store = three_groups(path)
    with store.writing():
        store.delete([1])
        write = random_batch("b", [2], seed=7)
        store.write_group(3, done("b"), [write])
    assert ids(FeatureStore.open(path))[-1] == "b"
    assert same(FeatureStore.open(path).read_group(3), write)


def test_a_full_disk_while_deleting(path, monkeypatch):
    store = three_groups(path)
    before = (path / "commits" / "00000001.json").read_bytes()

    def full(*_):
        raise UserError("Cannot write: the disk is full.")

    monkeypatch.setattr("tai_engine.store.layout.live_records.replace_record", full)
    with store.writing(), pytest.raises(UserError, match="disk is full"):
        store.delete([6])
    assert (path / "commits" / "00000001.json").read_bytes() == before
    assert ids(store) == [*"abcdefghijklmn"]


@pytest.mark.parametrize("deleted", [[0, 0], [1, 0], [-1], [6], ["x"], 3])
def test_damaged_lists_of_deleted_slots(path, deleted):
    three_groups(path)
    record = path / "commits" / "00000000.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"deleted": deleted}))
    with pytest.raises(UserError, match="is damaged"):
        FeatureStore.open(path)


def test_records_count_what_is_left():
    record = CommitRecord(0, 5, 3, 0, 9, 1, {1: "x", 4: "y"}, deleted=(0, 4))
    assert (record.live_done, record.live_failed) == (2, 1)
    assert (record.summary().live_done, record.summary().live_failed) == (2, 1)
    assert replace(record, deleted=()).summary().live_failed == 2


def test_what_a_killed_writer_left_under_temporary_names_goes_with_the_next_one(path):
    three_groups(path)
    left = [path / "fine" / "c.9.0.0123456789abcdef.partial", path / "commits" / ".0123456789abcdef.tmp"]

    def leave(holder):
        for file in left:
            file.write_bytes(b"half")
        (path / ".lock").write_bytes(holder)

    leave(lease.Holder.this_process().to_json().encode())
    with FeatureStore.open(path).writing():
        assert not any(file.exists() for file in left)
    assert not (path / ".lock").exists()
    leave(b"")  # an empty lock is of nobody who wrote, and none means that the last one ended well
    with FeatureStore.open(path).writing():
        assert all(file.exists() for file in left)


def test_a_store_that_is_written_again_removes_nothing_without_the_right_to_it(path, monkeypatch):
    store = three_groups(path)
    with store.writing():
        store.write_group(3, done("o"), [random_batch("o", [1])])
    left = path / "commits" / ".0123456789abcdef.tmp"
    left.write_bytes(b"half")
    (path / ".lock").write_bytes(lease.Holder.this_process().to_json().encode())

    def lost(_lock):
        raise UserError("another one may be writing it")

    monkeypatch.setattr(lock._FileLock, "fence", lost)
    with pytest.raises(UserError, match="another one may be writing"), store.writing():
        pytest.fail("the right was lost")
    assert left.exists()


def test_a_killed_holder_of_a_lease_leaves_nothing_either(path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)
    three_groups(path)
    left = path / "fine" / "c.9.0.0123456789abcdef.partial"
    left.write_bytes(b"half")
    with FeatureStore.open(path).writing():
        assert left.exists()  # the one before ended well
    (path / "lease.000007.json").write_text(lease.Holder(1, "elsewhere", 1.0, "it", 1.0).to_json())
    with FeatureStore.open(path).writing():
        assert not left.exists()


def test_what_a_killed_process_left_of_a_new_store_goes_with_the_next_one(tmp_path):
    old, fresh = (tmp_path / f".{digit * 16}{FOLDER_SUFFIX}" for digit in "ab")
    for folder in (old, fresh):
        folder.mkdir()
        (folder / "zarr.json").write_text("{}")
    os.utime(old, (1e9, 1e9))
    FeatureStore.create(tmp_path / "store", small_spec())
    assert sorted(path.name for path in tmp_path.iterdir()) == [fresh.name, "store"]
