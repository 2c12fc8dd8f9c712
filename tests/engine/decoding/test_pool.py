"""Workers decode in order; one that crashes or hangs costs its own picture and is replaced."""

import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from hostile_pictures import HostileReader, item, picture
from tai_engine.decoding import pool as pool_module
from tai_engine.decoding.decode import DecodeOptions
from tai_engine.decoding.feed import DirectFeed, GroupTask, Parcel, WaitingFeed
from tai_engine.decoding.pixels import SquarePixels
from tai_engine.decoding.pool import DecodePool
from tai_engine.decoding.process import Spare, WorkerStartError
from tai_engine.decoding.worker import Preparation
from tai_engine.sources import SourceItem

PREPARE = Preparation(HostileReader(), SquarePixels(8), DecodeOptions())


def pool(prepare=PREPARE, workers=2, window=6, timeout_seconds=20.0):
    return DecodePool(prepare, workers=workers, window=window, timeout_seconds=timeout_seconds)


def outcomes(the_pool, items):
    """Number of the picture as its pixels say, or the reason, for each item in order."""
    found = []
    with closing(the_pool), closing(the_pool.decode(DirectFeed([GroupTask(0, items)]))) as decoded:
        for one, wanted in zip(decoded, items, strict=True):
            # The worker has the file that it carried.
            assert one.job.item == (replace(wanted, data=None) if isinstance(wanted, SourceItem) else wanted)
            if one.pixels is None:
                found.append(one.outcome.reason)
            else:
                assert one.pixels.shape == (3, 8, 8)
                assert (one.pixels == one.pixels[:, :1, :1]).all()
                assert one.outcome.content_hash is not None
                found.append(int(one.pixels[0, 0, 0]) + 256 * int(one.pixels[1, 0, 0]))
    return found


def is_running(pid):
    try:
        state = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]  # noqa: SIM115, PTH123
    except FileNotFoundError:
        return False
    return state not in "ZX"


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def test_pictures_come_in_order_with_their_own_pixels():
    items = [item(n, "slow" if n % 7 == 0 else "picture") for n in range(300)]
    assert outcomes(pool(), items) == list(range(300))


def test_pixels_and_hashes_are_those_of_a_call_here():
    with closing(pool()) as one, closing(one.decode(DirectFeed([GroupTask(0, [item(5), item(300)])]))) as decoded:
        found = [(d.pixels.copy(), d.outcome.content_hash) for d in decoded]
    for one, (pixels, content_hash) in zip((item(5), item(300)), found, strict=True):
        here = np.empty((3, 8, 8), np.uint8)
        assert PREPARE(one, here).content_hash == content_hash
        np.testing.assert_array_equal(here, pixels)


@pytest.mark.slow
def test_whatever_happens_to_a_picture_it_fails_alone():
    items = [item(n) for n in range(40)]
    for place, what in ((0, "killed"), (9, "raises"), (10, "exits"), (11, "killed"), (25, "hangs"), (39, "exits")):
        items[place] = item(place, what)
    found = outcomes(pool(timeout_seconds=4), items)
    reasons = {
        0: "crashed: the worker died while decoding (SIGKILL)",
        9: "unexpected: ValueError: no such luck",
        10: "crashed: the worker died while decoding (exit status 3)",
        11: "crashed: the worker died while decoding (SIGKILL)",
        25: "timeout: decoding took longer than 4 s",
        39: "crashed: the worker died while decoding (exit status 3)",
    }
    assert found == [reasons.get(n, n) for n in range(40)]


def test_workers_load_no_deep_learning_library():
    assert outcomes(pool(), [item(0, "modules")]) == ["unexpected: ValueError: none"]


def test_a_worker_that_died_with_nothing_to_do_costs_no_picture():
    with closing(pool(workers=1, window=1)) as one:
        decoded = one.decode(DirectFeed([GroupTask(0, [item(0, "pid"), item(1), item(2)])]))
        pid = int(next(decoded).outcome.reason.rpartition(" ")[2])
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG))
        assert [d.outcome.reason for d in decoded] == [None, None]


