import errno
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from tai_engine.errors import UserError
from tai_engine.review.decisions import Change
from tai_engine.review.journal import ConflictError, Journal, read_decisions, read_journal

DIGEST = "0" * 64


def opened(path, digest=DIGEST, **options):
    return Journal(path, tags_file="tags.parquet", tags_sha256=digest, by="anna", **options)


def test_what_was_entered_is_there_when_it_is_opened_again(tmp_path):
    path = tmp_path / "new folder" / "j.jsonl"
    with closing(opened(path)) as journal:
        assert journal.decide([Change(("a.jpg", "ö/b.jpg"), accept=("dog",))]) == ["a.jpg", "ö/b.jpg"]
        journal.decide([Change(("a.jpg",), none=True)])
        journal.undo(2)
        journal.set_favourites(["dog", "cat"])
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines[0]["journal"] == "tai-engine review"
    assert lines[0]["tags_sha256"] == DIGEST
    assert [(line["revision"], line["act"], line["by"]) for line in lines[1:]] == [
        (1, "decide", "anna"),
        (2, "decide", "anna"),
        (3, "undo", "anna"),
        (4, "favourites", "anna"),
    ]
    with closing(opened(path)) as journal:
        assert journal.decisions["a.jpg"].present == ("dog",)
        assert journal.decisions.favourites == ("dog", "cat")
        assert journal.redo(2) == ["a.jpg"]
        assert journal.decisions["a.jpg"].is_none
    assert read_decisions(path).revision == 5


def test_every_entry_is_synced_before_it_counts(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), fsync(fd))[1])
    path = tmp_path / "j.jsonl"
    with closing(opened(path)) as journal:
        journal.decide([Change(("a",), none=True)])
        assert synced[-1] == path.stat().st_size
        journal.undo(1)
        assert synced[-1] == path.stat().st_size


@pytest.mark.parametrize("rest", [b'{"revision": 2, "at"', b"\0\0\0", b"\xff\xfe\n", b"{}", b"[1]\n"])
def test_a_last_line_that_was_cut_short_is_left_out(tmp_path, rest):
    path = tmp_path / "j.jsonl"
    with closing(opened(path)) as journal:
        journal.decide([Change(("a",), accept=("dog",))])
    whole = path.read_bytes()
    path.write_bytes(whole + rest)
    assert read_journal(path).cut_bytes == len(rest)
    assert path.read_bytes() == whole + rest  # reading changes nothing
    with closing(opened(path)) as journal:
        assert journal.cut_bytes == len(rest)
        assert path.read_bytes() == whole
        journal.decide([Change(("b",), none=True)])
    assert set(read_decisions(path)) == {"a", "b"}


def test_a_header_that_was_cut_short_is_written_again(tmp_path):
    path = tmp_path / "j.jsonl"
    opened(path).close()
    header = path.read_bytes()
    for length in range(len(header)):
        path.write_bytes(header[:length])
        opened(path).close()
        assert json.loads(path.read_bytes())["tags_sha256"] == DIGEST


@pytest.mark.parametrize(
    "content", [b"my only copy of a poem", b"one line\n", b'{"a": 1}\n', b'{"journal": "diary"}\n']
)
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "poem.txt"
    path.write_bytes(content)
    for read in (opened, read_journal):
        with pytest.raises(UserError, match=r"poem.txt' is no journal"):
            read(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("line", [2, 3])
def test_damage_before_the_last_line_is_refused_with_its_line(tmp_path, line):
    path = tmp_path / "j.jsonl"
    with closing(opened(path)) as journal:
        for name in "abc":
            journal.decide([Change((name,), none=True)])
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1][:10] + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(UserError, match=f"damaged in line {line} "):
        opened(path)
    assert path.read_bytes() == b"".join(lines)


