"""Files appear whole or not at all."""

import errno
import os
import stat

import pytest

from tai_engine.errors import UserError
from tai_engine.files import (
    atomic_path,
    atomic_text,
    check_place,
    write_atomically,
)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_bytes_and_text_are_written(tmp_path):
    write_atomically(tmp_path / "a", b"\x00\xff")
    write_atomically(str(tmp_path / "b"), "größe\n")
    write_atomically(tmp_path / "c", memoryview(b"abc")[1:])
    assert (tmp_path / "a").read_bytes() == b"\x00\xff"
    assert (tmp_path / "b").read_bytes() == "größe\n".encode()
    assert (tmp_path / "c").read_bytes() == b"bc"
    assert names(tmp_path) == ["a", "b", "c"]


def test_an_older_file_is_replaced_and_missing_folders_are_made(tmp_path):
    target = tmp_path / "x" / "y" / "file.txt"
    write_atomically(target, "one")
    write_atomically(target, "two")
    assert target.read_text() == "two"
    assert names(target.parent) == ["file.txt"]


def test_the_file_has_the_usual_rights(tmp_path):
    write_atomically(tmp_path / "a", "text")
    (tmp_path / "plain").write_text("text")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_failure_in_the_body_leaves_the_older_file_alone(tmp_path):
    target = tmp_path / "a"
    target.write_text("old")

    def write():
        with atomic_path(target) as temporary:
            temporary.write_text("new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_text_is_written_as_it_is(tmp_path):
    with atomic_text(tmp_path / "new" / "a") as file:
        file.write("größe\n\r\n")
        assert not (tmp_path / "new" / "a").exists()
    assert (tmp_path / "new" / "a").read_bytes() == b"gr\xc3\xb6\xc3\x9fe\n\r\n"


def test_ctrl_c_leaves_the_older_file_alone(tmp_path):
    target = tmp_path / "a"
    target.write_text("old")

    def write():
        with atomic_path(target) as temporary:
            temporary.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission is denied"),
        (errno.EIO, "check the disk"),
    ],
)
def test_a_failed_write_is_told_in_a_sentence(tmp_path, number, words):
    target = tmp_path / "a"
    with pytest.raises(UserError, match=words) as caught, atomic_path(target):
        raise OSError(number, os.strerror(number))
    assert str(target) in str(caught.value)
    assert names(tmp_path) == []


def test_a_full_disk_at_the_fsync_is_a_failed_write(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        write_atomically(tmp_path / "a", "text")
    assert names(tmp_path) == []


def test_an_error_about_another_file_passes_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        (tmp_path / "not there").read_text()
    assert names(tmp_path) == []


def test_a_folder_or_a_pipe_in_the_way_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder: it is a folder; give the name of a file"):
        write_atomically(tmp_path / "folder", "text")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="in the way"):
        write_atomically(tmp_path / "pipe", "text")
    assert names(tmp_path) == ["folder", "pipe"]


def test_a_parent_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(UserError, match="Cannot write"):
        write_atomically(tmp_path / "file" / "below", "text")
    assert (tmp_path / "file").read_text() == "text"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights_is_named(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UserError, match="permission is denied"):
        write_atomically(tmp_path / "locked" / "a", "text")


def test_a_name_as_long_as_may_be_can_be_written_and_a_longer_one_cannot(tmp_path):
    write_atomically(tmp_path / ("n" * 255), "text")
    assert (tmp_path / ("n" * 255)).read_text() == "text"
    with pytest.raises(UserError, match="too long"):
        write_atomically(tmp_path / ("n" * 256), "text")


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_place_that_can_be_written_is_left_as_it_is(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    for path in (tmp_path / "new.txt", tmp_path / "old.txt", tmp_path / "a" / "b" / "c.txt"):
        check_place(path)
    check_place(tmp_path, folder=True)
    check_place(tmp_path / "d" / "e", folder=True)
    assert names(tmp_path) == ["old.txt"]
    assert (tmp_path / "old.txt").read_text() == "old"


@pytest.mark.parametrize(
    ("name", "folder", "cause"),
    [
        ("folder", False, "it is a folder; give the name of a file"),
        ("pipe", False, "a file of that name is in the way"),
        ("file", True, "a file of that name is in the way"),
        ("file/below", False, "a part of the path is a file, not a folder"),
        ("file/below/further", True, "a part of the path is a file, not a folder"),
        ("n" * 300, False, "the name is too long"),
    ],
)
def test_a_place_that_cannot_be_written_is_said_before_the_work(tmp_path, name, folder, cause):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=f"Cannot write .*{name[:20]}.*: {cause}"):
        check_place(tmp_path / name, folder=folder)
    assert names(tmp_path) == ["file", "folder", "pipe"]


def test_a_file_system_that_refuses_is_said_before_the_work(tmp_path, monkeypatch):
    def refuse(path, *_arguments, **_options):
        raise OSError(errno.EROFS, "read-only", os.fspath(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match=r"Cannot write .*new.txt: the file system is read-only; choose another place"):
        check_place(tmp_path / "new.txt")
