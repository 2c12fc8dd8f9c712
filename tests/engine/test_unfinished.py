import os
import subprocess
import sys

import pytest

from tai_engine.files import write_atomically
from tai_engine.unfinished import FOLDER_SUFFIX, alive, clear_dead, temporary_folder


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_folder_that_the_body_renames_stays(tmp_path):
    with temporary_folder(tmp_path / "new" / "a") as folder:
        (folder / "file").write_text("text")
        folder.rename(tmp_path / "new" / "a")
    assert names(tmp_path / "new") == ["a"]
    assert (tmp_path / "new" / "a" / "file").read_text() == "text"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_folder_that_the_body_does_not_finish_goes(tmp_path, error):
    def write():
        with temporary_folder(tmp_path / "a") as folder:
            (folder / "file").write_text("text")
            raise error

    with pytest.raises(error):
        write()
    assert names(tmp_path) == []


LEFT_BY_KILL = """
import os, signal, sys
from tai_engine.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    sys.stdin.read()
"""


def start_writer(target, what):
    return subprocess.Popen(
        [sys.executable, "-c", LEFT_BY_KILL, str(target), what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def grow_old(folder):
    for path in folder.iterdir():
        os.utime(path, (0, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="needs kill -9 and file locks")
def test_what_a_killed_writer_leaves_goes_with_a_later_write_and_what_is_being_written_stays(tmp_path):
    with start_writer(tmp_path / "a", "kill") as killed:
        killed.wait(60)
    assert len(names(tmp_path)) == 1
    with start_writer(tmp_path / "b", "wait") as writing:
        assert writing.stdout.readline() == "writing\n"
        mine = [".0123456789abcdef.tmp.txt", ".0123.tmp", "notes.tmp"]
        for name in mine:
            (tmp_path / name).write_text("mine")
        (tmp_path / ".00112233445566ff.tmp").mkdir()  # no folder of ours, by its name
        clear_dead.cache_clear()
        clear_dead(tmp_path)
        assert len(names(tmp_path)) == 6  # all of it may have been written a moment ago
        grow_old(tmp_path)
        clear_dead.cache_clear()
        write_atomically(tmp_path / "c", "text")
        left = set(names(tmp_path)) - {*mine, ".00112233445566ff.tmp", "c"}
        assert len(left) == 1  # the one that is being written
        writing.communicate("")
    assert set(names(tmp_path)) == {*mine, ".00112233445566ff.tmp", "b", "c"}
    assert (tmp_path / "b").read_text() == "half"


def test_a_dead_folder_goes_and_one_that_is_being_written_stays(tmp_path):
    dead, living = (tmp_path / f".{digit * 16}{FOLDER_SUFFIX}" for digit in "ab")
    for folder in (dead, living):
        (folder / "below").mkdir(parents=True)
        (folder / "below" / "file").write_text("text")
    grow_old(tmp_path)
    with alive(living):
        clear_dead(tmp_path)
        assert names(tmp_path) == [living.name]
