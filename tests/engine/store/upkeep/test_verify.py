"""Everything that verify must find, and that repair and caching again make whole."""

import errno
import json
import os
import shutil
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import torch
import zarr

from feature_samples import done, random_batch, same, small_spec, stored_content, write_group
from tai_engine.errors import UserError
from tai_engine.store import FeatureStore, LabelSpec, StoredItem
from tai_engine.store.layout.array_layout import array_description
from tai_engine.store.layout.commits import HIDDEN, write_hidden
from tai_engine.store.places import lease
from tai_engine.store.places.local_files import LocalFiles
from tai_engine.store.places.lock import hold_lock
from tai_engine.store.places.store_files import open_files
from tai_engine.store.upkeep.repair import repair_store
from tai_engine.store.upkeep.verify import verify_store

ITEMS = {
    name: StoredItem(name, size=number, content_hash=bytes([number]) * 16)
    for number, name in enumerate("abcdefghijklm", 1)
} | {"h": StoredItem("h", "failed", "empty", size=0)}
GROUPS = ("abcdef", "ghijkl", "m")
SPECS = {
    "plain": {"has_content_hash": True},
    "both": {"has_coarse_clip": True, "has_content_hash": True, "row_dtype": "float32"},
    "int8": {"has_content_hash": True, "row_dtype": "int8"},
    "coarse": {"rows_per_item_max": 0, "has_content_hash": True},
}


def features_of(name, spec):
    """Always the same features for an item, as an encoder gives them."""
    rows = min(3, spec.rows_per_item_max)
    dtype = torch.float32 if spec.row_dtype == "float32" else torch.float16
    return random_batch([name], [rows], seed=ord(name), clip=spec.has_coarse_clip, dtype=dtype)


def cache(path, spec):
    """What `tai cache` does with the same inputs: items that are not there are written, in their order."""
    store = FeatureStore.open_or_create(path, spec)
    with store.writing():
        known = store.known_ids()
        missing = [name for name in ITEMS if name not in known]
        for names in (missing[n : n + spec.group_items] for n in range(0, len(missing), spec.group_items)):
            good = [features_of(name, spec) for name in names if ITEMS[name].status == "done"]
            store.write_group(next(store.free_groups()), [ITEMS[name] for name in names], good)
    return store


@pytest.fixture(scope="module")
def sound_stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    for name, changes in SPECS.items():
        cache(folder / name, small_spec(**changes))
    return folder


@pytest.fixture
def whole(request, sound_stores):
    """The content of the store that was not damaged."""
    return stored_content(sound_stores / request.node.callspec.params.get("spec", "plain"))


@pytest.fixture(params=["plain"])
def spec(request):
    return small_spec(**SPECS[request.param])


@pytest.fixture
def path(request, sound_stores, tmp_path):
    """A copy to be damaged."""
    kind = request.node.callspec.params["spec"] if hasattr(request.node, "callspec") else "plain"
    return Path(shutil.copytree(sound_stores / kind, tmp_path / "store"))


def kinds(report):
    return [(problem.kind, problem.group, problem.file) for problem in report.problems]


def assert_mends(path, spec, whole):
    """Repair, then caching again gives the whole content; both verifications are clean then."""
    repaired = repair_store(path)
    assert repaired.is_sound
    after = verify_store(path)
    assert (after.problems, after.leftovers) == ((), ())
    cache(path, spec)
    assert stored_content(path) == whole
    return repaired


@pytest.mark.parametrize("spec", list(SPECS), indirect=True)
@pytest.mark.parametrize("deep", [True, False])
def test_a_sound_store(path, spec, deep):
    steps = []
    report = verify_store(path, deep=deep, progress=lambda *step: steps.append(step))
    assert (report.problems, report.leftovers, report.writer, report.is_sound) == ((), (), None, True)
    assert (report.groups, report.done, report.failed, report.deleted) == (3, 12, 1, 0)
    assert report.bytes == sum(p.stat().st_size for p in path.rglob("c.*"))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    assert repair_store(path, deep=deep).problems == ()
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("kind", ["images", "sentences"])
def test_an_empty_store(tmp_path, kind):
    FeatureStore.create(tmp_path / "s", small_spec(kind=kind))
    assert verify_store(tmp_path / "s").as_dict() == {
        "is_sound": True, "path": str(tmp_path / "s"), "is_deep": True, "groups": 0, "done": 0, "failed": 0,
        "deleted": 0, "bytes": 0, "problems": (), "leftovers": (), "removed_leftovers": False, "writer": None,
    }  # fmt: skip


