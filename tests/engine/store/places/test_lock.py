"""Two writers, dead writers, and writers that were taken for dead."""

import contextlib
import errno
import os
import re
import signal
import time

import pytest

from tai_engine.errors import UserError
from tai_engine.store.places import lease, lock
from tai_engine.store.places.abstract_lock import Holder
from tai_engine.store.places.lease import newest_lease
from tai_engine.store.places.local_files import LocalFiles
from tai_engine.store.places.lock import LOCK, find_writer, hold_lock
from tai_engine.store.places.store_files import open_files

LEASE = "lease.000001.json"
SECOND = "lease.000002.json"
BUSY = r"is being written by process \d+ on .+ since \d{4}-\d\d-\d\d \d\d:\d\d; wait for it or stop it"


@pytest.fixture
def files(tmp_path):
    return LocalFiles(tmp_path)


@pytest.fixture
def address(tmp_path, monkeypatch):
    """The files of a store at an address of its own; nobody waits for others."""
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)
    return open_files(f"memory://{tmp_path.name}")


@pytest.fixture(params=["files", "address"])
def place(request):
    return request.getfixturevalue(request.param)


def test_the_second_writer_is_refused_at_once(place):
    with hold_lock(place):
        with pytest.raises(UserError, match=f"The store {re.escape(str(place))} {BUSY}"), hold_lock(place):
            pytest.fail("two writers")
        with pytest.raises(UserError, match=f"process {os.getpid()} on"), hold_lock(place):
            pytest.fail("two writers")
    with hold_lock(place):
        pass


def test_nothing_is_left_behind(place):
    with hold_lock(place) as held:
        held.check()
        assert place.names() == ([LOCK] if place.is_local else [LEASE])
    assert place.names() == []


def test_who_is_writing(place):
    assert find_writer(place) is None
    with hold_lock(place):
        writer = find_writer(place)
        assert (writer.pid, str(writer).split(" since ")[0]) == (os.getpid(), f"process {os.getpid()} on {writer.host}")
        assert abs(writer.since - time.time()) < 60
    assert find_writer(place) is None


