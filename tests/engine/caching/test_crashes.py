"""Whatever ends a run, the next one brings the store to what an undisturbed run makes of it, byte by byte."""

import errno
import os
import shutil
import signal
import time

import pytest
import torch

from tai_benchmarks.kill_loop import kill_loop, sleep_loop
from tai_benchmarks.stoppable_fill import (
    AIMED,
    INTERRUPTED,
    USAGE,
    content_of,
    draw_collections,
    fill,
    kill_self,
    run_forked,
)
from tai_engine.errors import UserError
from tai_engine.store import FeatureStore

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads of torch would not survive a fork."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def collections(tmp_path_factory):
    return draw_collections(tmp_path_factory.mktemp("collections") / "of-pictures")


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def exit_code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_killed_runs_are_resumed_to_the_same_bytes(tmp_path, capsys):
    tally = kill_loop(tmp_path, kills=52, seed=5)
    with capsys.disabled():
        print("\n" + tally.describe())
    assert tally.differing == []
    assert tally.killed.total() == 52
    for stage in AIMED:
        assert tally.killed[stage] >= 10
    assert tally.finished <= 20


def test_writers_that_sleep_while_another_one_takes_over_lose_and_double_nothing(tmp_path, capsys):
    tally = sleep_loop(tmp_path, sleeps=8, seed=3)
    with capsys.disabled():
        print("\n" + tally.describe("sleep", "taken over", ""))
    assert tally.differing == []
    assert tally.killed.total() == 8


def test_a_command_killed_with_its_workers_at_work_goes_on(collections, store):
    for slice_ in (0, 4):
        pid, _ = run_forked(collections.before, store, "encoding", slice_, kill_self)
        assert exit_code(pid) == -signal.SIGKILL
    report = fill(collections.before, store)
    assert report.done + report.skipped + report.failed == 26
    assert content_of(store) == content_of(collections.store_before)


def interrupt_self():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)  # it is the main thread that is interrupted


@pytest.mark.parametrize(
    ("stage", "number"), [("decoding", 13), ("encoding", 4), ("writing", 30), ("before a commit", 1)]
)
def test_ctrl_c_leaves_a_store_that_can_be_gone_on_with(collections, store, stage, number):
    pid, _ = run_forked(collections.before, store, stage, number, interrupt_self)
    assert exit_code(pid) == INTERRUPTED
    assert len(FeatureStore.open(store)) < 26
    fill(collections.before, store)
    assert content_of(store) == content_of(collections.store_before)


def fail_with(number):
    def fail():
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(("stage", "number"), [("writing", 14), ("writing", 45), ("before a commit", 0)])
@pytest.mark.parametrize("cause", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_is_full_is_said_and_gone_on_with(collections, store, stage, number, cause):
    pid, _ = run_forked(collections.before, store, stage, number, fail_with(cause))
    assert exit_code(pid) == USAGE
    message = (store.parent / "message").read_text()
    assert str(store) in message
    assert ("the disk is full" if cause == errno.ENOSPC else "input/output error") in message
    fill(collections.before, store)
    assert content_of(store) == content_of(collections.store_before)


def test_a_second_process_is_refused_until_the_first_is_gone(collections, store):
    reading, writing = os.pipe()

    def say_and_wait():
        os.write(writing, b"!")
        time.sleep(60)

    pid, _ = run_forked(collections.before, store, "decoding", 9, say_and_wait)
    assert os.read(reading, 1) == b"!"
    with pytest.raises(UserError, match=rf"{store}.* process {pid} "):
        fill(collections.before, store)
    os.kill(pid, signal.SIGKILL)
    assert exit_code(pid) == -signal.SIGKILL
    fill(collections.before, store)
    assert content_of(store) == content_of(collections.store_before)
    os.close(reading)
    os.close(writing)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-9])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut_off, flip_a_bit, os.unlink])
@pytest.mark.parametrize("name", ["fine/c.1.0", "id/c.0", "commits/00000002.json"])
def test_damage_is_found_repaired_and_filled_again(collections, store, damage, name):
    from tai_engine.store.upkeep.repair import repair_store
    from tai_engine.store.upkeep.verify import verify_store

    shutil.copytree(collections.store_before, store)
    damage(store / name)
    if damage is not os.unlink or name != "commits/00000002.json":  # a group without a record does not exist
        assert not verify_store(store).is_sound
        repair_store(store)
        assert verify_store(store).is_sound
    report = fill(collections.before, store)
    assert report.skipped == 18 if name != "commits/00000002.json" else 16
    found = content_of(store)
    assert {name: data for name, data in found.items() if not name.startswith("damaged")} == content_of(
        collections.store_before
    )


def test_what_a_kill_left_between_commit_and_deletion_is_put_right_first(collections, store):
    shutil.copytree(collections.store_before, store)
    # The first record that is renamed is that of the new group, the second one marks what it replaces as deleted.
    pid, _ = run_forked(collections.after, store, "before a commit", 1, kill_self)
    assert exit_code(pid) == -signal.SIGKILL
    names = [item.id for item in FeatureStore.open(store).ledger()]
    assert len(names) > len(set(names))
    report = fill(collections.before, store)
    assert report.changed == 3
    names = [item.id for item in FeatureStore.open(store).ledger()]
    assert len(names) == len(set(names)) == 26
