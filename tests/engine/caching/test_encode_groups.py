"""Groups are made from tasks, here or in another process: where pictures are decoded, and what comes out when."""

import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from fake_encoders import FakeEncoder
from hostile_pictures import HostileReader, item
from tai_engine.caching.encode_groups import _slice_pictures, encode_groups
from tai_engine.caching.images import cache_images, image_spec, update_store
from tai_engine.caching.report import CacheOptions
from tai_engine.caching.stages import Stages
from tai_engine.decoding.decode import DecodeOptions
from tai_engine.decoding.feed import GroupTask
from tai_engine.decoding.pixels import SquarePixels
from tai_engine.decoding.worker import Preparation
from tai_engine.store import FeatureStore, StoreSpec

SMALL = CacheOptions(group_items=4, slice_items=3, workers=2)
PREPARE = Preparation(HostileReader(), SquarePixels(8, "squash"), DecodeOptions())


class ItemSource:
    reader = HostileReader()

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)

    def estimate_count(self):
        return len(self.items)


def content(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.name.startswith(("c.", "0"))}


@pytest.fixture
def store(tmp_path):
    spec = StoreSpec(
        kind="images", space_key="space:fake", recipe_key="r", dim=4, rows_per_item_max=2, group_items=4,
        chunk_items=4, has_content_hash=True,
    )  # fmt: skip
    with FeatureStore.create(tmp_path / "store", spec).writing() as opened:
        yield opened


def test_records_come_out_before_the_next_task_is_waited_for(store):
    """As in another process, whose parent gives two tasks and the third when it has a result."""
    results = threading.Semaphore(2)
    store.reserve(4)

    def tasks():
        for group in range(4):
            assert results.acquire(timeout=10)
            yield GroupTask(group, [item(4 * group + n) for n in range(4 - group % 2)])

    numbers = []
    for record in encode_groups(tasks(), store, FakeEncoder(), PREPARE, SMALL, Stages()):
        numbers.append((record.group, record.items))
        store.commit_group(record)
        results.release()
    assert numbers == [(0, 4), (1, 3), (2, 4), (3, 3)]
    assert [i.id for i in store.ledger()] == ["0", "1", "2", "3", "4", "5", "6", "8", "9", "10", "11", "12", "13", "14"]


def test_arrays_are_lengthened_once_for_all_that_is_foreseen(tmp_path, monkeypatch):
    calls, reserve = [], FeatureStore.reserve
    monkeypatch.setattr(FeatureStore, "reserve", lambda self, groups: calls.append(groups) or reserve(self, groups))
    source = ItemSource([item(n) for n in range(10)])
    cache_images(source, FakeEncoder(), tmp_path / "s", options=SMALL)
    assert calls == [3]
    (tmp_path / "s" / "commits" / "00000001.json").unlink()
    source.items = [item(n) for n in range(16)]
    calls.clear()
    cache_images(source, FakeEncoder(), tmp_path / "s", options=SMALL)
    assert calls == [5]  # groups 0 and 2 are there: 1, 3 and 4 are made
    # Of what is not foreseen, a group at a time.
    source.items = [item(n) for n in range(30)]
    source.estimate_count = lambda: None
    calls.clear()
    cache_images(source, FakeEncoder(), tmp_path / "s", options=SMALL)
    assert calls == [6, 7, 8, 9]
    assert FeatureStore.open(tmp_path / "s").counts() == {"done": 30, "failed": 0}


def test_no_tasks_give_no_records(store):
    assert list(encode_groups([], store, FakeEncoder(), PREPARE, SMALL, Stages())) == []


@pytest.mark.slow
def test_pictures_that_crash_hang_or_fail_cost_only_themselves(store):
    store.reserve(2)
    options = CacheOptions(slice_items=3, workers=2, timeout_seconds=4)
    whats = ["picture", "killed", "picture", "picture", "hangs", "picture", "raises", "exits"]
    items = [item(n, what) for n, what in enumerate(whats)]
    seen = []
    tasks = [GroupTask(0, items[:4]), GroupTask(1, items[4:])]
    for record in encode_groups(tasks, store, FakeEncoder(), PREPARE, options, Stages(), lambda *n: seen.append(n)):
        store.commit_group(record)
    assert seen == [(2, 1), (1, 0), (1, 2), (0, 1)]
    assert [(i.id, i.status) for i in store.ledger()] == [
        (f"{n}", "done" if what == "picture" else "failed") for n, what in enumerate(whats)
    ]
    reasons = [i.reason.partition(":")[0] for i in store.ledger() if i.reason]
    assert reasons == ["crashed", "timeout", "unexpected", "crashed"]


