"""Compaction gives back place, loses nothing, and may be killed at any moment."""

import json
import shutil
import zlib

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_samples import done, random_batch, small_spec, stored_content, write_group
from tai_engine.errors import UserError
from tai_engine.store import FeatureStore, LabelSpec, StoredItem
from tai_engine.store.layout import arrays
from tai_engine.store.layout.commits import HIDDEN
from tai_engine.store.layout.live_records import read_summaries
from tai_engine.store.places import lease
from tai_engine.store.places.local_files import LocalFiles
from tai_engine.store.places.store_files import open_files
from tai_engine.store.upkeep.compact import compact_store
from tai_engine.store.upkeep.verify import verify_store


def batch_of(items, spec):
    names = [item.id for item in items if item.status == "done"]
    rows = [min(spec.rows_per_item_max, 1 + zlib.crc32(name.encode()) % 3) for name in names]
    dtype = torch.float32 if spec.row_dtype == "float32" else torch.float16
    return random_batch(names, rows, seed=len(names), clip=spec.has_coarse_clip, dtype=dtype)


def make(path, sizes, deleted=(), failed=(), **changes):
    """Groups of so many items named by their positions; some deleted, some failed."""
    store = FeatureStore.create(path, small_spec(**changes))
    with store.writing():
        for group, size in enumerate(sizes):
            if size:
                positions = range(group * 6, group * 6 + size)
                items = [
                    StoredItem(str(p), *(("failed", f"reason {p}") if p in failed else ()), size=p) for p in positions
                ]
                if store.spec.has_text:
                    items = [StoredItem(i.id, i.status, i.reason, text=f"text {i.id}", labels=(0,)) for i in items]
                store.write_group(group, items, [batch_of(items, store.spec)])
        store.delete(list(deleted))
    return path


def order(path):
    return [item.id for item in FeatureStore.open(path).ledger()]


def chunk_bytes(path):
    return sum(p.stat().st_size for p in path.rglob("c.*"))


def assert_clean(path):
    report = verify_store(path)
    assert (report.problems, report.leftovers, report.deleted) == ((), (), 0)


def test_by_hand(tmp_path):
    """Groups of 6, 6, 3 and 2 items; 1, 7 and the whole of the last group deleted, 8 failed: 12 are left."""
    path = make(tmp_path / "store", [6, 6, 3, 2], deleted=[1, 7, 18, 19, 14], failed=[8, 14])
    whole, ids, size, steps = stored_content(path), order(path), chunk_bytes(path), []
    report = compact_store(path, progress=lambda *step: steps.append(step))
    assert (report.items, report.dropped, report.groups_before, report.groups_after) == (12, 5, 4, 2)
    assert (report.bytes_before, report.bytes_after) == (size, chunk_bytes(path))
    assert report.freed_bytes == size - chunk_bytes(path) > 0
    assert report.as_dict()["freed_bytes"] == report.freed_bytes
    assert steps == [(1, 2), (2, 2)]
    assert order(path) == ids == ["0", *map(str, range(2, 7)), *map(str, range(8, 14))]
    assert stored_content(path) == whole
    assert FeatureStore.open(path).counts() == {"done": 11, "failed": 1}
    assert [FeatureStore.open(path).items(g)[0].id for g in FeatureStore.open(path).groups()] == ["0", "8"]
    assert not (path / HIDDEN).exists()
    assert_clean(path)


@pytest.mark.parametrize(
    ("sizes", "deleted"), [([], []), ([6, 6], []), ([6, 6, 2], []), ([3], []), ([6, 5, 6, 6], []), ([6, 6, 5, 5], [])]
)
def test_where_nothing_is_gained_nothing_is_done(tmp_path, sizes, deleted):
    path = make(tmp_path / "store", sizes, deleted)
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    report = compact_store(path)
    assert (report.freed_bytes, report.dropped, report.groups_after) == (0, 0, len(sizes))
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_full_groups_in_front_stay_where_they_are(tmp_path):
    path = make(tmp_path / "store", [6, 6, 6, 6], deleted=[13])
    untouched = {p: p.stat().st_mtime_ns for p in path.rglob("c.[01]")}
    compact_store(path)
    assert FeatureStore.open(path).groups() == [0, 1, 4, 5]
    assert {p: p.stat().st_mtime_ns for p in path.rglob("c.[01]")} == untouched
    assert_clean(path)


