import logging
from datetime import UTC, datetime, timedelta, timezone

import pytest

from tai_engine.addresses import child_of, join, local_path, name_of, parent_of
from tai_engine.errors import ItemError, UserError
from tai_engine.sources import SourceItem, address_folder, open_source
from tai_engine.sources.file_info import modified_ns, nanoseconds, size_of


@pytest.mark.parametrize(
    ("folder", "relative", "joined"),
    [
        ("s3://bucket/a", "b.jpg", "s3://bucket/a/b.jpg"),
        ("s3://bucket", "./b//c.jpg", "s3://bucket/b/c.jpg"),
        ("s3://bucket/a/", "../b.jpg", "s3://bucket/b.jpg"),
        ("s3://bucket/a", "../../../other/b.jpg", "s3://bucket/other/b.jpg"),
        ("memory:///a", "b?.jpg", "memory:///a/b?.jpg"),
        ("zip://in::s3://bucket/a.zip", "b.jpg", "zip://in/b.jpg::s3://bucket/a.zip"),
        ("simplecache::s3://bucket/a", "b.jpg", "simplecache::s3://bucket/a/b.jpg"),
        ("https://h/a", "b c%20?#é.jpg", "https://h/a/b%20c%2520%3F%23%C3%A9.jpg"),
        ("https://h", "../../b.jpg", "https://h/b.jpg"),
        ("https://h/a/", "../b.jpg", "https://h/b.jpg"),
    ],
)
def test_names_are_joined_to_folders(folder, relative, joined):
    assert join(folder, relative) == joined


def test_parts_of_addresses():
    assert name_of("https://h/a%20b/c%20d.jpg?size=1/2") == "c d.jpg"
    assert name_of("s3://b/a%20b.jpg") == "a%20b.jpg"
    assert name_of("zip://a/b.jpg::s3://b/c.zip") == "b.jpg"
    assert name_of("simplecache::s3://b/c.tar") == "c.tar"
    assert parent_of("https://h/a/l.csv?x=1") == "https://h/a"
    assert parent_of("s3://b/l.csv") == "s3://b"
    assert child_of("http://h/a/", "b%20c.jpg") == "http://h/a/b%20c.jpg"
    assert child_of("memory://", "b.jpg") == "memory://b.jpg"
    assert child_of("zip://::memory://a.zip", "b/c.jpg") == "zip://b/c.jpg::memory://a.zip"
    assert local_path("s3://b/a.jpg") is None
    assert local_path("file:///no/where%20at%20all.jpg") == "/no/where at all.jpg"


def test_times_of_files_however_they_are_told():
    moment = datetime(2001, 9, 9, 1, 46, 40, 250_000, tzinfo=UTC)
    expected = 1_000_000_000_250_000_000
    assert modified_ns({"LastModified": moment, "created": 5}) == expected
    assert modified_ns({"LastModified": moment.astimezone(timezone(timedelta(hours=-3)))}) == expected
    assert modified_ns({"created": moment.replace(tzinfo=None)}) == expected
    assert modified_ns({"mtime": 1_000_000_000.25}) == expected
    assert modified_ns({"updated": "2001-09-09T01:46:40.250Z"}) == expected
    assert modified_ns({"last_modified": "Sun, 09 Sep 2001 01:46:40 GMT"}) == 1_000_000_000_000_000_000
    for value in ("yesterday", "a, b", (2001, 9, 9), True, float("nan"), float("inf"), 1e30, -1e30, None, b"x"):
        assert modified_ns({"mtime": value}) is None
    assert modified_ns({}) is None
    assert nanoseconds(-1.5) == -1_500_000_000
    assert (size_of({"size": 3}), size_of({"size": None}), size_of({})) == (3, None, None)


def test_a_folder_has_the_ids_of_a_local_copy(tmp_path, memory):
    names = ["b.jpg", "a/2.PNG", "a/1.jpeg", "a.jpg", "a!/x y%41.webp", "Z.gif", "a/deep/er/3.tif", "ä.jpg", "n.txt"]
    names += [".h.jpg", ".g/c.jpg", "q?#.jpg"]
    for name in names:
        memory.pipe(f"/p/{name}", b"12345")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    local = open_source(tmp_path)
    for address in ("memory://p", "memory:///p/"):
        source = open_source(address)
        items = list(source)
        assert [item.id for item in items] == [item.id for item in local]
        assert items == list(source)
        assert items[0].location == f"{address.rstrip('/')}/Z.gif"
        assert source.describe() == f"the folder {address}"
        assert source.estimate_count() == 9
        assert [source.reader(item) for item in items] == [b"12345"] * 9
        assert all(item.size == 5 and item.modified_ns and item.modified_ns > 1e18 for item in items)


def test_the_root_of_a_file_system_and_archives_inside_addresses(tmp_path, memory):
    memory.pipe({"/a.jpg": b"1", "/s/b.jpg": b"22"})
    assert [(i.id, i.location) for i in open_source("memory://")] == [
        ("a.jpg", "memory://a.jpg"),
        ("s/b.jpg", "memory://s/b.jpg"),
    ]
    with fsspec_zip(memory, "/x.zip") as archive:
        archive.writestr("t/c.jpg", b"333")
        archive.writestr("t/u/d.jpg", b"4444")
    for address, ids in (
        ("zip://::memory://x.zip", ["t/c.jpg", "t/u/d.jpg"]),
        ("zip://t::memory://x.zip", ["c.jpg", "u/d.jpg"]),
    ):
        source = open_source(address)
        assert [(item.id, item.size) for item in source] == list(zip(ids, (3, 4), strict=True))
        assert [source.reader(item) for item in source] == [b"333", b"4444"]


