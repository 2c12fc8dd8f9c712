"""One Ray of two workers for all of this file."""

import functools
import os
import signal
from pathlib import Path

import pytest

from fake_encoders import FakeEncoder
from pool_recipes import InlinePool, Missing, Squares, fake_prompts, open_fake_encoder, store_files
from tai_engine.caching.images import cache_images, image_spec, update_store
from tai_engine.caching.report import CacheOptions
from tai_engine.distributed.encode_on_pool import EncodeRecipe, PooledGroups
from tai_engine.distributed.ray_pool import RayPool
from tai_engine.distributed.tag_on_pool import MANIFEST, tag_to_folder
from tai_engine.errors import UserError
from tai_engine.sources import open_source
from tai_engine.sources.item_reading import ItemReader
from tai_engine.store import FeatureStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),  # of settings that nobody here touches
]

OPTIONS = CacheOptions(group_items=4, slice_items=2, workers=2)


def worker_pids() -> list[int]:
    """Of the actors that are at work, as Ray knows them."""
    from ray._private.state import actors

    return [
        actor["Pid"]
        for actor in actors().values()
        if "_RayWorker" in actor["ActorClassName"] + str(actor.get("Name", "")) and actor["State"] == "ALIVE"
    ]


def test_a_store_made_on_ray_with_a_killed_worker_is_the_same_to_the_byte(tmp_path: Path, pictures: Path):
    here, there = tmp_path / "here", tmp_path / "there"
    cache_images(open_source(pictures), FakeEncoder(clip=True), here, options=OPTIONS)
    recipe = EncodeRecipe(
        functools.partial(open_fake_encoder, tmp_path, 0.2), str(there), ItemReader(), options=OPTIONS
    )
    killed = []

    def kill_one(progress):
        if progress.done and not killed:
            killed.append(worker_pids()[0])
            os.kill(killed[0], signal.SIGKILL)

    with RayPool(recipe, workers=2) as pool:
        spec = image_spec(pool.describe(), OPTIONS)
        report = update_store(
            open_source(pictures), spec, there, PooledGroups(pool), options=OPTIONS, progress=kill_one
        )
    assert (report.done, report.failed) == (21, 1)
    opened = {int(path.name.split("-")[1]) for path in tmp_path.glob("opened-*-cpu")}
    assert killed[0] in opened
    assert len(opened) == 4  # one that described itself, two that worked, and the one that came for the dead one
    assert store_files(there) == store_files(here)


def test_failures_are_tried_again_but_not_for_ever(tmp_path: Path):
    """An exception ends the worker as a crash does: number 1 works out the second time, number 2 never."""
    (tmp_path / "raise-1").touch()
    (tmp_path / "die-2").touch()
    with RayPool(Squares(tmp_path), workers=1) as pool:
        assert list(pool.run([])) == []
        with pytest.raises(
            UserError, match=r"3 workers ended over the same work \(call \d+\), the last one so: lost.*run the same"
        ):
            list(pool.run(range(3)))
    assert len(list(tmp_path.glob("had-1-*"))) == 2
    assert len(list(tmp_path.glob("had-2-*"))) == 3


def test_a_mistake_of_the_user_is_told_in_its_own_words(tmp_path: Path):
    with RayPool(Missing()) as pool:
        for ask in (pool.describe, lambda: list(pool.run([1]))):
            with pytest.raises(UserError, match=r"^There is no model 'nothing'; take another\.$"):
                ask()


def test_a_store_is_tagged_on_ray_as_it_is_here(tmp_path: Path, pictures: Path):
    cache_images(open_source(pictures), FakeEncoder(), tmp_path / "store", options=OPTIONS)
    store, prompts = FeatureStore.open(tmp_path / "store"), fake_prompts()
    here = tag_to_folder(store, prompts, tmp_path / "here", InlinePool)
    there = tag_to_folder(store, prompts, tmp_path / "there", functools.partial(RayPool, workers=1))
    assert (there.items, there.tags) == (here.items, here.tags) == (21, 63)
    names = {path.name for path in (tmp_path / "here").iterdir()}
    assert {path.name for path in (tmp_path / "there").iterdir()} == names
    for name in names - {MANIFEST}:
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
