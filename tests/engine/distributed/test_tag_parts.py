"""Tags made by pools: as files of a folder, and as parts of one file."""

import functools
import json
import os
import shutil
from pathlib import Path

import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from fake_encoders import FakeEncoder
from pool_recipes import InlinePool, fake_prompts
from tai_engine.caching.images import cache_images
from tai_engine.caching.report import CacheOptions
from tai_engine.distributed.processes import ProcessPool
from tai_engine.distributed.tag_on_pool import JOB, MANIFEST, run_on_pool, tag_to_folder
from tai_engine.errors import UserError
from tai_engine.sources import open_source
from tai_engine.store import FeatureStore
from tai_engine.tagging.batch_loop import tag_store
from tai_engine.tagging.scoring import default_scoring
from tai_engine.tagging.tag_selection import Selection

NAMES = [f"{group:08}.parquet" for group in range(6)]


@pytest.fixture
def store(tmp_path: Path, pictures: Path) -> FeatureStore:
    options = CacheOptions(group_items=4, slice_items=2, workers=1)
    cache_images(open_source(pictures), FakeEncoder(), tmp_path / "store", options=options)
    return FeatureStore.open(tmp_path / "store")


class BrokenOffError(Exception):
    pass


class WeakPool(InlinePool):
    """Gives up after two groups."""

    def run(self, tasks):
        results = super().run(tasks)
        yield next(results)
        yield next(results)
        raise BrokenOffError


def rows(table):
    return sorted((row["id"], row["tag"], row["score"]) for row in table.to_pylist())


def test_the_files_of_the_folder_hold_the_tags_that_one_file_has(tmp_path: Path, store: FeatureStore):
    steps = []
    report = tag_to_folder(
        store, fake_prompts(), tmp_path / "tags", InlinePool, progress=lambda *step: steps.append(step)
    )
    tag_store(store, fake_prompts(), tmp_path / "tags.parquet")
    one = pq.read_table(tmp_path / "tags.parquet")
    assert rows(pyarrow.dataset.dataset(tmp_path / "tags").to_table()) == rows(one)
    assert (report.items, report.tags, report.items_without_features, report.resumed_items) == (21, 63, 1, 0)
    assert steps == [(4, 21), (8, 21), (11, 21), (15, 21), (19, 21), (21, 21)]  # the ninth picture is broken
    manifest = json.loads((tmp_path / "tags" / MANIFEST).read_text())
    assert [part["file"] for part in manifest["parts"]] == NAMES
    assert [part["items"] for part in manifest["parts"]] == [4, 4, 3, 4, 4, 2]
    assert (manifest["items"], manifest["tags"]) == (21, 63)
    assert manifest["provenance"]["space_key"] == "space:fake"
    assert manifest["provenance"]["complete"] == "true"


def test_what_is_selected_is_written(tmp_path: Path, store: FeatureStore):
    report = tag_to_folder(store, fake_prompts(), tmp_path / "tags", InlinePool, selection=Selection(top_k=1))
    assert (report.items, report.tags) == (21, 21)


def test_a_run_that_was_broken_off_is_gone_on_with(tmp_path: Path, store: FeatureStore):
    out = tmp_path / "tags"
    with pytest.raises(BrokenOffError):
        tag_to_folder(store, fake_prompts(), out, WeakPool)
    assert sorted(path.name for path in out.iterdir()) == [*NAMES[:2], JOB]
    before = (out / NAMES[0]).stat().st_mtime_ns
    report = tag_to_folder(store, fake_prompts(), out, InlinePool)
    assert (report.items, report.tags, report.resumed_items) == (21, 63, 8)
    assert (out / NAMES[0]).stat().st_mtime_ns == before
    assert sorted(path.name for path in out.iterdir()) == [*NAMES, JOB, MANIFEST]
    again = tag_to_folder(store, fake_prompts(), out, WeakPool)  # nothing is left to do
    assert (again.items, again.tags, again.resumed_items) == (21, 63, 21)


def test_an_unfinished_run_with_other_options_makes_room(tmp_path: Path, store: FeatureStore):
    out = tmp_path / "tags"
    with pytest.raises(BrokenOffError):
        tag_to_folder(store, fake_prompts(), out, WeakPool, selection=Selection(top_k=1))
    report = tag_to_folder(store, fake_prompts(), out, InlinePool)
    assert (report.items, report.tags, report.resumed_items) == (21, 63, 0)


