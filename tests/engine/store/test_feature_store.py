"""What is written comes back, bit by bit, through the engine and through plain Zarr."""

import json
import warnings

import numpy as np
import pytest
import torch
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_samples import done, random_batch, same, small_spec, write_group
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.store import FeatureStore, StoredItem
from tai_engine.store.layout.commits import create_record


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


def test_a_new_store_is_empty(path):
    store = FeatureStore.create(path, small_spec(has_coarse_clip=True))
    assert (len(store), store.counts(), store.groups(), store.nbytes) == (0, {"done": 0, "failed": 0}, [], 0)
    assert next(store.free_groups()) == 0
    assert list(store.iter_batches()) == []
    assert list(store.ledger()) == []
    assert "x" not in store.known_ids()
    assert [p.name for p in path.parent.iterdir()] == ["store"]


def test_the_spec_comes_back(path):
    spec = small_spec(
        provenance={"model": "RN50", "precision": "fp32"}, recipe={"image_size": 224}, row_dtype="float32"
    )
    created = FeatureStore.create(path, spec)
    opened = FeatureStore.open(str(path))
    assert opened.spec == spec
    assert opened.created == created.created
    assert opened.fingerprint == created.fingerprint


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("row_dtype", ["float16", "float32"])
def test_one_group_comes_back_bit_by_bit(path, clip, row_dtype):
    batch = random_batch("abcde", [3] * 5, clip=clip, dtype=getattr(torch, row_dtype))
    write_group(
        FeatureStore.create(path, small_spec(has_coarse_clip=clip, row_dtype=row_dtype)), 0, done(*"abcde"), [batch]
    )
    store = FeatureStore.open(path)
    assert same(store.read_group(0), batch)
    assert store.counts() == {"done": 5, "failed": 0}
    assert len(store) == 5


def test_fp32_rows_are_rounded_to_fp16_by_default(path):
    batch = random_batch("ab", [2, 2], dtype=torch.float32)
    store = FeatureStore.create(path, small_spec())
    write_group(store, 0, done("a", "b"), [batch])
    assert same(store.read_group(0), batch.to(dtype=torch.float16))


def test_failed_items_keep_their_slot_without_rows(path):
    items = [
        StoredItem("a", "failed", "truncated: ends at byte 7", size=7, modified_ns=12),
        StoredItem("b", size=0, modified_ns=1_700_000_000_123_456_789),
        StoredItem("ü/€.jpg", "failed", "missing"),
        StoredItem("d"),
    ]
    batch = random_batch(["b", "d"], [1, 3])
    record = write_group(FeatureStore.create(path, small_spec()), 0, items, [batch])
    assert (record.items, record.done, record.rows, record.first_row) == (4, 2, 4, 0)
    store = FeatureStore.open(path)
    assert list(store.ledger()) == items
    assert store.counts() == {"done": 2, "failed": 2}
    assert same(store.read_group(0), batch)
    known = store.known_ids()
    assert all(item.id in known for item in items)
    group = zarr.open_group(path, mode="r")
    assert group["coarse"][0].tolist() == [0.0] * 8
    assert group["count"][:].tolist() == [0, 1, 0, 3]


def test_a_group_of_nothing_but_failures(path):
    store = FeatureStore.create(path, small_spec(has_coarse_clip=True))
    record = write_group(store, 0, [StoredItem("a", "failed", "empty"), StoredItem("b", "failed", "empty")])
    assert (record.done, record.rows) == (0, 0)
    store = FeatureStore.open(path)
    empty = store.read_group(0)
    assert (len(empty), empty.dim, empty.fine.shape, empty.coarse_clip.shape) == (0, 8, (0, 8), (0, 8))
    assert list(store.iter_batches()) == []
    assert store.counts() == {"done": 0, "failed": 2}


