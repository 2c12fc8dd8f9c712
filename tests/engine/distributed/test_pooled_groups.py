"""Groups made by a pool are those that are made here, whoever commits them."""

import functools
import pickle
from pathlib import Path

import pytest

from dict_source import png
from fake_encoders import FakeEncoder
from pool_recipes import InlinePool, open_fake_encoder, open_missing_model, store_files
from tai_engine.caching.images import cache_images, image_spec, update_store
from tai_engine.caching.report import CacheOptions
from tai_engine.decoding.feed import GroupTask
from tai_engine.distributed.encode_on_pool import EncoderDescription, EncodeRecipe, PooledGroups, PreparedOnce
from tai_engine.distributed.processes import ProcessPool
from tai_engine.distributed.work import Workplace
from tai_engine.errors import UserError
from tai_engine.sources import open_source
from tai_engine.sources.item_reading import ItemReader
from tai_engine.store import FeatureStore, StoredItem
from tai_engine.store.layout.commits import read_record
from tai_engine.store.places.store_files import open_files

OPTIONS = CacheOptions(group_items=4, slice_items=2, workers=2)


def recipe(tmp_path: Path, store: Path, pause: float = 0.0) -> EncodeRecipe:
    opened = functools.partial(open_fake_encoder, tmp_path, pause)
    return EncodeRecipe(opened, str(store), ItemReader(), options=OPTIONS)


def fill(pool, pictures: Path, store: Path, progress=None):
    spec = image_spec(pool.describe(), OPTIONS)
    return update_store(open_source(pictures), spec, store, PooledGroups(pool), options=OPTIONS, progress=progress)


@pytest.fixture
def undisturbed(tmp_path: Path, pictures: Path) -> dict[str, bytes]:
    """The files of the store that is made in this process alone."""
    store = tmp_path / "here"
    cache_images(open_source(pictures), FakeEncoder(clip=True), store, options=OPTIONS)
    return store_files(store)


def test_a_description_says_what_an_encoder_says(tmp_path: Path):
    there = EncoderDescription.of(open_fake_encoder(tmp_path, 0, "cuda:1"))
    here = EncoderDescription.of(FakeEncoder(clip=True))
    assert pickle.loads(pickle.dumps(there)) == there == here  # another device's name is no difference
    assert there.provenance["device"] == "cuda:1"
    assert image_spec(there, OPTIONS).dim == 4
    assert image_spec(there, OPTIONS).recipe == {"image_size": 8}
    assert EncoderDescription.of(FakeEncoder("other", clip=True)) != here
    assert EncoderDescription.of(FakeEncoder(clip=False)) != here


def test_the_store_is_the_same_to_the_byte_and_so_is_the_report(tmp_path: Path, pictures: Path, undisturbed):
    store, steps = tmp_path / "pooled", []
    report = fill(InlinePool(recipe(tmp_path, store)), pictures, store, steps.append)
    assert (report.done, report.failed, report.items, report.new) == (21, 1, 22, 22)
    assert report.reasons == {"unknown-format": 1}
    assert store_files(store) == undisturbed
    assert report.stage_seconds["encode"] > 0
    assert report.stage_seconds["decode"] > 0
    # A step for each of the six groups, beside those of the beginning and the end.
    assert [step.done + step.failed for step in steps[-7:]] == [4, 8, 12, 16, 20, 22, 22]


def test_going_on_makes_what_is_missing_alone(tmp_path: Path, pictures: Path):
    store = tmp_path / "pooled"
    fill(InlinePool(recipe(tmp_path, store)), pictures, store)
    for n in range(3):
        (pictures / f"new-{n}.png").write_bytes(png((n, n, n)))
    report = fill(InlinePool(recipe(tmp_path, store)), pictures, store)
    assert (report.done, report.skipped) == (3, 22)
    assert FeatureStore.open(store).counts() == {"done": 24, "failed": 1}


def test_a_group_that_is_committed_is_not_touched_again(tmp_path: Path, pictures: Path, undisturbed):
    """A worker may be lost after its result was committed; its task is then given again."""
    store = tmp_path / "pooled"
    pool = InlinePool(recipe(tmp_path, store))
    fill(pool, pictures, store)
    items = tuple(open_source(pictures))[:4]
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    again = list(pool.run([GroupTask(0, items)]))
    assert [encoded.record for encoded in again] == [read_record(open_files(store), FeatureStore.open(store).spec, 0)]
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before
    assert store_files(store) == undisturbed


def test_what_is_not_committed_is_prepared(tmp_path: Path):
    encoder = FakeEncoder(clip=True)
    spec = image_spec(EncoderDescription.of(encoder), OPTIONS)
    with FeatureStore.create(tmp_path / "store", spec).writing() as store:
        store.reserve(1)
        worker = PreparedOnce(FeatureStore.open(tmp_path / "store"))
        record = worker.prepare_group(0, [StoredItem("a", "failed", "missing: gone")], [])
        assert store.groups() == []
        store.commit_group(record)
    assert FeatureStore.open(tmp_path / "store").counts() == {"done": 0, "failed": 1}


def test_the_processors_of_a_machine_are_shared_among_its_workers(tmp_path: Path):
    worker = recipe(tmp_path, tmp_path / "store").start(Workplace("cuda:0", 2))
    assert worker._options.workers == 1  # of the two that were asked for
    assert list(worker.run([])) == []  # no store is needed for that


def test_two_processes_make_the_same_store_though_one_is_killed(tmp_path: Path, pictures: Path, undisturbed):
    store = tmp_path / "pooled"
    killed = []

    with ProcessPool(recipe(tmp_path, store, pause=0.05), ["cpu", "cpu"]) as pool:
        started = {seat.process.pid for seat in pool._seats}

        def kill_one(progress):
            if progress.done and not killed:
                seat = next(seat for seat in pool._seats if seat.held)
                killed.append(seat.process.pid)
                seat.process.kill()

        report = fill(pool, pictures, store, kill_one)
        now = {seat.process.pid for seat in pool._seats}
    assert len(killed) == 1
    # Another took its place, whether or not it was ready before the work was done.
    assert (len(started), started - now, len(now - started)) == (2, set(killed), 1)
    assert (report.done, report.failed) == (21, 1)
    assert store_files(store) == undisturbed


def test_a_mistake_in_a_process_is_told_in_its_own_words(tmp_path: Path, pictures: Path):
    store = tmp_path / "pooled"
    pool = ProcessPool(
        EncodeRecipe(open_missing_model, str(store), open_source(pictures).reader, options=OPTIONS), ["cpu"]
    )
    with pool, pytest.raises(UserError, match=r"^There is no model 'nothing'; take another\.$"):
        fill(pool, pictures, store)
    assert not store.exists()