CHUNKS = ["id/c.0", "size/c.0", "coarse/c.1.0", "fine/c.2.0"]


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_truncated_chunk(path, spec, whole, chunk):
    data = (path / chunk).read_bytes()
    (path / chunk).write_bytes(data[:-3])
    report = verify_store(path, deep=False)
    # The length of a chunk of ids tells nothing: its checksum does, and the sum of all lengths.
    kind, file = ("wrong counts", "commits/00000000.json") if chunk == "id/c.0" else ("truncated chunk", chunk)
    assert kinds(report)[0] == (kind, 0, file)
    assert not report.is_sound
    if chunk != "id/c.0":
        assert report.problems[0].detail == f"{len(data) - 3} bytes, not {len(data)}"
    assert_mends(path, spec, whole)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_flipped_bit(path, spec, whole, chunk):
    data = bytearray((path / chunk).read_bytes())
    data[len(data) // 2] ^= 16
    (path / chunk).write_bytes(data)
    assert kinds(verify_store(path)) == [("damaged chunk", 0, chunk)]
    # Vectors are not read by a quick look.
    assert verify_store(path, deep=False).is_sound == (chunk in ("coarse/c.1.0", "fine/c.2.0"))
    assert_mends(path, spec, whole)


@pytest.mark.parametrize("spec", ["int8"], indirect=True)
def test_every_bit_of_a_group_counts(path, spec):
    """One flip in each chunk file, at a place of its own."""
    random = np.random.default_rng(0)
    for chunk in sorted(path.rglob("c.*")):
        data = chunk.read_bytes()
        changed = bytearray(data)
        changed[random.integers(len(data))] ^= 1 << int(random.integers(8))
        chunk.write_bytes(changed)
        report = verify_store(path)
        assert [problem.file for problem in report.problems] == [str(chunk.relative_to(path))]
        chunk.write_bytes(data)
    assert verify_store(path).is_sound


@pytest.mark.parametrize("chunk", ["id/c.0", "content_hash/c.0.0", "fine/c.1.0"])
def test_a_missing_chunk(path, spec, whole, chunk):
    (path / chunk).unlink()
    assert kinds(verify_store(path, deep=False)) == [("missing chunk", 0, chunk)]
    report = assert_mends(path, spec, whole)
    assert [problem.mended for problem in report.problems] == ["taken out, to be cached again"]
    assert json.loads((path / "damaged" / "00000000.json").read_text())["items"] == 6


def test_several_problems_of_several_groups(path, spec, whole):
    (path / "coarse/c.0.0").unlink()
    (path / "fine/c.1.0").write_bytes(b"")
    (path / "coarse/c.3.0").write_bytes(b"x" * 36)
    assert kinds(verify_store(path)) == [
        ("missing chunk", 0, "coarse/c.0.0"),
        ("truncated chunk", 0, "fine/c.1.0"),
        ("damaged chunk", 1, "coarse/c.3.0"),
    ]
    assert_mends(path, spec, whole)
    assert sorted(p.name for p in (path / "damaged").iterdir()) == ["00000000.json", "00000001.json", "zarr.json"]
    # A group that is damaged again does not overwrite what was set aside.
    (path / "coarse/c.0.0").unlink()
    repair_store(path)
    assert "2.00000000.json" in {p.name for p in (path / "damaged").iterdir()}


BAD_RECORDS = {
    "empty": lambda record: None,
    "rows": lambda record: record | {"rows": 17},
    "items": lambda record: record | {"items": 5, "done": 5},
    "too many items": lambda record: record | {"items": 70, "done": 70},
    "first row": lambda record: record | {"first_row": 18},
    "bytes": lambda record: record | {"bytes": record["bytes"] - 1},
    "done": lambda record: record | {"done": 5, "failed": {"1": "x"}},
    "failed": lambda record: record | {"done": 5, "failed": {"9": "x"}},
    "group": lambda record: record | {"group": 1},
    "deleted": lambda record: record | {"deleted": [3, 3]},
}


@pytest.mark.parametrize("change", list(BAD_RECORDS))
def test_a_damaged_record(path, spec, whole, change):
    record = path / "commits" / "00000000.json"
    changed = BAD_RECORDS[change](json.loads(record.read_text()))
    record.write_text("" if changed is None else json.dumps(changed))
    report = verify_store(path, deep=False)
    assert {problem.group for problem in report.problems} == {0}
    assert report.problems[0].file == "commits/00000000.json"
    assert report.problems[0].kind in ("damaged record", "wrong counts")
    assert_mends(path, spec, whole)


def with_checksum(data):
    return bytes(data) + google_crc32c.value(bytes(data)).to_bytes(4, "little")


def rewrite(path, dtype, index, value):
    """Change one number of a chunk and make its checksum fit."""
    values = np.frombuffer(path.read_bytes()[:-4], dtype=dtype).copy()
    values[index] = value
    path.write_bytes(with_checksum(values.tobytes()))


@pytest.mark.parametrize(
    ("chunk", "dtype", "index", "value", "detail"),
    [
        ("count/c.0", "<i4", 0, 2, "its counts add up to 17, its record says 18"),
        ("count/c.0", "<i4", slice(0, 2), [-1, 7], "an item has less than 0 or more than 3 fine rows"),
        ("status/c.0", "u1", 0, 2, "5 items are done, its record says 6"),
        ("status/c.0", "u1", 0, 9, "5 items are done, its record says 6"),
        ("status/c.1", "u1", slice(0, 2), [2, 1], "1 items failed, its record names 1 others"),
        ("count/c.1", "<i4", slice(0, 2), [2, 1], "an item that failed has fine rows"),
    ],
)
def test_counts_that_do_not_add_up(path, spec, whole, chunk, dtype, index, value, detail):
    rewrite(path / chunk, dtype, index, value)
    problems = verify_store(path, deep=False).problems
    assert detail in [problem.detail for problem in problems]
    assert {problem.kind for problem in problems} == {"wrong counts"}
    assert_mends(path, spec, whole)


@pytest.mark.parametrize(
    ("spec", "chunk", "dtype", "index", "value", "detail"),
    [
        ("plain", "coarse/c.0.0", "<f2", slice(8, 16), 0, "row 1 of the chunk has length 0, not 1"),
        ("plain", "fine/c.1.0", "<f2", 17, np.nan, "row 2 of the chunk has length nan, not 1"),
        ("plain", "fine/c.1.0", "<f2", 17, np.inf, "row 2 of the chunk has length inf, not 1"),
        ("plain", "coarse/c.3.0", "<f2", 8, 1, "row 1 of the chunk has length 1, not 0"),  # of a failed item
        ("both", "coarse_clip/c.6.0", "<f4", slice(0, 8), 0.5, "row 0 of the chunk has length 1.41421, not 1"),
        ("int8", "fine_scale/c.2", "<f4", 3, 0.5, None),
        ("int8", "fine/c.0.0", "i1", slice(0, 8), 0, "row 0 of the chunk has length 0, not 1"),
    ],
    indirect=["spec"],
)
def test_vectors_of_another_length(path, spec, whole, chunk, dtype, index, value, detail):
    rewrite(path / chunk, dtype, index, value)
    (problem,) = verify_store(path).problems
    assert problem.kind == "wrong length"
    assert problem.file == chunk.replace("fine_scale/c.2", "fine/c.2.0")
    assert detail in (None, problem.detail)
    assert verify_store(path, deep=False).is_sound
    assert_mends(path, spec, whole)


def test_rounding_is_no_damage(path, spec):
    """A row of which every number is off by half a step of fp16."""
    rewrite(path / "coarse/c.0.0", "<f2", slice(0, 8), np.float16(8**-0.5 * (1 + 2**-11)))
    assert verify_store(path).is_sound


def test_ids_without_letters(path, spec, whole):
    write_group(FeatureStore.open(path), 3, [StoredItem("")], [random_batch([""], [3])])
    (problem,) = verify_store(path, deep=False).problems
    assert (problem.kind, problem.group, problem.file) == ("invalid id", 3, "id/c.3")
    assert_mends(path, spec, whole)


def test_duplicate_ids(path, spec):
    """Of each the last one counts."""
    b, x = random_batch("b", [3], seed=1), random_batch("x", [3], seed=2)
    write_group(FeatureStore.open(path), 3, done(*"xbya"), [random_batch("x", [3]), b, random_batch("ya", [3, 3])])
    write_group(FeatureStore.open(path), 4, done("x"), [x])
    report = verify_store(path, deep=False)
    assert kinds(report) == [
        ("duplicate ids", 0, "commits/00000000.json"),
        ("duplicate ids", 3, "commits/00000003.json"),
    ]
    assert report.problems[0].detail == "ids that come again further back: 2, the last is 'b'"
    assert "slots" not in report.as_dict()["problems"][0]
    repaired = repair_store(path)
    assert [problem.mended for problem in repaired.problems] == ["all but the last deleted"] * 2
    assert (repaired.done, repaired.failed, repaired.deleted) == (14, 1, 3)
    assert verify_store(path).problems == ()
    store = FeatureStore.open(path)
    assert store.read_group(0).ids == tuple("cdef")
    assert same(store.read_group(3)[:1], b)
    assert same(store.read_group(4), x)
    assert sorted(item.id for item in store.ledger()) == [*"abcdefghijklmxy"]


def test_the_double_of_an_item_in_a_damaged_group_is_kept(path, spec):
    write_group(FeatureStore.open(path), 3, done("b"), [random_batch("b", [3])])
    (path / "coarse/c.9.0").unlink()
    assert kinds(verify_store(path)) == [("missing chunk", 3, "coarse/c.9.0")]
    repair_store(path)
    assert "b" in FeatureStore.open(path).known_ids()


def test_deleted_items_are_no_doubles(path, spec):
    store = FeatureStore.open(path)
    with store.writing():
        store.delete([1])
        store.write_group(3, done("b"), [random_batch("b", [3])])
    report = verify_store(path)
    assert (report.problems, report.done, report.deleted) == ((), 12, 1)


def test_texts_and_labels_against_the_digest(tmp_path):
    path = tmp_path / "store"
    spec = small_spec(kind="sentences", has_text=True, labels=LabelSpec(("x", "y"), "v", "f"))
    items = [StoredItem(name, text=f"a {name}", labels=(0,)) for name in "abc"]
    write_group(FeatureStore.create(path, spec), 0, items, [random_batch("abc", [1, 2, 3])])
    assert verify_store(path).is_sound
    rewrite(path / "labels" / "c.0.0", "u1", 1, 2)
    (problem,) = verify_store(path, deep=False).problems
    assert (problem.kind, problem.file) == ("wrong digest", "commits/00000000.json")
    rewrite(path / "labels" / "c.0.0", "u1", 1, 1)
    store = FeatureStore.open(path)
    with store.writing():
        store.delete([2])
    assert verify_store(path).is_sound


def leave_leftovers(path):
    """What a killed writer leaves: a torn group without a record, and temporary files."""
    store = FeatureStore.open(path)
    with store.writing():
        store.prepare_group(3, done(*"xyz"), [random_batch("xyz", [3] * 3)])
    (path / "fine/c.10.0").write_bytes(b"torn")
    shutil.copy(path / "fine/c.0.0", path / "fine/c.8.0")  # beyond the one chunk of group 2
    for name in ("coarse/c.1.abc.partial", "commits/.abc.tmp", ".abc.tmp", "id/.abc.tmp"):
        (path / name).write_bytes(b"half")
    (path / "commits" / "notes.txt").write_text("of somebody")
    (path / ".lock").write_text("of a dead process")


def test_leftovers_of_killed_writers(path, spec):
    before = {p for p in path.rglob("*") if p.is_file()}
    leave_leftovers(path)
    report = verify_store(path)
    found = set(report.leftovers)
    extra = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file() and p not in before}
    assert found == extra - {"commits/notes.txt", ".lock"}
    assert (report.problems, report.is_sound, report.removed_leftovers) == ((), True, False)
    repaired = repair_store(path)
    assert (set(repaired.leftovers), repaired.removed_leftovers) == (found, True)
    assert {p for p in path.rglob("*") if p.is_file()} == before | {path / "commits" / "notes.txt"}
    assert verify_store(path).leftovers == ()