def child_that_holds(files):
    """The pid of a forked process that holds the lock and sleeps."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException), hold_lock(files):
            os.write(write, b"!")
            time.sleep(60)
        os._exit(1)
    os.close(write)
    assert os.read(read, 1) == b"!"
    os.close(read)
    return pid


def test_a_killed_process_holds_nothing(files):
    pid = child_that_holds(files)
    with pytest.raises(UserError, match=f"by process {pid} on"), hold_lock(files):
        pytest.fail("two writers")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert files.names() == [LOCK]  # as the dead one left it
    assert find_writer(files) is None
    with hold_lock(files):
        assert find_writer(files).pid == os.getpid()
    assert files.names() == []


def test_a_forked_child_that_outlives_its_parent_does_not_hold_the_lock(files):
    """As decoding workers of a writer that was killed."""
    with hold_lock(files) as held:
        read, write = os.pipe()
        here, there = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(write)
            os.write(there, b"!")
            os.read(read, 1)  # until the parent closes its end
            os._exit(0)
        os.read(here, 1)  # what a child does after the fork is done
        held.close()  # what the kernel does when the parent is killed
        with hold_lock(files) as second:
            second.check()
        for end in (read, write, here, there):
            os.close(end)
        os.waitpid(pid, 0)


def test_a_forked_child_does_not_release_the_lock(files):
    with hold_lock(files) as held:
        pid = os.fork()
        if not pid:
            try:
                held.release(is_well=True)
                held.check()
            except RuntimeError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        held.check()
        assert files.exists(LOCK)


def test_a_lock_file_that_was_removed(files, tmp_path):
    with hold_lock(files) as held:
        (tmp_path / LOCK).unlink()
        with pytest.raises(UserError, match=r"\.lock was removed while this process was writing"):
            held.check()
        with hold_lock(files) as second:
            second.check()
            with pytest.raises(UserError, match="was removed"):
                held.check()
        (tmp_path / LOCK).write_text("of somebody else")
    assert files.read(LOCK) == b"of somebody else"  # not ours to remove


def test_nobody_writes_where_no_lock_can_be(tmp_path):
    os.mkfifo(tmp_path / LOCK)
    assert find_writer(LocalFiles(tmp_path)) is None  # opening it would wait for somebody to write into it
    (tmp_path / "file").write_bytes(b"")
    assert find_writer(LocalFiles(tmp_path / "file")) is None


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="Cannot write"), hold_lock(LocalFiles(tmp_path / "nowhere")):
        pytest.fail("no lock")


def test_a_file_system_without_file_locks_gets_a_lease(files, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with hold_lock(files) as held:
        held.check()
        assert LEASE in files.names()
        assert find_writer(files).pid == os.getpid()
        with pytest.raises(UserError, match=BUSY), hold_lock(files):
            pytest.fail("two writers")
    assert LEASE not in files.names()


def write_lease(files, age, pid=4242, number=1, **more):
    holder = Holder(pid, "other", time.time() - 1000, "somebody", time.time() - age, **more)
    files.write(f"lease.{number:06d}.json", holder.to_json())


@pytest.mark.parametrize("age", [0, 50, -50])
def test_a_lease_in_force_is_respected(address, age):
    write_lease(address, age)
    with pytest.raises(UserError, match=r"process 4242 on other .*lets go 60 seconds after"), hold_lock(address):
        pytest.fail("two writers")
    assert newest_lease(address).holder.owner == "somebody"


@pytest.mark.parametrize("age", [61, 10**6, -61])  # clocks that went wrong do not hold it for ever either
def test_a_lease_that_was_not_renewed_is_taken_over_under_the_next_number(address, age):
    write_lease(address, age, first_group=7)
    assert find_writer(address) is None
    with hold_lock(address) as held:
        held.check()
        assert find_writer(address).pid == os.getpid()
        assert address.names() == [SECOND]
        assert (held.first_group, held.must_skip_groups) == (7, True)
        held.keep_out_of(20)
        assert newest_lease(address).holder.first_group == 20
    # It stays, so that a number is given once, and groups stay out of use for good.
    assert address.names() == [SECOND]
    assert (newest_lease(address).holder.ended, newest_lease(address).holder.first_group) == ("well", 20)
    assert find_writer(address) is None
    with hold_lock(address) as held:
        assert (held.first_group, held.must_skip_groups) == (20, False)
        assert address.names() == ["lease.000003.json"]


def test_a_holder_that_does_not_say_which_groups_to_skip_leaves_that_to_the_next(address):
    write_lease(address, 61)
    with hold_lock(address):
        pass
    with hold_lock(address) as held:
        assert held.must_skip_groups


def test_an_error_ends_the_work_early(address):
    with contextlib.suppress(KeyboardInterrupt), hold_lock(address):
        raise KeyboardInterrupt
    assert newest_lease(address).holder.ended == "early"
    assert find_writer(address) is None
    with hold_lock(address) as held:
        assert held.must_skip_groups


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "\x00"])
def test_a_damaged_lease_holds_nothing(address, content):
    address.write(LEASE, content)
    with hold_lock(address) as held:
        held.check()
        assert held.must_skip_groups
        assert newest_lease(address).holder.pid == os.getpid()


def test_a_holder_that_finds_a_higher_number_stops_for_good(address):
    with hold_lock(address) as held:
        held.check()
        write_lease(address, 0, number=2)
        for _ in range(2):
            with pytest.raises(UserError, match=r"was taken over by process 4242 on other .*no sign of life"):
                held.check()
            address.take_back(SECOND)
        with pytest.raises(UserError, match="was taken over"):
            address.write("a", b"")
    assert "a" not in address.names()


def test_a_lease_that_vanished_is_a_lost_one(address):
    """Whoever removed it may have made one of its own and released that again meanwhile."""
    with hold_lock(address) as held:
        address.remove(LEASE)
        with pytest.raises(UserError, match=r"lease\.000001\.json was removed while"):
            held.check()
        with pytest.raises(UserError, match="was removed while"):
            held.fence()
    assert address.names() == []


@pytest.mark.parametrize(("seconds", "is_lost"), [(45, False), (51, True)])
@pytest.mark.parametrize("clock", ["time", "clock_gettime"])
def test_a_lease_that_was_not_renewed_for_too_long_is_a_lost_one(address, monkeypatch, clock, seconds, is_lost):
    """The machine slept; whether anybody took the lease over meanwhile is not asked."""
    with hold_lock(address) as held:
        held.check()
        real = getattr(time, clock)
        monkeypatch.setattr(time, clock, lambda *which: real(*which) + seconds)
        if not is_lost:
            held.fence()
            address.write("a", b"")
            return
        with pytest.raises(UserError, match=r"no sign of life for 51 seconds"):
            held.fence()
        for change in (lambda: address.write("a", b""), lambda: address.create("a", b""), lambda: address.remove("b")):
            with pytest.raises(UserError, match="no sign of life"):
                change()
        monkeypatch.undo()
        with pytest.raises(UserError, match="no sign of life"):
            held.check()
    assert address.names() == [LEASE]


def test_of_two_that_begin_at_once_one_goes_on(address, monkeypatch):
    found = address.names

    def names(folder=""):
        """Nothing at first; then the other one wrote a moment later."""
        monkeypatch.setattr(address, "names", found)
        write_lease(address, 0)
        return []

    monkeypatch.setattr(address, "names", names)
    with pytest.raises(UserError, match="process 4242"), hold_lock(address):
        pytest.fail("two writers")
    assert newest_lease(address).holder.owner == "somebody"


def test_a_lease_is_renewed(address, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    with hold_lock(address):
        first = newest_lease(address).holder
        deadline = time.monotonic() + 20
        while (latest := newest_lease(address).holder).renewed_at == first.renewed_at:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert latest.renewed_at > first.renewed_at
    assert (latest.owner, latest.since, latest.pid) == (first.owner, first.since, first.pid)


def test_an_address_that_cannot_be_reached(address, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "no route")

    with hold_lock(address) as held:
        with monkeypatch.context() as patched:
            patched.setattr(address, "names", fail)
            with pytest.raises(UserError, match=r"cannot be looked at .*check the connection"):
                held.check()
            with pytest.raises(UserError, match="check the connection"), hold_lock(address):
                pytest.fail("no lock")
        held.check()