def test_the_gap_of_a_compaction_is_filled_by_the_next(tmp_path):
    path = make(tmp_path / "store", [6, 6], deleted=[0])
    compact_store(path)
    store = FeatureStore.open(path)
    assert store.groups() == [2, 3]
    assert next(store.free_groups()) == 0
    with store.writing():
        store.delete([12])
    ids = order(path)
    compact_store(path)
    assert FeatureStore.open(path).groups() == [0, 1]
    assert order(path) == ids
    assert_clean(path)


def test_all_items_deleted(tmp_path):
    path = make(tmp_path / "store", [6, 2], deleted=range(8))
    report = compact_store(path)
    assert (report.items, report.dropped, report.groups_after, report.bytes_after) == (0, 8, 0, 0)
    assert list(path.rglob("c.*")) == []
    assert next(FeatureStore.open(path).free_groups()) == 0
    assert_clean(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"row_dtype": "int8", "has_content_hash": True},
        {"row_dtype": "float32", "has_coarse_clip": True},
        {"rows_per_item_max": 0},
        {"kind": "sentences", "has_text": True, "labels": LabelSpec(("x",), "v", "f")},
    ],
)
def test_every_kind_of_store_keeps_its_bits(tmp_path, changes):
    path = make(tmp_path / "store", [6, 4, 5], deleted=[2, 13], failed=[3], **changes)
    whole, ids = stored_content(path), order(path)
    prints = FeatureStore.open(path).data_fingerprint if "has_text" in changes else None
    report = compact_store(path)
    assert (report.items, report.groups_after) == (13, 3)
    assert (stored_content(path), order(path)) == (whole, ids)
    if prints:
        assert FeatureStore.open(path).data_fingerprint == prints
    assert_clean(path)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_store(tmp_path_factory, data):
    sizes = data.draw(st.lists(st.integers(0, 6), max_size=5))
    positions = [group * 6 + slot for group, size in enumerate(sizes) for slot in range(size)]
    deleted = data.draw(st.sets(st.sampled_from(positions))) if positions else set()
    failed = data.draw(st.sets(st.sampled_from(positions))) if positions else set()
    path = make(tmp_path_factory.mktemp("any") / "store", sizes, deleted, failed)
    whole, ids = stored_content(path), order(path)
    report = compact_store(path)
    assert (report.items, report.dropped) == (len(positions) - len(deleted), len(deleted))
    assert report.groups_after <= report.groups_before
    assert (stored_content(path), order(path)) == (whole, ids)
    live = [record.items for record in read_summaries(LocalFiles(path), FeatureStore.open(path).spec).values()]
    if deleted:
        assert len(live) == -(-report.items // 6)
    assert_clean(path)
    assert compact_store(path).freed_bytes == 0


class Killed(BaseException):
    """The process ends here: nothing that it would do afterwards happens."""


@pytest.mark.parametrize(("gap", "stride"), [(False, 1), (True, 5)])
@pytest.mark.slow
def test_a_compaction_that_is_killed_at_any_step(tmp_path, monkeypatch, gap, stride):
    """Before each change of a file; readers see everything once, and the next writer cleans up."""
    path = make(
        tmp_path / "start",
        [0, 0, 3, 3] if gap else [3, 3],
        deleted=[13] if gap else [1],
        failed=[14, 2],
        rows_per_item_max=0,
    )
    whole, ids = stored_content(path), order(path)
    plain = {
        (LocalFiles, "write"): LocalFiles.write,
        (LocalFiles, "remove"): LocalFiles.remove,
        (arrays.StoreArrays, "write"): arrays.StoreArrays.write,
        (arrays.StoreArrays, "sync"): arrays.StoreArrays.sync,
    }

    def kill_after(limit):
        count = 0

        def counted(function):
            def call(*args):
                nonlocal count
                count += 1
                if count > limit:
                    raise Killed
                return function(*args)

            return call

        for (owner, name), function in plain.items():
            monkeypatch.setattr(owner, name, counted(function))

    steps, finished = 0, 0
    while True:
        copy = shutil.copytree(path, tmp_path / "copy")
        kill_after(steps)
        try:
            compact_store(copy)
        except Killed:
            kill_after(10**6)
            store = FeatureStore.open(copy)
            assert [item.id for item in store.ledger()] == ids, f"killed at step {steps}"
            assert stored_content(copy) == whole
            finished += store.groups() == ([0] if gap else [2])
            with store.writing():
                assert [item.id for item in store.ledger()] == ids
            report = verify_store(copy)
            assert (report.problems, report.leftovers, report.done + report.failed) == ((), (), len(ids))
        else:
            break
        shutil.rmtree(copy)
        steps += stride
    assert steps > 25
    assert 5 < finished * stride < steps - 5  # killed before the switch and after it


def test_what_a_killed_compaction_wrote_is_removed_by_the_next_writer(tmp_path, monkeypatch):
    path = make(tmp_path / "store", [3, 3, 6], deleted=[1])
    before = {p: p.read_bytes() for p in path.rglob("c.*")}
    monkeypatch.setattr("tai_engine.store.upkeep.compact.write_hidden", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        compact_store(path)
    assert json.loads((path / "commits" / "00000000.json").read_text())["deleted"] == [1]
    assert {p: p.read_bytes() for p in path.rglob("c.*")} == before


def test_a_disk_that_fills_up(tmp_path, monkeypatch):
    path = make(tmp_path / "store", [6, 6, 6], deleted=[1])
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file() and p.parent.name != "coarse"}
    plain, calls = arrays.StoreArrays.sync, []

    def full(self, group):
        calls.append(group)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return plain(self, group)

    monkeypatch.setattr(arrays.StoreArrays, "sync", full)
    with pytest.raises(UserError, match="the disk is full"):
        compact_store(path)
    after = {p: p.read_bytes() for p in path.rglob("*") if p.is_file() and p.parent.name != "coarse"}
    lengthened = {p for p in before if p.name == "zarr.json"}
    assert after.keys() == before.keys()
    assert all(after[p] == before[p] for p in before if p not in lengthened)
    assert verify_store(path).leftovers == ()


def test_a_damaged_store_is_left_alone(tmp_path):
    path = make(tmp_path / "store", [6, 6], deleted=[1])
    (path / "coarse" / "c.3.0").write_bytes(b"")
    with pytest.raises(UserError, match=r"Group 1 .* is damaged .*tai verify .* --repair"):
        compact_store(path)
    assert FeatureStore.open(path).groups() == [0, 1]
    assert verify_store(path).leftovers == ()


def test_a_store_that_is_being_written_is_refused(tmp_path):
    path = make(tmp_path / "store", [6, 6], deleted=[1])
    with FeatureStore.open(path).writing(), pytest.raises(UserError, match="is being written by process"):
        compact_store(path)


def test_at_an_address(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)
    path = make(f"memory://{tmp_path.name}/store", [6, 2, 3], deleted=[1, 6])
    whole, ids = stored_content(path), order(path)
    report = compact_store(path)
    assert (report.groups_before, report.groups_after, report.dropped) == (3, 2, 2)
    assert (stored_content(path), order(path)) == (whole, ids)
    assert open_files(path).names("commits") == ["00000003.json", "00000004.json", "zarr.json"]
    assert_clean(path)


def test_open_readers_notice(tmp_path):
    """Chunks of groups that moved are gone, not replaced by others."""
    path = make(tmp_path / "store", [6, 6], deleted=[1])
    reader = FeatureStore.open(path)
    compact_store(path)
    write_group(FeatureStore.open(path), 5, done("new"), [random_batch(["new"], [3])])
    with pytest.raises(UserError, match="Group 0"):
        reader.read_group(0)
