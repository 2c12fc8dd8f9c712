"""Two writers, dead writers, and writers that were taken for dead."""

import contextlib
import errno
import json
import os
import re
import signal
import time

import pytest

from tai_engine.errors import UserError
from tai_engine.store import lease, lock
from tai_engine.store.lease import LEASE, Holder
from tai_engine.store.lock import LOCK, find_writer, hold_lock
from tai_engine.store.store_files import LocalFiles, open_files

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
    with contextlib.suppress(KeyboardInterrupt), hold_lock(place):
        raise KeyboardInterrupt
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
        pid = os.fork()
        if not pid:
            os.close(write)
            os.read(read, 1)  # until the parent closes its end
            os._exit(0)
        held.close()  # what the kernel does when the parent is killed
        with hold_lock(files) as second:
            second.check()
        os.close(write)
        os.waitpid(pid, 0)


def test_a_forked_child_does_not_release_the_lock(files):
    with hold_lock(files) as held:
        pid = os.fork()
        if not pid:
            try:
                held.release()
                held.check()
            except RuntimeError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        held.check()
        assert files.exists(LOCK)


def test_a_lock_file_that_was_removed(files):
    with hold_lock(files) as held:
        files.remove(LOCK)
        with pytest.raises(UserError, match=r"\.lock was removed while this process was writing"):
            held.check()
        with hold_lock(files) as second:
            second.check()
            with pytest.raises(UserError, match="was removed"):
                held.check()
        files.write(LOCK, "of somebody else")
    assert files.read(LOCK) == b"of somebody else"  # not ours to remove


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


def write_lease(files, age, pid=4242):
    holder = Holder(pid, "other", time.time() - 1000, "somebody", time.time() - age)
    files.write(LEASE, holder.to_json())


@pytest.mark.parametrize("age", [0, 50, -50])
def test_a_lease_in_force_is_respected(address, age):
    write_lease(address, age)
    with pytest.raises(UserError, match=r"process 4242 on other .*lets go 60 seconds after"), hold_lock(address):
        pytest.fail("two writers")
    assert Holder.from_json(address.read(LEASE)).owner == "somebody"


@pytest.mark.parametrize("age", [61, 10**6, -61])  # clocks that went wrong do not hold it for ever either
def test_a_lease_that_was_not_renewed_is_taken_over(address, age):
    write_lease(address, age)
    assert find_writer(address) is None
    with hold_lock(address) as held:
        held.check()
        assert find_writer(address).pid == os.getpid()
    assert address.names() == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "\x00"])
def test_a_damaged_lease_holds_nothing(address, content):
    address.write(LEASE, content)
    with hold_lock(address) as held:
        held.check()
        assert json.loads(address.read(LEASE))["pid"] == os.getpid()


def test_a_holder_that_finds_another_owner_stops(address):
    with hold_lock(address) as held:
        held.check()
        write_lease(address, 0)
        with pytest.raises(UserError, match=r"was taken over by process 4242 on other .*no sign of life"):
            held.check()
    assert Holder.from_json(address.read(LEASE)).owner == "somebody"  # not ours to remove


def test_of_two_that_begin_at_once_one_goes_on(address, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: write_lease(address, 0))  # the other one wrote a moment later
    with pytest.raises(UserError, match="process 4242"), hold_lock(address):
        pytest.fail("two writers")
    assert Holder.from_json(address.read(LEASE)).owner == "somebody"


def test_a_lease_is_renewed(address, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    with hold_lock(address):
        first = Holder.from_json(address.read(LEASE))
        deadline = time.monotonic() + 20
        while (latest := Holder.from_json(address.read(LEASE))).renewed_at == first.renewed_at:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert latest.renewed_at > first.renewed_at
    assert (latest.owner, latest.since, latest.pid) == (first.owner, first.since, first.pid)


def test_a_lease_that_vanished_is_written_again(address):
    with hold_lock(address) as held:
        address.remove(LEASE)
        held.check()
        assert find_writer(address).pid == os.getpid()


def test_an_address_that_cannot_be_reached(address, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, "no route")

    with hold_lock(address) as held:
        with monkeypatch.context() as patched:
            patched.setattr(address, "read", fail)
            with pytest.raises(UserError, match=r"lease\.json cannot be read .*check the connection"):
                held.check()
            with pytest.raises(UserError, match="check the connection"), hold_lock(address):
                pytest.fail("no lock")
        held.check()
