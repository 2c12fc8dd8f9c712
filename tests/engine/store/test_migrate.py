"""Stores of schema 1: read as they are, written after a migration, which may be killed at any moment."""

import json
import shutil

import pytest
import zarr

from feature_samples import done, random_batch, small_spec, stored_content, write_group
from tai_engine.errors import UserError
from tai_engine.store import FeatureStore, lease
from tai_engine.store.compact import compact_store
from tai_engine.store.lock import LOCK, hold_lock
from tai_engine.store.migrate import migrate_store
from tai_engine.store.repair import repair_store
from tai_engine.store.store_files import LocalFiles, open_files
from tai_engine.store.verify import verify_store
from v1_stores import write_v1_store

ITEMS = [(name, "empty: 0 bytes" if name == "h" else None, number) for number, name in enumerate("abcdefghi")]


@pytest.fixture(params=["images", "sentences"])
def kind(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    write_v1_store(tmp_path / "store", ITEMS)
    return tmp_path / "store"


def test_a_store_of_schema_1_is_read_and_verified(tmp_path, kind):
    path = tmp_path / "store"
    vectors = write_v1_store(path, ITEMS, sentences=kind == "sentences")
    store = FeatureStore.open(path)
    assert (store.spec.schema_version, store.spec.kind, store.counts()) == (1, kind, {"done": 8, "failed": 1})
    assert [(item.id, item.reason, item.size) for item in store.ledger()] == ITEMS
    batch = store.read_group(1)
    assert batch.ids == ("g", "i")
    for n, name in enumerate(batch.ids):
        assert (batch.coarse[n].numpy() == vectors[name][0]).all()
        assert (batch.fine[3 * n : 3 * n + 3].numpy() == vectors[name][1]).all()
    report = verify_store(path)
    assert (report.problems, report.leftovers, report.done) == ((), (), 8)
    if kind == "sentences":
        assert store.texts(1) == ["text g", "text i"]


def test_writing_to_schema_1_names_the_command(path):
    store = FeatureStore.open(path)
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    message = rf"schema version 1, .* run `tai migrate {path}` first"
    for change in (
        lambda: store.writing().__enter__(),
        lambda: FeatureStore.open_or_create(path, small_spec(has_content_hash=True)),
        lambda: compact_store(path),
        lambda: repair_store(path),
    ):
        with pytest.raises(UserError, match=message):
            change()
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_a_migrated_store_holds_the_same_and_can_be_written(tmp_path, kind):
    path, steps = tmp_path / "store", []
    write_v1_store(path, ITEMS, sentences=kind == "sentences")
    whole, created = stored_content(path), FeatureStore.open(path).created
    report = migrate_store(path, progress=lambda *step: steps.append(step))
    assert report.as_dict() == {"path": str(path), "schema_before": 1, "schema_after": 2, "groups": 2}
    store = FeatureStore.open(path)
    assert (store.spec.schema_version, store.created) == (2, created)
    assert store.spec.provenance == {"model": "RN50"}
    assert stored_content(path) == whole
    assert store.nbytes == sum(p.stat().st_size for p in path.rglob("c.*"))
    found = verify_store(path)
    assert (found.problems, found.leftovers, found.done, found.failed) == ((), (), 8, 1)
    assert store.spec.has_content_hash == (kind == "images")
    assert not (path / LOCK).exists()
    if kind == "images":
        assert steps == [(1, 2), (2, 2)]
        hashes = zarr.open_group(path, mode="r")["content_hash"]
        assert (hashes.shape, hashes.dtype, hashes[:].any()) == ((12, 16), "uint8", False)
        # It goes on as a store does that was made by this version.
        store = FeatureStore.open_or_create(path, small_spec(has_content_hash=True))
        write_group(store, store.next_group(), done("j"), [random_batch("j", [3])])
        with store.writing():
            assert store.delete([0]) == 1
        compact_store(path)
        assert [item.id for item in FeatureStore.open(path).ledger()] == [*"bcdefghij"]
        assert verify_store(path).problems == ()


def test_a_second_migration_does_nothing(path):
    migrate_store(path)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.rglob("*") if p.is_file()}
    report = migrate_store(path)
    assert (report.schema_before, report.schema_after) == (2, 2)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.rglob("*") if p.is_file()} == before


def test_an_empty_store(tmp_path):
    write_v1_store(tmp_path / "s", [])
    assert migrate_store(tmp_path / "s").groups == 0
    store = FeatureStore.open(tmp_path / "s")
    write_group(store, 0, done("a"), [random_batch("a", [3])])
    assert verify_store(tmp_path / "s").is_sound


class Killed(BaseException):
    """The process ends here."""


def test_a_migration_that_is_killed_at_any_step(path, monkeypatch):
    plain, whole, start = LocalFiles.write, stored_content(path), path.with_name("start")
    path.rename(start)
    steps = 0
    while True:
        shutil.copytree(start, path)
        count = 0

        def write(*args):
            nonlocal count
            count += 1
            if count > steps:  # noqa: B023 - called within this turn only
                raise Killed
            plain(*args)

        with monkeypatch.context() as patched:
            patched.setattr(LocalFiles, "write", write)
            try:
                migrate_store(path)
            except Killed:
                is_done = False
            else:
                is_done = True
        if is_done:
            break
        # It is still a sound store of schema 1.
        assert FeatureStore.open(path).spec.schema_version == 1
        assert verify_store(path).problems == ()
        assert stored_content(path) == whole
        migrate_store(path)
        assert (verify_store(path).problems, stored_content(path)) == ((), whole)
        shutil.rmtree(path)
        steps += 1
    assert steps == 6  # the array, two chunks with their records, the attributes


def test_damaged_groups_are_carried_over_to_be_repaired(path):
    (path / "commits" / "00000000.json").write_text("{")
    (path / "fine" / "c.3.0").unlink()
    assert migrate_store(path).schema_after == 2
    assert [(p.kind, p.group) for p in verify_store(path).problems] == [("damaged record", 0), ("missing chunk", 1)]
    assert repair_store(path).is_sound
    assert (verify_store(path).problems, verify_store(path).leftovers) == ((), ())


def test_refusals(path, tmp_path):
    with hold_lock(LocalFiles(path)), pytest.raises(UserError, match="is being written by process"):
        migrate_store(path)
    with pytest.raises(UserError, match="There is no store"):
        migrate_store(tmp_path / "nowhere")
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["tai_engine"]["schema_version"] = 3
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError, match="schema version 3"):
        migrate_store(path)


def test_at_an_address(path, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)
    address = f"memory://{tmp_path.name}/store"
    files = open_files(address)
    for file in path.rglob("*"):
        if file.is_file():
            files.write(file.relative_to(path).as_posix(), file.read_bytes())
    whole = stored_content(address)
    assert migrate_store(address).schema_after == 2
    assert stored_content(address) == whole
    assert verify_store(address).problems == ()