def test_what_a_writer_is_about_is_no_leftover(path, spec):
    store = FeatureStore.open(path)
    with store.writing():
        store.prepare_group(3, done("x"), [random_batch("x", [3])])
        report = verify_store(path)
        assert report.leftovers == ()
        assert f"process {os.getpid()} on" in report.writer
        with pytest.raises(UserError, match="is being written by"):
            repair_store(path)


@pytest.mark.parametrize(("array", "content_"), [("id", "{"), ("fine", None), ("coarse", "{}"), ("content_hash", "")])
def test_a_damaged_description_of_an_array(path, spec, whole, array, content_):
    if content_ is None:
        (path / array / "zarr.json").unlink()
    else:
        (path / array / "zarr.json").write_text(content_)
    assert kinds(verify_store(path)) == [("damaged description", None, f"{array}/zarr.json")]
    report = assert_mends(path, spec, whole)
    assert [problem.mended for problem in report.problems] == ["written anew"]
    assert not (path / "damaged").exists()  # no group was touched


def test_an_array_that_is_too_short(path, spec, whole):
    (path / "coarse" / "zarr.json").write_bytes(array_description(spec, "coarse", 7))
    report = verify_store(path)
    assert kinds(report) == [("array too short", None, "coarse/zarr.json")]
    assert report.problems[0].detail == "13 entries were written"
    report = assert_mends(path, spec, whole)
    assert [problem.mended for problem in report.problems] == ["lengthened"]
    assert not (path / "damaged").exists()