def test_coarse_only_stores_have_no_fine_array(path):
    batch = random_batch("ab", [0, 0])
    write_group(FeatureStore.create(path, small_spec(rows_per_item_max=0)), 0, done("a", "b"), [batch])
    assert not (path / "fine").exists()
    assert same(FeatureStore.open(path).read_group(0), batch)


def test_batches_may_come_in_any_pieces(path):
    batch = random_batch("abcdef", [3, 1, 0, 2, 3, 3])
    store = FeatureStore.create(path, small_spec(kind="sentences"))
    write_group(store, 0, done(*"abcdef"), [batch[:1], batch[1:1], batch[1:5], batch[5:]])
    assert same(store.read_group(0), batch)


def test_groups_in_any_order_by_different_writers(path):
    FeatureStore.create(path, small_spec())
    batches = {g: random_batch([f"{g}{i}" for i in range(6 - g)], [3] * (6 - g), seed=g) for g in (2, 0, 1)}
    for group, batch in batches.items():
        write_group(FeatureStore.open(path), group, done(*batch.ids), [batch])
    store = FeatureStore.open(path)
    assert store.groups() == [0, 1, 2]
    assert len(store) == 15
    assert all(same(store.read_group(g), batches[g]) for g in batches)
    assert [b.ids[0] for b in store.iter_batches(groups=[2, 1])] == ["20", "10"]


def test_the_next_group_fills_holes(path):
    store = FeatureStore.create(path, small_spec())
    for group in (0, 2):
        write_group(store, group, done(f"{group}"), [random_batch([f"{group}"], [3])])
    assert next(store.free_groups()) == 1
    write_group(store, 1, done("1"), [random_batch(["1"], [3])])
    assert next(store.free_groups()) == 3


def test_the_fingerprint_follows_the_groups(path):
    store = FeatureStore.create(path, small_spec())
    empty = store.fingerprint
    write_group(store, 0, done("a"), [random_batch("a", [3])])
    assert store.fingerprint != empty
    assert FeatureStore.open(path).fingerprint == store.fingerprint


def test_batches_are_bounded_and_stay_within_groups(path):
    store = FeatureStore.create(path, small_spec())
    whole = []
    for group, size in enumerate((6, 6, 1)):
        batch = random_batch([f"{group}{i}" for i in range(size)], [3] * size, seed=group)
        write_group(store, group, done(*batch.ids), [batch])
        whole.append(batch)
    batches = list(store.iter_batches(4))
    assert [len(b) for b in batches] == [4, 2, 4, 2, 1]
    assert same(FeatureBatch.concatenate(batches), FeatureBatch.concatenate(whole))
    with pytest.raises(ValueError, match="batch_items"):
        next(store.iter_batches(0))


def test_coarse_vectors_alone_can_be_read(path):
    store = FeatureStore.create(path, small_spec(has_coarse_clip=True))
    batch = random_batch("abc", [3, 3, 3], clip=True)
    write_group(store, 0, done(*"abc"), [batch])
    for chunk in (path / "fine").glob("c.*"):
        chunk.unlink()  # so that reading fine rows would fail
    (coarse,) = store.iter_batches(with_fine=False)
    assert torch.equal(coarse.coarse, batch.coarse)
    assert torch.equal(coarse.coarse_clip, batch.coarse_clip)
    assert coarse.fine.shape == (0, 8)
    assert coarse.offsets.tolist() == [0, 0, 0, 0]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_group_comes_back(tmp_path_factory, data):
    kind = data.draw(st.sampled_from(["images", "sentences"]))
    chunk = data.draw(st.integers(1, 4))
    spec = small_spec(kind=kind, chunk_items=chunk, group_items=chunk * data.draw(st.integers(1, 4)), dim=4)
    counts = data.draw(st.lists(st.none() | st.integers(0, 3), min_size=1, max_size=spec.group_items))
    items = [StoredItem(f"i{n}", *(("failed", "x") if c is None else ())) for n, c in enumerate(counts)]
    good = [n for n, c in enumerate(counts) if c is not None]
    batch = random_batch([f"i{n}" for n in good], [counts[n] for n in good], dim=4)
    cut = data.draw(st.integers(0, len(good)))
    group = data.draw(st.integers(0, 2))
    store = FeatureStore.create(tmp_path_factory.mktemp("any") / "store", spec)
    write_group(store, group, items, [batch[:cut], batch[cut:]])
    store = FeatureStore.open(store.path)
    assert list(store.ledger()) == items
    assert same(store.read_group(group), batch)
    size = data.draw(st.integers(1, 5))
    pieces = list(store.iter_batches(size))
    assert all(0 < len(p) <= size for p in pieces)
    if good:
        assert same(FeatureBatch.concatenate(pieces), batch)


