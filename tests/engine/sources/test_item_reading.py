import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tai_engine.errors import REASONS, ItemError
from tai_engine.regular_files import error_of_system
from tai_engine.sources import ItemReader, SourceItem, open_source


def reason(reader: ItemReader, item: SourceItem) -> str:
    with pytest.raises(ItemError) as caught:
        reader(item)
    assert caught.value.reason in REASONS
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.reason, str(copy)) == (caught.value.reason, str(caught.value))
    return str(caught.value)


def test_bytes_of_files_parts_of_files_and_data(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"0123456789")
    reader = open_source(tmp_path).reader
    assert reader(SourceItem("a", str(path))) == b"0123456789"
    assert reader(SourceItem("a", str(path), size=4)) == b"0123456789"  # it has grown since it was listed
    assert reader(SourceItem("a", str(path), size=4, offset=0)) == b"0123"
    assert reader(SourceItem("a", str(path), size=3, offset=7)) == b"789"
    assert reader(SourceItem("a", "nowhere", data=b"xy")) == b"xy"


def test_what_cannot_be_read_has_a_reason(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"0123456789")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    reader = ItemReader(max_bytes=9)
    assert reason(reader, SourceItem("a", str(path))) == "too-large: 10 bytes, 9 are allowed"
    assert reason(reader, SourceItem("a", str(path), size=8, offset=5)) == "truncated: 5 of 8 bytes are there"
    assert reason(reader, SourceItem("a", str(path), size=8, offset=500)) == "truncated: 0 of 8 bytes are there"
    assert reason(reader, SourceItem("a", str(path), size=10, offset=0)) == "too-large: 10 bytes, 9 are allowed"
    assert reason(reader, SourceItem("a", str(path), size=0, offset=3)) == "empty: the file has no bytes"
    assert reason(reader, SourceItem("a", str(tmp_path / "empty.jpg"))) == "empty: the file has no bytes"
    assert reason(reader, SourceItem("a", "", data=b"")) == "empty: the file has no bytes"
    assert reason(reader, SourceItem("a", str(tmp_path / "none.jpg"))) == "missing: No such file or directory"
    assert reason(reader, SourceItem("a", str(path / "b.jpg"))) == "missing: Not a directory"
    assert reason(reader, SourceItem("a", str(tmp_path / "loop.jpg"))).startswith("missing: ")
    assert reason(reader, SourceItem("a", "a\0b")).startswith("missing: no file can have this name")
    assert reason(reader, SourceItem("a", "\ud800")).startswith("missing: no file can have this name")
    assert reason(reader, SourceItem("a", str(tmp_path))) == "not-a-file: it is a folder"
    assert reason(reader, SourceItem("a", str(tmp_path / "pipe.jpg"))) == "not-a-file: it is no regular file"
    assert reason(reader, SourceItem("a", "x", failure="broken: a: b")) == "broken: a: b"


def test_errors_of_the_system():
    assert str(error_of_system(PermissionError(13, "Permission denied"))) == "no-permission: Permission denied"
    assert str(error_of_system(OSError(5, "Input/output error"))) == "unreadable: Input/output error"
    assert str(error_of_system(OSError("odd"))) == "unreadable: odd"


def test_workers_load_little(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"12345")
    source = open_source(tmp_path)
    (tmp_path / "work").write_bytes(pickle.dumps((source.reader, next(iter(source)))))
    code = (
        "import pickle, sys; reader, item = pickle.load(open(sys.argv[1], 'rb')); assert reader(item) == b'12345';"
        "print(*sorted({'torch', 'open_clip', 'PIL', 'pyarrow', 'fsspec', 'aiohttp', 'zarr'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code, tmp_path / "work"], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_locations_are_paths_for_open(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"12345")
    assert [Path(item.location).read_bytes() for item in open_source(tmp_path)] == [b"12345"]
