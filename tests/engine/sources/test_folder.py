import inspect
import logging
import os
import sys
from pathlib import Path

import pytest

from tai_engine.errors import ItemError, UserError
from tai_engine.sources import IMAGE_SUFFIXES, SourceItem, SourceOptions, open_source
from tai_engine.sources.walk_notes import is_system_folder, suffix_of


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


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "it is empty; give the name of a file or folder, such as '*.tmp'"),
        ("//", "it is empty; give the name of a file or folder, such as '*.tmp'"),
        ("[", "it has a '[' without its ']'; write '[[]' for that letter itself"),
        ("cam[1", "it has a '[' without its ']'; write '[[]' for that letter itself"),
        ("[a]/[!]", "it has a '[' without its ']'; write '[[]' for that letter itself"),
        ("cam[9-0].jpg", "[9-0] stands for no letter; write its range the other way around"),
        ("./cam1", "no path has a part '.' from the source on; leave it out"),
        ("../cam1/*", "no path has a part '..' from the source on; leave it out"),
        ("cam1//*.jpg", "it has two slashes in a row; write one"),
    ],
)
def test_a_pattern_that_fits_nothing_is_refused(tmp_path, pattern, why):
    touch(tmp_path, "a.jpg")
    with pytest.raises(UserError) as refused:
        open_source(str(tmp_path), SourceOptions(exclude=("*.tmp", pattern)))
    assert str(refused.value) == f"The pattern {pattern!r} of --exclude fits nothing: {why}."


def test_patterns_with_brackets_that_fit_something(tmp_path):
    touch(tmp_path, "[.jpg", "].jpg", "0.jpg", "5.jpg", "z.jpg", "cam1/a.jpg")
    for pattern, left in (
        ("[[]*", {"].jpg", "0.jpg", "5.jpg", "z.jpg", "cam1/a.jpg"}),
        ("[]].jpg", {"[.jpg", "0.jpg", "5.jpg", "z.jpg", "cam1/a.jpg"}),
        ("[!0-5].jpg", {"0.jpg", "5.jpg"}),
        ("/cam1/", {"[.jpg", "].jpg", "0.jpg", "5.jpg", "z.jpg"}),
        ("cam[1-9]/a.*", {"[.jpg", "].jpg", "0.jpg", "5.jpg", "z.jpg"}),
    ):
        assert {one.id for one in open_source(str(tmp_path), SourceOptions(exclude=(pattern,)))} == left


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
    source = open_source(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert [item.id for item in source] == ["a.jpg", "open/c.jpg"]
    assert source.left_out == 1
    source.estimate_count()
    assert source.left_out == 1
    monkeypatch.setattr(os, "scandir", real)
    assert len(list(source)) == 3
    assert source.left_out == 0
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
        ("", "There is no folder or file ''"),
        ("notes.txt/x", r"notes\.txt/x' cannot be read \(Not a directory\): check the path and your rights"),
        ("x" * 300, r"cannot be read \(File name too long\)"),
        ("archive.tar", "There is no folder or file .*archive.tar': check the path"),
        ("archives", r"no pictures but tar archives in it: name these, as '.*archives/\*\.tar\.gz' in quotation marks"),
    ],
)
def test_paths_that_are_no_source(tmp_path, spec, message):
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    touch(tmp_path, "empty/notes.txt", "empty/.hidden.jpg", "notes.txt", "archives/b-1.tar.gz", "archives/c.tar")
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / spec if spec else "")


def test_a_single_picture(tmp_path):
    touch(tmp_path, "x.JPG")
    source = open_source(tmp_path / "x.JPG")
    assert [(item.id, item.size) for item in source] == [("x.JPG", 5)]
    assert source.estimate_count() == 1


def test_a_folder_with_metadata_is_a_folder_of_pictures_with_the_same_ids(tmp_path):
    touch(tmp_path, "train/a.jpg", "train/b b.png", "train/c.jpg")
    rows = ['{"file_name": "a.jpg", "text": "x"}', '{"file_name": "b b.png"}']
    (tmp_path / "train" / "metadata.jsonl").write_text("\n".join(rows))
    (tmp_path / "train" / "metadata.csv").write_text("file_name,text\na.jpg,x\nb b.png,y\n")
    assert ids(tmp_path / "train") == ["a.jpg", "b b.png", "c.jpg"]
    assert (
        ids(tmp_path / "train" / "metadata.jsonl") == ids(tmp_path / "train" / "metadata.csv") == ["a.jpg", "b b.png"]
    )
    assert list(open_source(tmp_path / "train" / "metadata.jsonl")) == list(open_source(tmp_path / "train"))[:2]


def test_a_file_address_is_a_path(tmp_path):
    touch(tmp_path, "a b/1.jpg", "a%20c/2.jpg")
    assert (
        ids((tmp_path / "a b").as_uri())
        == ids(f"file://{tmp_path}/a b")
        == ids(f"file://localhost{tmp_path}/a b")
        == ["1.jpg"]
    )
    assert ids(f"FILE://{tmp_path}/a%20c") == ["2.jpg"]
    assert [item.location for item in open_source((tmp_path / "a b" / "1.jpg").as_uri())] == [f"{tmp_path}/a b/1.jpg"]


def test_a_link_that_leads_nowhere_may_have_led_to_pictures(tmp_path, caplog):
    touch(tmp_path, "a.jpg")
    (tmp_path / "nas").symlink_to(tmp_path / "not-mounted")
    (tmp_path / "nas.old").symlink_to(tmp_path / "not-mounted")
    source = open_source(tmp_path)
    source.estimate_count()
    assert caplog.messages == []
    assert [item.id for item in source] == ["a.jpg"]
    assert source.left_out == 2
    assert sorted(caplog.messages) == [
        f"the folder '{tmp_path / name}' cannot be read and is left out: the link leads nowhere"
        for name in ("nas", "nas.old")
    ]


def test_only_regular_files_are_looked_into(tmp_path):
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.jpg")
    source = open_source(tmp_path)
    assert [item.id for item in source] == ["a.jpg", "pipe.jpg"]
    with pytest.raises(ItemError, match="not-a-file: it is no regular file"):
        source.reader(list(source)[1])


@pytest.mark.parametrize(
    ("path", "is_system"),
    [
        ("@eaDir", True), ("x/@EADIR", True), ("#recycle", True), ("$RECYCLE.BIN", True), ("__MACOSX", True),
        ("System Volume Information", True), ("found.000", True), ("a/Android/data", True), ("Android", False),
        ("data", False), ("Android/media", False), ("Mine.photoslibrary/resources", True),
        ("Mine.photoslibrary/originals", False), ("Catalog Previews.lrdata", True), ("x\\@eaDir", True),
        ("recycle", False), ("found.00", False), ("eaDir", False), ("DCIM", False),
    ],
)  # fmt: skip
def test_folders_of_systems(path, is_system):
    assert is_system_folder(path) == is_system


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.jpg", ".jpg"), ("a.tar.GZ", ".gz"), ("a.jpg_large", ".jpg_large"), ("a", ""), (".a", ""), ("a.", ""),
        ("Mr. Smith", ""), ("a.b1c2d3e4f5a6b7c8", ""), ("a.jpg:large", ""), ("a.jpg~", ".jpg~"),
    ],
)  # fmt: skip
def test_suffixes(name, suffix):
    assert suffix_of(name) == suffix
