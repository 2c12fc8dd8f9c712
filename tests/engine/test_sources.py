import inspect
import json
import logging
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tai_engine.errors import UserError
from tai_engine.item_ids import path_from_id
from tai_engine.sources import IMAGE_SUFFIXES, SourceItem, open_source


def touch(folder: Path, *names: str | bytes) -> None:
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")


def ids(spec) -> list[str]:
    return [item.id for item in open_source(spec)]


def test_a_folder_in_the_order_of_the_paths_bytes(tmp_path):
    touch(tmp_path, "b.jpg", "a/2.PNG", "a/1.jpeg", "a.jpg", "a!/x.webp", "Z.gif", "a/deep/er/3.tif", "ä.jpg")
    expected = ["Z.gif", "a!/x.webp", "a.jpg", "a/1.jpeg", "a/2.PNG", "a/deep/er/3.tif", "b.jpg", "ä.jpg"]
    source = open_source(tmp_path)
    assert [item.id for item in source] == expected == sorted(expected, key=os.fsencode)
    assert list(source) == list(source)
    assert source.estimate_count() == 8
    assert source.describe() == f"the folder {tmp_path}"


def test_items_carry_location_size_and_time(tmp_path):
    touch(tmp_path, "s/a.jpg")
    os.utime(tmp_path / "s" / "a.jpg", ns=(5, 1_234_567_890_123_456_789))
    assert list(open_source(str(tmp_path))) == [
        SourceItem("s/a.jpg", str(tmp_path / "s" / "a.jpg"), 5, 1_234_567_890_123_456_789)
    ]


def test_other_files_and_hidden_ones_are_passed_over(tmp_path):
    touch(tmp_path, "a.jpg", "a.txt", "metadata.jsonl", ".b.jpg", ".git/c.jpg", "__MACOSX/._a.jpg", "jpg", "d.jpg.part")
    (tmp_path / "folder.jpg").mkdir()
    touch(tmp_path, "folder.jpg/e.jpg")
    assert ids(tmp_path) == ["a.jpg", "folder.jpg/e.jpg"]


def test_every_suffix_counts_in_any_case(tmp_path):
    touch(tmp_path, *(f"{i}{s.upper()}" for i, s in enumerate(IMAGE_SUFFIXES)))
    assert open_source(tmp_path).estimate_count() == len(IMAGE_SUFFIXES)


def test_names_that_are_not_utf8_open_again(tmp_path):
    touch(tmp_path, b"caf\xe9.jpg", "caf%E9.jpg")
    items = list(open_source(tmp_path))
    assert [item.id for item in items] == ["caf%25E9.jpg", "caf%E9.jpg"]
    for item in items:
        assert Path(item.location).read_bytes() == b"12345"
        assert str(tmp_path / path_from_id(item.id)) == item.location


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "self").symlink_to("self")
    (tmp_path / "b" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert ids(tmp_path) == ["a/1.jpg", "a/to_b/2.jpg", "a/to_b/gone.jpg", "b/2.jpg", "b/gone.jpg"]
    gone = list(open_source(tmp_path))[-1]
    assert (gone.size, gone.modified_ns) == (None, None)


def test_folders_may_be_deeper_than_the_stack(tmp_path):
    deep = "d/" * 150 + "a.jpg"
    touch(tmp_path, deep)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        found = ids(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert found == [deep]


def test_a_subfolder_that_cannot_be_read_is_a_warning(tmp_path, monkeypatch, caplog):
    touch(tmp_path, "a.jpg", "closed/b.jpg", "open/c.jpg")
    real = os.scandir

    def scandir(path):
        if os.fsencode(path).rstrip(b"/").endswith(b"closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with caplog.at_level(logging.WARNING):
        assert ids(tmp_path) == ["a.jpg", "open/c.jpg"]
    assert "closed/' cannot be read and is left out: Permission denied" in caplog.text


def test_a_root_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "scandir", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "There is no folder or file .*nowhere"),
        ("empty", r"has no pictures in it or below it: their names must end in one of \.jpg"),
        ("notes.txt", r"neither a folder, nor a list \(\.jsonl"),
        ("archive.tar", "tar archives .* yet: unpack it"),
        ("shards/{000..009}.tar", "tar archives .* yet"),
    ],
)
def test_paths_that_are_no_source(tmp_path, spec, message):
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    touch(tmp_path, "empty/notes.txt", "empty/.hidden.jpg", "notes.txt")
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / spec)