def test_records_without_their_zarr_group(path, spec, whole):
    (path / "commits" / "zarr.json").unlink()
    assert kinds(verify_store(path)) == [("damaged description", None, "commits/zarr.json")]
    assert_mends(path, spec, whole)


def test_all_records_lost_is_not_made_worse(path, spec):
    shutil.rmtree(path / "commits")
    chunks = set(path.rglob("c.*"))
    report = repair_store(path)
    assert kinds(report) == [("damaged description", None, "commits/zarr.json")]
    assert not report.is_sound
    assert set(path.rglob("c.*")) == chunks


@pytest.mark.parametrize(
    "content_",
    ["", "{", '{"zarr_format": 3, "node_type": "group", "attributes": {"tai_engine": {"schema_version": 2}}}'],
)
def test_a_damaged_description_of_the_store_cannot_be_mended(path, spec, content_):
    (path / "zarr.json").write_text(content_)
    for report in (verify_store(path), repair_store(path)):
        assert kinds(report) == [("damaged description", None, "zarr.json")]
        assert not report.is_sound


def test_what_is_no_store(tmp_path, path):
    with pytest.raises(UserError, match="There is no store"):
        verify_store(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.jpg").touch()
    for look in (verify_store, repair_store):
        with pytest.raises(UserError, match="not a feature store"):
            look(tmp_path / "folder")
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["tai_engine"]["schema_version"] = 99
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError, match="schema version 99"):
        verify_store(path)


