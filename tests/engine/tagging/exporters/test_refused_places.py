"""Whatever a place refuses: each format says it in a sentence, and nothing half-written is left or lost."""

import errno
import os
import resource
import signal
from pathlib import Path

import pytest

from tag_samples import PROVENANCE, batches
from tai_engine.errors import UserError
from tai_engine.tagging.exporters import EXPORTERS

NAMES = {"fiftyone": "labels.json", "huggingface": "metadata.jsonl"}


def place(name, folder):
    """Where a format writes; sidecars go into a folder that is there."""
    return folder if EXPORTERS[name].makes == "sidecars" else folder / NAMES.get(name, "out")


def contents(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize("name", EXPORTERS)
def test_a_full_disk(tmp_path, name, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"Cannot write .*: the disk is full"):
        EXPORTERS[name].export(batches(), place(name, tmp_path), PROVENANCE)
    assert [path for path, content in contents(tmp_path).items() if content is not False] == []


@pytest.mark.parametrize("name", EXPORTERS)
def test_a_write_that_fails_half_way_keeps_the_older_file(tmp_path, name):
    """The system itself refuses, so that it goes through whatever library writes."""
    target = place(name, tmp_path)
    if EXPORTERS[name].makes != "folder":
        EXPORTERS[name].export(batches(), target, PROVENANCE)
    before = contents(tmp_path)
    longer = (("a.jpg", (("dog", 0.5, 0.5), ("and/or", 0.25, 0.25))),)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(UserError, match=r"Cannot write .*: the file system allows no file of this size"):
            EXPORTERS[name].export(batches(longer), target, PROVENANCE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert contents(tmp_path) == before


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no folder that takes nothing from anybody")
@pytest.mark.parametrize("name", EXPORTERS)
def test_a_folder_that_takes_nothing(name):
    """Even from an administrator; it is said before the work, and by the work."""
    target = place(name, Path("/proc/no-such-thing"))
    with pytest.raises(UserError, match=r"Cannot write /proc/no-such-thing"):
        EXPORTERS[name].check_place(target)
    with pytest.raises(UserError, match=r"Cannot write /proc/no-such-thing"):
        EXPORTERS[name].export(batches(), target, PROVENANCE)


def test_a_folder_in_place_of_the_one_file_that_a_tool_reads(tmp_path):
    """Whether it is there or not, and whether it was written to before: the check and the work agree."""
    exporter = EXPORTERS["huggingface"]
    for folder in (tmp_path, tmp_path / "new", tmp_path / "new"):
        exporter.check_place(folder)
        exporter.export(batches(), folder, PROVENANCE)
        assert contents(folder)["metadata.jsonl"] == contents(tmp_path)["metadata.jsonl"] != b""
    with pytest.raises(UserError, match=r"reads metadata\.jsonl only"):
        exporter.check_place(tmp_path / "tags.jsonl")