def test_a_line_that_is_missing_is_damage(tmp_path):
    path = tmp_path / "j.jsonl"
    with closing(opened(path)) as journal:
        for name in "abc":
            journal.decide([Change((name,), none=True)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(UserError, match=r"line 3 .*revision is 3, expected 2"):
        read_journal(path)


def test_a_newer_version_and_a_missing_file(tmp_path):
    path = tmp_path / "j.jsonl"
    opened(path).close()
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(UserError, match="newer tai-engine"):
        opened(path)
    with pytest.raises(UserError, match=r"none.jsonl.*cannot be read"):
        read_journal(tmp_path / "none.jsonl")


def test_another_file_of_tags_is_refused_unless_decisions_are_carried_over(tmp_path):
    path = tmp_path / "j.jsonl"
    with closing(opened(path)) as journal:
        journal.decide([Change(("a",), accept=("dog",))])
    with pytest.raises(UserError, match=r"other tags than those in 'tags.parquet'.*--carry-over"):
        opened(path, "1" * 64)
    with closing(opened(path, "1" * 64, carry_over=True)) as journal:
        assert journal.decisions["a"].present == ("dog",)
        journal.decide([Change(("b",), none=True)])
    with closing(opened(path, "1" * 64)) as journal:
        assert set(journal.decisions) == {"a", "b"}
    with pytest.raises(UserError, match="other tags"):
        opened(path)


def test_one_process_holds_a_journal(tmp_path):
    path = tmp_path / "j.jsonl"
    with closing(opened(path)), pytest.raises(UserError, match="Another `tai review` holds"):
        opened(path)
    opened(path).close()


def test_undo_of_what_somebody_else_has_changed_is_a_conflict(tmp_path):
    with closing(opened(tmp_path / "j.jsonl")) as journal:
        with pytest.raises(ConflictError):
            journal.undo(1)
        journal.decide([Change(("a",), none=True)])
        journal.decide([Change(("b",), none=True)])
        with pytest.raises(ConflictError):
            journal.undo(1)
        with pytest.raises(ConflictError):
            journal.redo(2)
        journal.undo(2)
        assert set(journal.decisions) == {"a"}


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_full_disk_is_said_and_leaves_the_journal_as_it_was(tmp_path, monkeypatch, failing):
    path = tmp_path / "j.jsonl"
    with closing(opened(path)) as journal:
        journal.decide([Change(("a",), accept=("dog",))])
        whole, write = path.read_bytes(), os.write

        def half_write(descriptor, data):
            if len(data) > 20:
                return write(descriptor, data[:20])
            raise OSError(errno.ENOSPC, "No space left on device")

        def failed_sync(_descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, failing, half_write if failing == "write" else failed_sync)
            with pytest.raises(UserError, match="disk is full"):
                journal.decide([Change(("b",), none=True)])
        assert path.read_bytes() == whole
        assert set(journal.decisions) == {"a"}
        journal.decide([Change(("b",), none=True)])
    assert set(read_decisions(path)) == {"a", "b"}


def test_threads_do_not_mix_their_lines(tmp_path):
    path = tmp_path / "j.jsonl"
    with closing(opened(path)) as journal:

        def work(name):
            for n in range(20):
                journal.decide([Change((f"{name}{n}",), none=True)])

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(read_decisions(path)) == 80


WRITER = """
import sys
from contextlib import closing
from tai_engine.review.decisions import Change
from tai_engine.review.journal import Journal
with closing(Journal(sys.argv[1], tags_file="t", tags_sha256="0" * 64, by="anna")) as journal:
    n = len(journal.decisions)
    while True:
        journal.decide([Change((f"picture-{n}",), accept=("dog",))])
        print(n, flush=True)
        n += 1
"""


def test_nothing_that_was_answered_is_lost_when_the_writer_is_killed(tmp_path):
    path, answered = tmp_path / "j.jsonl", -1
    for kill in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(5 + 7 * kill):
            answered = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        answered = max([answered, *map(int, writer.stdout.read().split())])
        writer.wait()
        kept = read_decisions(path)
        assert answered + 1 <= len(kept) <= answered + 2  # one more may have been written, but not answered
        assert set(kept) == {f"picture-{n}" for n in range(len(kept))}


def test_only_regular_files_are_read_and_newer_ones_are_not_damaged(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero", tmp_path / "none"):
        with pytest.raises(UserError, match=r"The journal '.*' cannot be read \(.*\): check the path\.$"):
            read_journal(path)
    newer = tmp_path / "newer"
    newer.write_text('{"journal": "tai-engine review", "version": 9, "tags_sha256": "x"}\n')
    with pytest.raises(UserError, match=r"^The journal '.*newer' was made by a newer tai-engine"):
        read_journal(newer)