def test_finished_tags_and_strange_folders_are_left_alone(tmp_path: Path, store: FeatureStore):
    out = tmp_path / "tags"
    tag_to_folder(store, fake_prompts(), out, InlinePool)
    with pytest.raises(UserError, match="holds tags of another run: choose another one with --out"):
        tag_to_folder(store, fake_prompts(), out, InlinePool, selection=Selection(top_k=1))
    assert pq.read_table(out / NAMES[0]).num_rows == 12
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("dear")
    with pytest.raises(UserError, match="holds something else"):
        tag_to_folder(store, fake_prompts(), tmp_path / "letters", InlinePool)


def test_the_second_of_two_runs_is_told_who_writes(tmp_path: Path, store: FeatureStore):
    out = tmp_path / "tags"

    class Rival(InlinePool):
        def run(self, tasks):
            with pytest.raises(UserError, match=f"tags' are being written by process {os.getpid()} on "):
                tag_to_folder(store, fake_prompts(), out, InlinePool, selection=Selection(top_k=1))
            return super().run(tasks)

    report = tag_to_folder(store, fake_prompts(), out, Rival)
    assert (report.items, report.tags) == (21, 63)
    assert sorted(path.name for path in out.iterdir()) == [*NAMES, JOB, MANIFEST]


def test_names_of_others_stay_when_an_unfinished_run_makes_room(tmp_path: Path, store: FeatureStore):
    out = tmp_path / "tags"
    with pytest.raises(BrokenOffError):
        tag_to_folder(store, fake_prompts(), out, WeakPool, selection=Selection(top_k=1))
    (out / "mine.parquet").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"holds something else \('mine\.parquet'\)"):
        tag_to_folder(store, fake_prompts(), out, InlinePool)
    assert (out / "mine.parquet").read_bytes() == b"mine"


def test_a_part_of_another_job_is_not_taken_over(tmp_path: Path, store: FeatureStore):
    out, other = tmp_path / "tags", tmp_path / "other"
    tag_to_folder(store, fake_prompts(), other, InlinePool, selection=Selection(top_k=1))
    with pytest.raises(BrokenOffError):
        tag_to_folder(store, fake_prompts(), out, WeakPool)
    shutil.copy(other / NAMES[1], out / NAMES[1])
    with pytest.raises(UserError, match=rf"{NAMES[1]}' cannot be used \(it is of another run\)"):
        tag_to_folder(store, fake_prompts(), out, InlinePool)


def test_a_damaged_part_is_named(tmp_path: Path, store: FeatureStore):
    out = tmp_path / "tags"
    with pytest.raises(BrokenOffError):
        tag_to_folder(store, fake_prompts(), out, WeakPool)
    (out / NAMES[1]).write_bytes(b"PAR1 nothing")
    with pytest.raises(UserError, match=f"{NAMES[1]}' cannot be used .*: remove it and run the same"):
        tag_to_folder(store, fake_prompts(), out, InlinePool)


def test_prompts_of_another_space_are_refused(tmp_path: Path, store: FeatureStore):
    with pytest.raises(UserError, match="space:other"):
        tag_to_folder(store, fake_prompts("space:other"), tmp_path / "tags", InlinePool)
    assert not (tmp_path / "tags").exists()


def test_processes_make_the_parts_of_one_file(tmp_path: Path, store: FeatureStore):
    """Two processes write what one would have written."""
    prompts, selection = fake_prompts(), Selection(top_k=2)
    scoring = default_scoring(prompts)
    make_pool = functools.partial(ProcessPool, devices=["cpu", "cpu"])
    run_parts = functools.partial(run_on_pool, make_pool)
    pooled = tag_store(store, prompts, tmp_path / "pooled.parquet", scoring, selection, run_parts=run_parts)
    single = tag_store(store, prompts, tmp_path / "single.parquet", scoring, selection)
    assert (pooled.items, pooled.tags) == (single.items, single.tags) == (21, 42)
    assert pq.read_table(tmp_path / "pooled.parquet").equals(pq.read_table(tmp_path / "single.parquet"))