def test_addresses_are_not_there_yet():
    with pytest.raises(UserError, match="address 's3://bucket/photos' yet: copy or mount"):
        open_source("s3://bucket/photos")


def test_a_single_picture(tmp_path):
    touch(tmp_path, "x.JPG")
    source = open_source(tmp_path / "x.JPG")
    assert [(item.id, item.size) for item in source] == [("x.JPG", 5)]
    assert source.estimate_count() == 1


def test_lists_of_all_kinds_give_the_same_items(tmp_path):
    touch(tmp_path, "s/a.jpg", "b.jpg")
    paths, names = ["b.jpg", "./s/a.jpg", str(tmp_path / "s" / "a.jpg"), "gone.jpg"], ["", "", "again", "7"]
    rows = list(zip(paths, names, strict=True))
    (tmp_path / "l.jsonl").write_text("".join(json.dumps({"file_name": p, "id": n}) + "\n" for p, n in rows))
    (tmp_path / "l.csv").write_text("id,image\n" + "".join(f"{n},{p}\n" for p, n in rows))
    (tmp_path / "l.tsv").write_text("id\tlocation\n" + "".join(f"{n}\t{p}\n" for p, n in rows))
    pq.write_table(pa.table({"path": paths, "id": [n or None for n in names]}), tmp_path / "l.parquet")
    for suffix in ("jsonl", "csv", "tsv", "parquet"):
        source = open_source(tmp_path / f"l.{suffix}")
        assert source.estimate_count() == 4
        items = list(source)
        assert items == list(source)
        assert [(item.id, item.size) for item in items] == [("b.jpg", 5), ("s/a.jpg", 5), ("again", 5), ("7", None)]
        assert [Path(item.location).name for item in items] == ["b.jpg", "a.jpg", "a.jpg", "gone.jpg"]
        assert Path(items[1].location).samefile(tmp_path / "s" / "a.jpg")


def test_list_paths_are_relative_to_the_list_wherever_one_stands(tmp_path, monkeypatch):
    touch(tmp_path, "data/a.jpg")
    (tmp_path / "data" / "metadata.jsonl").write_text('{"file_name": "a.jpg", "labels": ["cat"]}\n')
    monkeypatch.chdir(tmp_path)
    assert [(item.id, item.size) for item in open_source("data/metadata.jsonl")] == [("a.jpg", 5)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"path": "a.jpg"}', '{"path": "b.jpg"}', '{"path": "./a.jpg"}'], "'a.jpg' occurs in line 1 and in line 3"),
        (['{"path": "a.jpg", "id": 1}', '{"path": "b.jpg", "id": "1"}'], "'1' occurs in line 1 and in line 2"),
        (['{"path": "a.jpg"}', '{"url": "b.jpg"}'], "In line 2 of .* no column names the picture.*path, file_name"),
        (['{"path": {"bytes": "x"}}'], "The path in line 1 .* must be a path as text"),
        (
            ['{"path": "https://example.org/a.jpg"}'],
            "address 'https://example.org/a.jpg'; .* not be read|addresses yet",
        ),
        (["", " "], "has no rows"),
    ],
)
def test_lists_with_mistakes_are_refused_before_the_first_item(tmp_path, lines, message):
    path = tmp_path / "l.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=message):
        open_source(path)


def test_a_path_that_no_file_system_encodes_is_an_item_without_a_file(tmp_path):
    (tmp_path / "l.jsonl").write_text('{"path": "\\ud800.jpg", "id": "x"}\n')
    assert [(item.id, item.size) for item in open_source(tmp_path / "l.jsonl")] == [("x", None)]
