"""Missing, foreign and damaged stores, and disks that fill up: one sentence each, and a rerun goes on."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import zarr

from feature_samples import done, random_batch, same, small_spec, write_group
from tai_engine.errors import UserError
from tai_engine.store import FeatureStore
from tai_engine.store.layout import arrays
from tai_engine.store.upkeep.repair import repair_store
from tai_engine.store.upkeep.verify import verify_store


@pytest.fixture(scope="module")
def sound_store(tmp_path_factory):
    """Two groups of six and three items."""
    store = FeatureStore.create(tmp_path_factory.mktemp("sound") / "store", small_spec())
    write_group(store, 0, done(*"abcdef"), [random_batch("abcdef", [3] * 6)])
    write_group(store, 1, done(*"ghi"), [random_batch("ghi", [3] * 3, seed=1)])
    return store.path


@pytest.fixture
def path(sound_store, tmp_path):
    """A copy to be damaged."""
    return Path(shutil.copytree(sound_store, tmp_path / "store"))


def read_all(path):
    store = FeatureStore.open(path)
    return list(store.iter_batches()), list(store.ledger())


def test_no_store(tmp_path):
    with pytest.raises(UserError, match=r"There is no store at .*nowhere; .*tai cache"):
        FeatureStore.open(tmp_path / "nowhere")


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="not a feature store"):
        FeatureStore.open(tmp_path)
    with pytest.raises(UserError, match="Something lies at"):
        FeatureStore.create(tmp_path, small_spec())
    with pytest.raises(UserError, match="not a feature store"):
        FeatureStore.open_or_create(tmp_path, small_spec())
    assert [p.name for p in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_file(tmp_path):
    (tmp_path / "tags.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match="not a feature store"):
        FeatureStore.open(tmp_path / "tags.parquet")
    with pytest.raises(UserError, match="Something lies at"):
        FeatureStore.create(tmp_path / "tags.parquet", small_spec())


def test_a_zarr_group_of_somebody_else(tmp_path):
    zarr.create_group(tmp_path / "z", zarr_format=3, attributes={"other": 1})
    with pytest.raises(UserError, match="schema_version"):
        FeatureStore.open(tmp_path / "z")


def change_attributes(path, change):
    metadata = json.loads((path / "zarr.json").read_text())
    change(metadata["attributes"]["tai_engine"])
    (path / "zarr.json").write_text(json.dumps(metadata))


def test_a_newer_schema(path):
    change_attributes(path, lambda a: a.update(schema_version=3))
    with pytest.raises(UserError, match=r"schema version 3, and this tai-engine reads versions up to 2; upgrade"):
        FeatureStore.open(path)


def test_a_folder_in_place_of_a_chunk_is_left_alone(path):
    chunk = path / "coarse" / "c.0.0"
    chunk.unlink()
    chunk.mkdir()
    (chunk / "mine.txt").write_text("mine")
    before = sorted(path.rglob("*"))
    for repairs in (False, True):
        with pytest.raises(
            UserError, match=r"c\.0\.0 cannot be read just now \(it is a folder\).* nothing was changed"
        ):
            (repair_store if repairs else verify_store)(path)
    assert sorted(path.rglob("*")) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.pop("dim"),
        lambda a: a.update(dim="many"),
        lambda a: a.update(kind="videos"),
        lambda a: a.update(chunk_items=5),
    ],
)
def test_attributes_that_make_no_sense(path, change):
    change_attributes(path, change)
    with pytest.raises(UserError, match=r"attributes in .* are damaged"):
        FeatureStore.open(path)


def test_unknown_attributes_are_ignored(path):
    change_attributes(path, lambda a: a.update(something="new"))
    assert len(FeatureStore.open(path)) == 9


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"zarr_format": 3, "node_type": "array"}'])
def test_a_group_description_that_is_cut_short(path, content):
    (path / "zarr.json").write_text(content)
    with pytest.raises(UserError, match=r"is damaged: .*zarr.json makes no sense"):
        FeatureStore.open(path)


def test_a_group_description_without_attributes(path):
    (path / "zarr.json").write_text("{}")
    with pytest.raises(UserError, match="schema_version"):
        FeatureStore.open(path)


@pytest.mark.parametrize("content", [None, "", "{", "{}", "null"])
@pytest.mark.parametrize("name", ["id", "fine"])
def test_an_array_description_that_is_missing_or_cut_short(path, name, content):
    if content is None:
        (path / name / "zarr.json").unlink()
    else:
        (path / name / "zarr.json").write_text(content)
    with pytest.raises(UserError, match=f"cut short: {name}/zarr.json"):
        FeatureStore.open(path)


def test_an_array_of_other_chunks_or_type(path):
    metadata = json.loads((path / "fine" / "zarr.json").read_text())
    for key, value in (
        ("data_type", "float32"),
        ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [4, 8]}}),
    ):
        (path / "fine" / "zarr.json").write_text(json.dumps({**metadata, key: value}))
        with pytest.raises(UserError, match=r"fine/zarr\.json is missing or damaged"):
            FeatureStore.open(path)


def test_an_array_that_is_too_short_for_its_groups(path):
    metadata = json.loads((path / "coarse" / "zarr.json").read_text())
    (path / "coarse" / "zarr.json").write_text(json.dumps({**metadata, "shape": [6, 8]}))
    store = FeatureStore.open(path)
    # Records count: an old length is what a writer may put back that slept while another one took the store over.
    assert (len(store.read_group(0)), len(store.read_group(1))) == (6, 3)
    assert [problem.kind for problem in verify_store(path).problems] == ["array too short"]


def test_no_folder_of_commits(path):
    for record in (path / "commits").iterdir():
        record.unlink()
    (path / "commits").rmdir()
    with pytest.raises(UserError, match="cut short"):
        FeatureStore.open(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"group": 1}', '{"group": 5, "items": 0, "failed": {}}'])
def test_a_damaged_record(path, content):
    (path / "commits" / "00000001.json").write_text(content)
    with pytest.raises(UserError, match=r"00000001.json is damaged .*run the same `tai cache` command again"):
        FeatureStore.open(path)


def test_other_files_among_the_records_are_passed_over(path):
    (path / "commits" / ".1234.tmp").write_text("{")
    (path / "commits" / "notes.txt").write_text("x")
    assert FeatureStore.open(path).groups() == [0, 1]


CHUNKS = ["id/c.0", "status/c.0", "coarse/c.1.0", "fine/c.0.0", "fine/c.2.0"]


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_missing_chunk_is_named(path, chunk):
    (path / chunk).unlink()
    with pytest.raises(UserError) as caught:
        read_all(path)
    assert f"Group 0 of the store {path} is damaged (the chunk {chunk} is missing)" in str(caught.value)
    assert len(FeatureStore.open(path).read_group(1)) == 3


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("damage", ["empty", "shorter", "longer", "bit flip"])
def test_a_damaged_chunk_is_named(path, chunk, damage):
    data = bytearray((path / chunk).read_bytes())
    if damage == "bit flip":
        data[len(data) // 2] ^= 4
    changed = {"empty": b"", "shorter": data[:-5], "longer": data + b"\0", "bit flip": data}[damage]
    (path / chunk).write_bytes(changed)
    with pytest.raises(UserError) as caught:
        read_all(path)
    assert f"the chunk {chunk} is damaged" in str(caught.value)
    assert "Group 0" in str(caught.value)
    assert f"run `tai verify {path} --repair`" in str(caught.value)


def test_a_chunk_with_the_right_checksum_and_the_wrong_size_is_named(path):
    google_crc32c = pytest.importorskip("google_crc32c")
    data = (path / "fine/c.1.0").read_bytes()[:-20]
    (path / "fine/c.1.0").write_bytes(data + google_crc32c.value(data).to_bytes(4, "little"))
    with pytest.raises(UserError, match=r"fine/c\.1\.0 is damaged"):
        read_all(path)


def test_counts_that_do_not_add_up(path):
    zarr.open_group(path, mode="r+")["count"][1] = 2
    with pytest.raises(UserError, match="counts add up to 17, its record says 18"):
        read_all(path)


def test_rows_that_are_no_features(path):
    zarr.open_group(path, mode="r+")["coarse"][7] = 0
    with pytest.raises(UserError, match=r"Group 1 .*coarse row 1 has length 0"):
        read_all(path)


def test_an_unknown_status(path):
    zarr.open_group(path, mode="r+")["status"][2] = 9
    with pytest.raises(UserError, match="slot 2 has the unknown status 9"):
        read_all(path)


def test_removing_the_record_mends_a_damaged_group(path):
    """What the message advises works."""
    (path / "fine/c.0.0").write_bytes(b"")
    (path / "commits" / "00000000.json").unlink()
    store = FeatureStore.open(path)
    assert store.groups() == [1]
    assert "a" not in store.known_ids()
    batch = random_batch("abc", [3] * 3, seed=5)  # fewer than before: nothing of the old ones may remain
    write_group(store, next(store.free_groups()), done(*"abc"), [batch])
    store = FeatureStore.open(path)
    assert same(store.read_group(0), batch)
    assert not (path / "fine/c.2.0").exists()
    assert len(store) == 6


def test_a_group_that_was_cut_off_does_not_exist(path):
    """Chunks without a record, as a killed writer leaves them, torn ones among them."""
    whole = read_all(path)
    store = FeatureStore.open(path)
    write_group(store, 2, done(*"jklmno"), [random_batch("jklmno", [3] * 6, seed=2)])
    (path / "commits" / "00000002.json").unlink()
    (path / "fine/c.7.0").write_bytes(b"torn")
    (path / "coarse/.abc.tmp").write_bytes(b"half")
    again = read_all(path)
    assert again[1] == whole[1]
    assert all(same(a, b) for a, b in zip(again[0], whole[0], strict=True))
    store = FeatureStore.open(path)
    assert next(store.free_groups()) == 2
    batch = random_batch("jklm", [1, 3, 2, 3], seed=3)
    write_group(store, 2, done(*"jklm"), [batch])
    assert same(FeatureStore.open(path).read_group(2), batch)
    assert not (path / "fine/c.8.0").exists()


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("array", ["id", "coarse", "fine"])
@pytest.mark.parametrize("what", ["c.", "zarr.json"])
def test_a_disk_that_is_full_while_a_group_is_written(path, monkeypatch, array, what):
    chunks_before = {p: p.read_bytes() for p in path.rglob("c.*")}
    whole = read_all(path)
    plain_replace = Path.replace

    def replace(self, target):
        if Path(target).parent.name == array and Path(target).name.startswith(what):
            full_disk()
        return plain_replace(self, target)

    store = FeatureStore.open(path)
    batch = random_batch("xyz", [3] * 3, seed=9)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace)
        with pytest.raises(UserError, match=r"Cannot write .*the disk is full"):
            write_group(store, 2, done(*"xyz"), [batch])
    assert {p: p.read_bytes() for p in path.rglob("c.*")} == chunks_before
    assert [*path.rglob("*.tmp"), *path.rglob("*.partial")] == []
    assert read_all(path)[1] == whole[1]
    # With space again the same process goes on, and so does a new one.
    write_group(store, 2, done(*"xyz"), [batch])
    assert same(FeatureStore.open(path).read_group(2), batch)


def test_a_disk_that_is_full_at_the_commit(path, monkeypatch):
    chunks_before = set(path.rglob("c.*"))
    store = FeatureStore.open(path)
    batch = random_batch("xyz", [3] * 3, seed=9)
    with monkeypatch.context() as patched:
        patched.setattr("tai_engine.store.feature_store.create_record", lambda *_: full_disk())
        with pytest.raises(UserError, match="the disk is full"):
            write_group(store, 2, done(*"xyz"), [batch])
    assert set(path.rglob("c.*")) == chunks_before
    assert FeatureStore.open(path).groups() == [0, 1]
    write_group(store, 2, done(*"xyz"), [batch])
    assert same(FeatureStore.open(path).read_group(2), batch)


def test_ctrl_c_while_a_group_is_written(path, monkeypatch):
    chunks_before = set(path.rglob("c.*"))
    store = FeatureStore.open(path)

    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(arrays.StoreArrays, "sync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_group(store, 2, done("x"), [random_batch("x", [3])])
    assert set(path.rglob("c.*")) == chunks_before
    assert FeatureStore.open(path).groups() == [0, 1]


def test_a_disk_that_is_full_while_a_store_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(UserError, match="the disk is full"):
        FeatureStore.create(tmp_path / "store", small_spec())
    assert list(tmp_path.iterdir()) == []


def test_a_store_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="Cannot write"):
        FeatureStore.create(tmp_path / "file" / "store", small_spec())


@pytest.mark.parametrize("name", ["id/c.0", "fine/c.0.0", "coarse/c.0.0", "status/c.0"])
def test_a_pipe_in_place_of_a_chunk_is_damage_and_stops_nothing(tmp_path, name):
    store = FeatureStore.create(tmp_path / "s", small_spec())
    write_group(store, 0, done(*"abc"), [random_batch("abc", [3, 1, 2])])
    (tmp_path / "s" / name).unlink()
    os.mkfifo(tmp_path / "s" / name)
    with pytest.raises(UserError, match=rf"Group 0 of the store .* is damaged \(the chunk {name} is"):  # noqa: PT012 - whichever reads it first
        found = FeatureStore.open(tmp_path / "s")
        list(found.ledger())
        list(found.iter_batches())
    assert not verify_store(tmp_path / "s").is_sound


@pytest.mark.parametrize("name", ["zarr.json", "fine/zarr.json", "commits/00000000.json"])
def test_a_pipe_in_place_of_a_description_stops_nothing(tmp_path, name):
    store = FeatureStore.create(tmp_path / "s", small_spec())
    write_group(store, 0, done(*"abc"), [random_batch("abc", [3, 1, 2])])
    (tmp_path / "s" / name).unlink()
    os.mkfifo(tmp_path / "s" / name)
    with pytest.raises(UserError, match=r"no regular file|it has no zarr\.json"):
        list(FeatureStore.open(tmp_path / "s").ledger())