def test_any_zarr_reader_understands_it(path):
    store = FeatureStore.create(path, small_spec(has_coarse_clip=True, provenance={"model": "RN50"}))
    first = random_batch("abcdef", [3] * 6, seed=1, clip=True)
    second = random_batch("gi", [3, 3], seed=2, clip=True)
    write_group(store, 0, done(*"abcdef"), [first])
    write_group(store, 1, [StoredItem("g"), StoredItem("h", "failed", "empty"), StoredItem("i", size=5)], [second])
    group = zarr.open_group(path, mode="r", zarr_format=3)
    attributes = group.attrs["tai_engine"]
    assert (attributes["schema_version"], attributes["kind"], attributes["dim"]) == (2, "images", 8)
    assert (attributes["has_fine"], attributes["has_coarse_clip"]) == (True, True)
    assert attributes["provenance"] == {"model": "RN50"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = sorted(group.array_keys())
    assert names == sorted(["id", "status", "count", "size", "modified_ns", "coarse", "coarse_clip", "fine"])
    assert group["id"][:].tolist() == list("abcdefghi")
    assert group["status"][:].tolist() == [1, 1, 1, 1, 1, 1, 1, 2, 1]
    assert group["count"][:].tolist() == [3, 3, 3, 3, 3, 3, 3, 0, 3]
    assert group["size"][:].tolist() == [-1] * 8 + [5]
    assert np.array_equal(group["coarse"][:6], first.coarse.numpy())
    assert np.array_equal(group["coarse_clip"][8], second.coarse_clip[1].numpy())
    # Group 1 owns rows from 6 * 3 = 18 on; its rows are compact.
    assert np.array_equal(group["fine"][:18], first.fine.numpy())
    assert np.array_equal(group["fine"][18:24], second.fine.numpy())
    assert group["fine"].shape == (24, 8)


def test_chunks_are_plain_numbers_and_a_checksum(path):
    """A reader without Zarr, written from STORE_FORMAT.md alone."""
    google_crc32c = pytest.importorskip("google_crc32c")
    store = FeatureStore.create(path, small_spec())
    batch = random_batch("abc", [3] * 3)
    write_group(store, 0, done(*"abc"), [batch])
    chunk = (path / "fine" / "c.1.0").read_bytes()
    assert len(chunk) == 2 * 3 * 8 * 2 + 4
    assert google_crc32c.value(chunk[:-4]) == int.from_bytes(chunk[-4:], "little")
    rows = np.frombuffer(chunk[:-4], dtype="<f2").reshape(6, 8)
    assert np.array_equal(rows[:3], batch.fine[6:].numpy())
    assert not rows[3:].any()
    assert json.loads((path / "commits" / "00000000.json").read_text()) == {
        "group": 0, "items": 3, "done": 3, "first_row": 0, "rows": 9, "bytes": store.nbytes, "failed": {},
    }  # fmt: skip
    assert store.nbytes == sum(p.stat().st_size for p in path.rglob("c.*"))


def test_the_estimate_is_what_is_written(path):
    store = FeatureStore.create(path, small_spec(has_coarse_clip=True))
    ids = [f"{i:080d}" for i in range(10)]  # as long as estimates take ids to be
    for group, names in enumerate((ids[:6], ids[6:])):
        batch = random_batch(names, [3] * len(names), clip=True)
        write_group(store, group, done(*names), [batch])
    # Per group: the number of ids, the checksums of the five chunks per item; and two unused slots of no letters.
    overhead = 2 * (4 + 5 * 4) + 2 * 4
    assert store.nbytes == store.spec.estimate_bytes(10) + overhead


@pytest.mark.parametrize(
    ("items", "batch", "words"),
    [
        (done("a", "b"), random_batch("ba", [3, 3]), "not those of the done items"),
        (done("a"), random_batch("ab", [3, 3]), "not those of the done items"),
        (done("a", "a"), random_batch("a", [3]), "not unique"),
        (done("a"), random_batch("a", [4]), "4 fine rows"),
        (done("a"), random_batch("a", [3], dim=7), "dim 7"),
        (done("a"), random_batch("a", [3], clip=True), "coarse_clip True"),
        (done("a"), random_batch("a", [3], space_key="space:2"), "space:2"),
        ([StoredItem("a", "pending")], random_batch("", []), "done or failed"),
        ([], random_batch("", []), "1 to 6 items, not 0"),
        (done(*"abcdefg"), random_batch("abcdefg", [3] * 7), "1 to 6 items, not 7"),
    ],
)
def test_groups_that_do_not_fit_are_refused(path, items, batch, words):
    store = FeatureStore.create(path, small_spec())
    with pytest.raises(ValueError, match=words):
        write_group(store, 0, items, [batch])
    assert FeatureStore.open(path).groups() == []
    assert list(path.rglob("c.*")) == []


def test_a_committed_group_is_not_written_again(path):
    store = FeatureStore.create(path, small_spec())
    write_group(store, 0, done("a"), [random_batch("a", [3])])
    with pytest.raises(ValueError, match="committed already"):
        write_group(store, 0, done("b"), [random_batch("b", [3])])
    with pytest.raises(UserError, match="has no group 1"):
        store.read_group(1)


def test_everything_is_durable_before_the_commit(path, synced, monkeypatch):
    store = FeatureStore.create(path, small_spec())
    assert {p.stat().st_ino for p in [path, *path.rglob("*")]} <= {inode for inode, _ in synced}
    synced.clear()
    before_commit = []
    monkeypatch.setattr(
        "tai_engine.store.feature_store.create_record",
        lambda *args: (before_commit.extend(synced), create_record(*args)),
    )
    write_group(store, 0, done(*"abc"), [random_batch("abc", [3] * 3)])
    chunks = list(path.rglob("c.*"))
    assert len(chunks) == 5 + 2 + 2
    metadata = [
        path / name / "zarr.json" for name in ("id", "status", "count", "size", "modified_ns", "coarse", "fine")
    ]
    assert {(p.stat().st_ino, p.stat().st_size) for p in [*chunks, *metadata]} <= set(before_commit)
    assert {p.parent.stat().st_ino for p in metadata} <= {inode for inode, _ in before_commit}
    record = path / "commits" / "00000000.json"
    assert [inode for inode, _ in synced[-2:]] == [record.stat().st_ino, record.parent.stat().st_ino]


def test_open_or_create(path):
    assert len(FeatureStore.open_or_create(path, small_spec())) == 0
    store = FeatureStore.open_or_create(path, small_spec())
    write_group(store, 0, done("a"), [random_batch("a", [3])])
    assert len(FeatureStore.open_or_create(path, small_spec(group_items=64, chunk_items=64))) == 1
    with pytest.raises(UserError, match=r"'space:1'.*'space:2'"):
        FeatureStore.open_or_create(path, small_spec(space_key="space:2"))


def test_an_empty_folder_becomes_a_store(path):
    path.mkdir()
    assert len(FeatureStore.open_or_create(path, small_spec())) == 0
