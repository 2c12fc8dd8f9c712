"""Looking after a store, as a shell sees it."""

import shutil
from pathlib import Path

import pytest

from feature_samples import done, random_batch, small_spec, write_group
from tai_engine.store import FeatureStore
from tai_engine.store.places.local_files import LocalFiles
from tai_engine.store.places.lock import hold_lock


@pytest.fixture
def store(tmp_path):
    """Two groups of six and two items."""
    made = FeatureStore.create(tmp_path / "store", small_spec())
    write_group(made, 0, done(*"abcdef"), [random_batch("abcdef", [3] * 6)])
    write_group(made, 1, done(*"gh"), [random_batch("gh", [3, 3], seed=1)])
    return tmp_path / "store"


def test_verify_before_and_after_a_repair(tai, picture_folder: Path, tiny_model: str, filled_store: Path, tmp_path):
    """Damage, verify, repair, cache again: the whole content is back."""
    store = Path(shutil.copytree(filled_store, tmp_path / "s.zarr"))
    sound = tai("verify", store)
    assert (sound.status, sound.stderr) == (0, "")
    assert "1 group: 5 items done, 3 failed, 0 deleted" in sound.stdout
    assert "The store is sound." in sound.stdout
    chunk = next(store.glob("fine/c.0.*"))
    data = bytearray(chunk.read_bytes())
    data[100] ^= 1
    chunk.write_bytes(data)
    found = tai("verify", store)
    assert found.status == 1
    assert "damaged chunk" in found.stdout
    assert f"1 problem; run `tai verify {store} --repair` to mend the store." in found.stdout
    assert tai("verify", store, "--quick").status == 0
    (report,) = tai("verify", store, "--json").json()
    assert (report["is_sound"], report["is_deep"]) == (False, True)
    assert report["problems"][0]["file"] == "fine/c.0.0"
    tagging = tai("tag", store, "--vocabulary", "coco80", "--out", tmp_path / "t.parquet")
    assert tagging.status == 2
    assert f"run `tai verify {store} --repair`, then run the same `tai cache` command again" in tagging.stderr
    mended = tai("verify", store, "--repair")
    assert mended.status == 0
    assert "taken out" in mended.stdout  # the table breaks longer texts
    assert "Run the same `tai cache` command again to redo the items of 1 group." in mended.stdout
    assert tai("verify", store).status == 0
    tai("cache", "images", picture_folder, store, "--model", tiny_model)
    (again,) = tai("verify", store, "--json").json()
    assert (again["is_sound"], again["done"], again["failed"]) == (True, 5, 3)


def test_leftovers_are_told_and_removed(tai, store: Path):
    (store / "commits" / ".1.tmp").write_text("x")
    outcome = tai("verify", store)
    assert outcome.status == 0
    assert "left over: commits/.1.tmp" in outcome.stdout
    assert "left 1 file, which do no harm; --repair removes them" in outcome.stdout
    outcome = tai("verify", store, "--repair", "--quick")
    assert "removed: commits/.1.tmp" in outcome.stdout
    assert "(vectors were not read)" in outcome.stdout
    assert (tai("verify", store, "--json").json()[0]["leftovers"]) == []


def test_many_problems_are_cut_short(tai, store: Path, monkeypatch):
    monkeypatch.setattr("tai_engine.cli.store._SHOWN", 2)
    for chunk in store.glob("fine/c.*"):
        chunk.unlink()
    outcome = tai("verify", store)
    assert outcome.stdout.count("missing chunk") == 2
    assert "2 more; --json lists all." in outcome.stdout
    assert "4 problems; run" in outcome.stdout


def test_a_store_that_cannot_be_mended(tai, store: Path):
    (store / "zarr.json").write_text("{")
    for arguments in ((), ("--repair",)):
        outcome = tai("verify", store, *arguments)
        assert outcome.status == 1
        assert "damaged description" in outcome.stdout
    assert "1 problem, 1 of which cannot be mended: copy" in outcome.stdout


def test_mistakes(tai, store: Path, tmp_path):
    for command in ("verify", "compact"):
        outcome = tai(command, tmp_path / "nowhere")
        assert (outcome.status, outcome.stdout) == (2, "")
        assert f"There is no store at {tmp_path / 'nowhere'}" in outcome.stderr
        assert outcome.stderr.count("\n") == 1
    with hold_lock(LocalFiles(store)):
        assert "It is being written by process" in tai("verify", store).stdout
        for command in (("verify", "--repair"), ("compact",)):
            outcome = tai(command[0], store, *command[1:])
            assert outcome.status == 2
            assert "is being written by process" in outcome.stderr


def test_compact(tai, store: Path):
    assert "There is nothing to give back: 8 items in 2 groups." in tai("compact", store).stdout
    filled = FeatureStore.open(store)
    with filled.writing():
        filled.delete([0, 1])
    before = filled.nbytes
    outcome = tai("compact", store)
    assert outcome.status == 0
    assert "2 deleted items gone, 6 items kept, in 1 group instead of 2." in outcome.stdout
    freed = before - FeatureStore.open(store).nbytes
    assert f"{freed} B given back" in outcome.stdout or f"{freed / 1000:.1f} KB given back" in outcome.stdout
    (report,) = tai("compact", store, "--json").json()
    assert (report["items"], report["dropped"], report["freed_bytes"]) == (6, 0, 0)