def test_closing_ends_workers_at_once_even_those_that_hang():
    one = pool(workers=2, timeout_seconds=0)
    decoded = one.decode(DirectFeed([GroupTask(0, [item(0, "pid"), item(1, "hangs"), item(2, "hangs")])]))
    pid = int(next(decoded).outcome.reason.rpartition(" ")[2])
    begun = time.monotonic()
    decoded.close()
    one.close()
    assert time.monotonic() - begun < 5
    assert not is_running(pid)
    assert threading.active_count() == 1 or not [t for t in threading.enumerate() if t.name.startswith("decode")]


@pytest.mark.parametrize("what", ["hangs", "picture"])
def test_no_worker_outlives_a_parent_that_is_killed(what):
    # The parent says which workers it has, then waits to be killed: its workers are busy, or have nothing to do.
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from hostile_pictures import HostileReader, item\n"
        "from tai_engine.decoding.pool import DecodePool\n"
        "from tai_engine.decoding.worker import Preparation\n"
        "from tai_engine.decoding.feed import DirectFeed, GroupTask\n"
        "from tai_engine.decoding.decode import DecodeOptions\n"
        "from tai_engine.decoding.pixels import SquarePixels\n"
        "prepare = Preparation(HostileReader(), SquarePixels(8), DecodeOptions())\n"
        "pool = DecodePool(prepare, workers=2, window=4, timeout_seconds=0)\n"
        f"items = [item(0, 'pid'), item(1, 'pid'), item(2, {what!r}), item(3, {what!r}), item(4, 'hangs')]\n"
        "decoded = pool.decode(DirectFeed([GroupTask(0, items)]))\n"
        "print(*[next(decoded).outcome.reason.rpartition(' ')[2] for _ in range(2)], flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert workers
        assert all(map(is_running, workers))
    finally:
        parent.kill()
        parent.communicate()
    wait_until(lambda: not any(map(is_running, workers)))


def test_workers_that_cannot_start_are_said_so():
    class Reader:
        """Of a module that the workers do not have."""

        def __reduce__(self):
            return (importlib.import_module, ("no_such_module",))

    for reader, words in (
        (Reader(), r"\(ModuleNotFoundError: .*no_such_module.*fewer --workers.*imported"),
        (lambda one: one.data, r"pickle local object|Can't pickle"),
    ):
        with pytest.raises(WorkerStartError, match="cannot be started.*" + words):
            outcomes(pool(prepare=Preparation(reader, SquarePixels(8), DecodeOptions())), [item(0)])


def test_an_item_that_a_worker_cannot_take_fails_alone():
    class Odd:
        def __init__(self, function, *arguments):
            self.how = (function, arguments)

        def __reduce__(self):
            return self.how

    there = Odd(importlib.import_module, "no_such_module")
    here = Odd(lambda: None)
    found = outcomes(pool(), [item(0), there, item(2), here, item(4)])
    assert found[0::2] == [0, 2, 4]
    assert found[1] == "unexpected: ModuleNotFoundError: No module named 'no_such_module'"
    assert found[3].startswith("unexpected: ")


def test_no_more_is_taken_than_the_window_holds():
    taken = []

    def items():
        for n in range(50):
            taken.append(n)
            yield item(n)

    with closing(pool(window=5)) as one, closing(one.decode(DirectFeed([GroupTask(0, items())]))) as decoded:
        assert taken == []
        next(decoded)
        assert len(taken) == 6  # five in the window, and one to know whether the group ends
        next(decoded)
        assert len(taken) == 7
    assert len(taken) == 7


def test_files_that_items_carry_are_bounded_in_bytes_not_in_items(monkeypatch):
    monkeypatch.setattr(pool_module, "MAX_CARRIED_BYTES", 1000)
    taken = []

    def items():
        for n in range(12):
            taken.append(n)
            yield replace(item(n), data=picture(n) + bytes(600 - len(picture(n))))

    with closing(pool(window=8)) as one, closing(one.decode(DirectFeed([GroupTask(0, items())]))) as decoded:
        next(decoded)
        assert len(taken) == 3  # two of 600 bytes, and one to know whether the group ends
        assert [d.pixels is not None for d in decoded] == [True] * 11
    with (
        closing(pool(window=8)) as one,
        closing(one.decode(DirectFeed([GroupTask(0, [item(n) for n in range(9)])]))) as decoded,
    ):
        assert [int(d.pixels[0, 0, 0]) for d in decoded] == list(range(9))  # less than 1,000 bytes all together