@pytest.mark.parametrize("what", ["killed", "hangs"])
def test_a_single_picture_that_crashes_or_hangs_fails_alone_and_again_when_tried_again(tmp_path, what):
    options = CacheOptions(workers=2, timeout_seconds=4, retry_failed=True)
    for _ in range(2):
        report = cache_images(ItemSource([item(0, what)]), FakeEncoder(), tmp_path / "s", options=options)
        assert (report.done, report.failed) == (0, 1)
        assert list(report.reasons) == ["crashed" if what == "killed" else "timeout"]


def test_ctrl_c_ends_a_run_at_once_whose_only_picture_hangs(tmp_path):
    code = (
        f"import signal, sys; sys.path[:] = {sys.path!r}\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may have it ignored
        "from fake_encoders import FakeEncoder\n"
        "from hostile_pictures import HostileReader, item\n"
        "from tai_engine.caching.images import cache_images\n"
        "from tai_engine.caching.report import CacheOptions\n"
        "class Source(list):\n"
        "    reader = HostileReader()\n"
        "    estimate_count = list.__len__\n"
        "options = CacheOptions(timeout_seconds=0)\n"
        f"cache_images(Source([item(0, 'hangs')]), FakeEncoder(), {str(tmp_path / 's')!r}, options=options)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "s" / "zarr.json").exists():  # it is there when the first picture is under way
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)  # without an end it would take for ever
    assert said.rstrip().endswith("KeyboardInterrupt")


def test_no_process_is_started_where_there_is_nothing_to_decode(tmp_path, monkeypatch):
    source = ItemSource([item(n) for n in range(3)])
    assert cache_images(source, FakeEncoder(), tmp_path / "s", options=SMALL).done == 3
    monkeypatch.setattr(subprocess, "Popen", None)
    assert cache_images(source, FakeEncoder(), tmp_path / "s", options=SMALL).skipped == 3


def test_seconds_are_counted_by_stage(store):
    stages = Stages()
    store.reserve(1)
    list(encode_groups([GroupTask(0, [item(0, "slow"), item(1)])], store, FakeEncoder(), PREPARE, SMALL, stages))
    assert stages.seconds["read"] > 0.02
    assert all(seconds > 0 for seconds in stages.seconds.values())


def test_slices_on_a_cpu_are_32_pictures_elsewhere_128(tmp_path):
    encoder = FakeEncoder()
    cache_images(ItemSource([item(n) for n in range(40)]), encoder, tmp_path / "s")
    assert encoder.batches == [32, 8]
    encoder.device = torch.device("cuda")
    assert _slice_pictures(encoder) == 128


def test_groups_that_travel_as_a_whole_are_bounded_in_bytes(tmp_path):
    class Carried:
        def __init__(self, number, size):
            self.id, self.size, self.modified_ns, self.data = str(number), size, None, bytes(size)

    class Source(list):
        reader = None
        estimate_count = list.__len__

    def groups_of(sizes, **more):
        found = []

        def take(tasks, *_):
            found.extend([item.size for item in task.items] for task in tasks)
            yield from ()

        encoder = FakeEncoder()
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        options = CacheOptions(group_items=4)
        source = Source(Carried(*pair) for pair in enumerate(sizes))
        update_store(source, image_spec(encoder, options), path, take, options=options, **more)
        return found

    sizes = [5, 5, 1, 1, 1, 1, 1, 20, 9, 1, 1]
    assert groups_of(sizes) == [[5, 5, 1, 1], [1, 1, 1, 20], [9, 1, 1]]
    assert groups_of(sizes, max_task_bytes=10) == [[5, 5], [1, 1, 1, 1], [1, 20], [9, 1], [1]]