def fsspec_zip(memory, path):
    import zipfile

    return zipfile.ZipFile(memory.open(path, "wb"), "w")


def test_one_picture(memory):
    memory.pipe("/p/a b.jpg", b"123")
    source = open_source("memory://p/a b.jpg")
    [item] = source
    assert (item.id, item.location, item.size) == ("a b.jpg", "memory://p/a b.jpg", 3)
    assert source.estimate_count() == 1
    assert source.reader(item) == b"123"
    with pytest.raises(UserError, match=r"picture 'memory://p/none\.jpg' cannot be read \(there is nothing at this"):
        open_source("memory://p/none.jpg")


def test_names_that_look_like_chains_fail_rather_than_give_another_file(memory):
    memory.pipe({"/p/a": b"wrong", "/p/a::b.jpg": b"right", "/p/c.jpg": b"1"})
    source = open_source("memory://p")
    items = list(source)
    assert [item.id for item in items] == ["a::b.jpg", "c.jpg"]
    with pytest.raises(ItemError, match="unreadable: fsspec reads '::' in a name as a chain"):
        source.reader(items[0])


def test_sizes_bound_what_is_read(memory):
    from tai_engine.sources import ItemReader

    memory.pipe("/a.jpg", b"0123456789")
    for size in (None, 10):
        assert ItemReader(max_bytes=10)(SourceItem("a", "memory://a.jpg", size)) == b"0123456789"
        with pytest.raises(ItemError, match="too-large: "):
            ItemReader(max_bytes=9)(SourceItem("a", "memory://a.jpg", size))


def test_subfolders_that_cannot_be_listed_are_warned_of(memory, monkeypatch, caplog):
    memory.pipe({"/p/a.jpg": b"1", "/p/closed/b.jpg": b"1", "/p/open/c.jpg": b"1"})
    real = type(memory).ls

    def ls(self, path, **kwargs):
        if path.endswith("closed"):
            raise PermissionError("Access Denied")
        return real(self, path, **kwargs)

    monkeypatch.setattr(type(memory), "ls", ls)
    source = open_source("memory://p")
    with caplog.at_level(logging.WARNING):
        assert [item.id for item in source] == ["a.jpg", "open/c.jpg"]
    assert source.left_out == 1
    assert "the folder 'memory://p/closed/' cannot be listed and is left out: Access Denied" in caplog.text


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("memory://nowhere", r"folder 'memory://nowhere' cannot be listed \(there is nothing at this address\)"),
        (
            "memory://texts",
            r"folder 'memory://texts' has no pictures in it or below it: their names must end in one of \.jpg",
        ),
        ("memory://tars", r"has no pictures but tar archives in it: name these, as 'memory://tars/\*\.tar'"),
        ("memroy://x", "Unknown kind of address 'memroy'; did you mean 'memory'"),
        ("memory://tars/*.gz", r"No archive fits the pattern 'memory://tars/\*\.gz'"),
    ],
)
def test_addresses_that_are_no_source(memory, address, message):
    memory.pipe({"/texts/a.txt": b"1", "/tars/a.tar": b"1"})
    with pytest.raises(UserError, match=message):
        open_source(address)


@pytest.mark.parametrize(
    ("address", "package"), [("s3://bucket/photos", "s3fs"), ("https://h/a.jpg", "aiohttp"), ("gs://b/*.tar", "gcsfs")]
)
def test_packages_that_are_missing_are_named(address, package, tmp_path, monkeypatch):
    import fsspec

    def missing(*_, **__):
        raise ImportError("Install this")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    message = rf"needs the package {package}, which is not installed: pip install {package}\."
    with pytest.raises(UserError, match=message):
        open_source(address)
    (tmp_path / "l.csv").write_text(f"path\na.jpg\n{address}\n")
    with pytest.raises(UserError, match=f"In line 3 of .*{message}"):
        open_source(tmp_path / "l.csv")


def test_a_folder_that_is_too_deep_is_left_out(memory, monkeypatch, caplog):
    monkeypatch.setattr(address_folder, "_MAX_DEPTH", 3)
    memory.pipe({"/d/a.png": b"1", "/d/b/c/d.png": b"2", "/d/b/c/e/f.png": b"3"})
    source = open_source("memory://d")
    assert [item.id for item in source] == ["a.png", "b/c/d.png"]
    assert source.left_out == 1
    assert caplog.messages == ["the folder 'memory://d/b/c/e/' is too deep and is left out"]


def test_a_file_without_a_suffix_that_cannot_be_looked_into_is_none(memory, monkeypatch):
    memory.pipe({"/d/a.png": b"1", "/d/0f3": b"\x89PNG\r\n\x1a\n", "/d/0f4": b"words"})
    source = open_source("memory://d")
    assert [item.id for item in source] == ["0f3", "a.png"]
    assert source.estimate_count() == 1  # looking into each would take as long as reading it

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(memory), "cat_file", refuse)
    assert [item.id for item in source] == ["a.png"]
    assert list(source.remarks) == ["Passed over, being no pictures by their names: 2 without a suffix."]