def test_a_file_is_let_go_of_when_a_worker_has_it_not_when_its_pixels_are_asked_for(monkeypatch):
    monkeypatch.setattr(pool_module, "MAX_CARRIED_BYTES", 1000)
    sent, taken = [], []
    let_go = Parcel.sent

    def recorded(self):
        let_go(self)
        sent.append(self.item.id)
        assert self.file == b""

    monkeypatch.setattr(Parcel, "sent", recorded)

    def items():
        for n in range(8):
            taken.append(n)
            yield replace(item(n), data=picture(n) + bytes(600 - len(picture(n))))

    with closing(pool(workers=1, window=8)) as one, closing(one.decode(DirectFeed([GroupTask(0, items())]))) as decoded:
        first = next(decoded)
        assert first.job.item == replace(item(0), data=None)
        assert taken == [0, 1, 2]  # two of 600 bytes, and one to know whether the group ends
        wait_until(lambda: "1" in sent)
        assert int(next(decoded).pixels[0, 0, 0]) == 1
        assert len(taken) >= 5  # two more at once, for nothing waited any more
        assert [int(d.pixels[0, 0, 0]) for d in decoded] == list(range(2, 8))


def test_what_libraries_write_to_stderr_belongs_to_their_picture(capfd):
    items = [item(0, "says"), item(1, "says and fails"), item(2, "says and dies"), item(3), item(4, "raises")]
    assert outcomes(pool(workers=1), items) == [
        0,
        "unexpected: ValueError: no such luck (lib: 1 is odd; \\x1b[31mred)",
        "crashed: the worker died while decoding (SIGABRT) (lib: 2 is odd; \\x1b[31mred)",
        3,
        "unexpected: ValueError: no such luck",
    ]
    assert capfd.readouterr().err == ""


def test_a_spare_worker_is_taken_once_and_replaced_when_it_has_died(monkeypatch):
    spare = Spare()
    spare.start()
    started = spare.take()
    assert started.is_alive()
    other = spare.take()
    assert other is not started
    other.close()
    started.close()
    spare.start()
    dead = spare._worker
    dead.kill()
    wait_until(lambda: not dead.is_alive())
    taken = spare.take()
    assert taken is not dead
    assert taken.is_alive()
    taken.close()


def test_nothing_is_waited_for_while_there_is_something_to_give():
    # The second task comes only when the first one's results are out, as from a parent that counts them.
    first_is_out = threading.Event()

    def tasks():
        yield GroupTask(4, [item(0), item(1)])
        assert first_is_out.wait(10)
        yield GroupTask(7, [item(2)])

    with closing(WaitingFeed(tasks())) as feed, closing(pool()) as one, closing(one.decode(feed)) as decoded:
        seen = []
        for each in decoded:
            if each is None:
                seen.append("idle")
                if [job for job in seen if job != "idle"][-1:] == [(4, "1", True)]:
                    first_is_out.set()
            else:
                seen.append((each.job.group, each.job.item.id, each.job.ends_group))
    assert [job for job in seen if job != "idle"] == [(4, "0", False), (4, "1", True), (7, "2", True)]
    assert seen[seen.index((4, "1", True)) + 1] == "idle"


def test_an_error_among_the_tasks_comes_out_where_they_are_used():
    def tasks():
        yield GroupTask(0, [item(0)])
        raise OSError("the source is gone")

    with closing(WaitingFeed(tasks())) as feed, closing(pool()) as one, pytest.raises(OSError, match="source is gone"):
        list(one.decode(feed))


def test_a_preparation_can_be_pickled():
    assert pickle.loads(pickle.dumps(PREPARE)) == PREPARE