def test_hidden_groups_do_not_exist(path, spec):
    """As a compaction leaves it that was cut off."""
    files = LocalFiles(path)
    whole = stored_content(path)
    write_hidden(files, range(3, 5))
    shutil.copy(path / "commits/00000000.json", path / "commits/00000003.json")
    report = verify_store(path)
    assert (report.problems, report.groups) == ((), 3)
    assert set(report.leftovers) == {HIDDEN, "commits/00000003.json"}
    assert repair_store(path).leftovers == (HIDDEN, "commits/00000003.json")
    assert verify_store(path).leftovers == ()
    assert stored_content(path) == whole


def test_a_damaged_list_of_hidden_groups(path, spec, whole):
    (path / HIDDEN).write_text("{")
    assert kinds(verify_store(path)) == [("damaged description", None, HIDDEN)]
    with pytest.raises(UserError, match=r"hidden\.json is damaged .*tai verify .* --repair"):
        FeatureStore.open(path)
    report = assert_mends(path, spec, whole)
    assert report.problems[0].mended == "moved to damaged"


@pytest.mark.parametrize("damage", ["chunk", "record", "leftovers"])
def test_stores_at_an_address(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)
    path, spec = f"memory://{tmp_path.name}/store", small_spec(**SPECS["plain"])
    cache(path, spec)
    whole, files = stored_content(path), open_files(path)
    assert verify_store(path).as_dict()["done"] == 12
    if damage == "chunk":
        files.write("fine/c.1.0", files.read("fine/c.1.0")[:-1] + b"\xff")
    elif damage == "record":
        files.write("commits/00000001.json", "{")
    else:
        files.write("fine/c.55.0", b"torn")
    report = verify_store(path)
    expected = {"chunk": "damaged chunk", "record": "damaged record", "leftovers": None}[damage]
    assert [problem.kind for problem in report.problems] == ([expected] if expected else [])
    assert report.leftovers == (() if expected else ("fine/c.55.0",))
    repair_store(path)
    assert (verify_store(path).problems, verify_store(path).leftovers) == ((), ())
    cache(path, spec)
    assert stored_content(path) == whole


@pytest.mark.slow
def test_a_repair_that_is_cut_off_is_run_again(path, spec, monkeypatch):
    """Killed before each of its steps that change something."""
    write_group(FeatureStore.open(path), 4, done("m"), [random_batch("m", [3])])
    (path / "fine/c.1.0").write_bytes(b"")
    (path / "id/zarr.json").unlink()
    (path / "fine/c.10.0").write_bytes(b"of a killed writer")
    plain_write, plain_remove = LocalFiles.write, LocalFiles.remove
    whole, steps = shutil.copytree(path, path.with_name("whole")), 0

    class Killed(BaseException):
        pass

    def until(limit):
        count = 0

        def counted(plain):
            def call(*args):
                nonlocal count
                count += 1
                if count > limit:
                    raise Killed
                return plain(*args)

            return call

        monkeypatch.setattr(LocalFiles, "write", counted(plain_write))
        monkeypatch.setattr(LocalFiles, "remove", counted(plain_remove))

    while True:
        shutil.rmtree(path)
        shutil.copytree(whole, path)
        until(steps)
        try:
            repair_store(path)
        except Killed:
            until(10**6)
            repair_store(path)
            report = verify_store(path)
            assert (report.problems, report.leftovers, report.groups) == ((), (), 3)
            steps += 1
        else:
            break
    assert steps > 15


def test_disks_that_cannot_be_read_or_written(path, spec, monkeypatch):
    def fail(*_):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched:
        patched.setattr(LocalFiles, "names", fail)
        with pytest.raises(UserError, match="cannot be read"):
            verify_store(path)
    (path / "fine/c.1.0").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(LocalFiles, "remove", fail)
        with pytest.raises(UserError, match="permission is denied"):
            repair_store(path)
    with hold_lock(LocalFiles(path)), pytest.raises(UserError, match="is being written"):
        repair_store(path)


def test_plain_zarr_readers_do_not_stumble_over_what_was_set_aside(path, spec):
    (path / "fine/c.1.0").unlink()
    repair_store(path)
    group = zarr.open_group(path, mode="r")
    assert sorted(group.group_keys()) == ["commits", "damaged"]
