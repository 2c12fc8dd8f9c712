import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tai_engine.errors import ItemError, UserError
from tai_engine.sources import SourceItem, SourceOptions, open_source
from tai_engine.sources.allowed import Allowed
from tai_engine.tables import TableOptions
from tai_engine.tables.recognise import format_of_name


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")


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
        (['{"path": "a.jpg"}', '{"path": "b.jpg", "id": "a.jpg"}'], "'a.jpg' occurs in line 1 and in line 2.*two pict"),
        (['{"path": "a.jpg", "id": 1}', '{"path": "b.jpg", "id": "1"}'], "'1' occurs in line 1 and in line 2"),
        (['{"path": "a.jpg"}', '{"url": "b.jpg"}'], "In line 2 of .* no column names the picture.*path, file_name"),
        (['{"path": "a.jpg"}', '{"path": null}'], "In line 2 of .* for 'path' is empty or missing there: fill it in"),
        (['{"path": {"bytes": "x"}}'], "The path in line 1 .* must be a path as text"),
        (
            ['{"path": "a.jpg"}', '{"path": "nowhere-at-all://a.jpg"}'],
            "In line 2 of .*: Unknown kind of address 'nowhere-at",
        ),
        (["", " "], "has no rows"),
    ],
)
def test_lists_with_mistakes_are_refused_before_the_first_item(tmp_path, lines, message):
    path = tmp_path / "l.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=message):
        open_source(path)


def test_a_picture_on_several_rows_is_taken_once(tmp_path, caplog):
    """As in tables with a caption or a label a row."""
    touch(tmp_path, "a.jpg", "b.jpg")
    path = tmp_path / "l.csv"
    path.write_text(
        "path;caption\na.jpg;a, b\n./b.jpg;c\na.jpg;d\nb.jpg;e\na.jpg;f\ngone.jpg;g\nmemory://x;\nmemory://x;"
    )
    source = open_source(path)
    assert source.estimate_count() == 4
    assert [item.id for item in source] == ["a.jpg", "b.jpg", "gone.jpg", "memory://x"] == [item.id for item in source]
    assert "has 3 pictures on several rows: each is taken once" in caplog.text


def test_a_path_that_no_file_system_encodes_is_an_item_without_a_file(tmp_path):
    (tmp_path / "l.jsonl").write_text('{"path": "\\ud800.jpg", "id": "x"}\n')
    assert [(item.id, item.size) for item in open_source(tmp_path / "l.jsonl")] == [("x", None)]


def test_rows_may_be_addresses_in_any_column(tmp_path, memory):
    touch(tmp_path, "a b.jpg")
    memory.pipe("/x/a%20b.jpg", b"remote")
    rows = [{"image": "memory://x/a%20b.jpg"}, {"path": (tmp_path / "a b.jpg").as_uri()}, {"file": "a b.jpg"}]
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = open_source(tmp_path / "l.jsonl")
    items = list(source)
    assert items[0] == SourceItem("memory://x/a%20b.jpg", "memory://x/a%20b.jpg")
    assert [item.id for item in items[1:]] == [(tmp_path / "a b.jpg").as_uri(), "a b.jpg"]
    assert [item.location for item in items[1:]] == [f"{tmp_path}/a b.jpg"] * 2
    assert list(map(source.reader, items)) == [b"remote", b"12345", b"12345"]


def test_a_list_behind_an_address(tmp_path, memory):
    memory.pipe({"/data/lists/a.jpg": b"1", "/data/photos/b.jpg": b"22", "/other.jpg": b"333"})
    rows = [
        {"path": "a.jpg"},
        {"path": "../photos/b.jpg", "id": 7},
        {"path": "memory://other.jpg"},
        {"path": "gone.jpg"},
    ]
    memory.pipe("/data/lists/l.jsonl", "\n".join(map(json.dumps, rows)).encode())
    table = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist(rows[:1] * 3000 + [{"path": "end.jpg"}]).append_column("id", pa.array(range(3001))), table
    )
    memory.pipe("/data/lists/l.parquet", table.getvalue())
    source = open_source("memory://data/lists/l.jsonl")
    assert source.describe() == "the list memory://data/lists/l.jsonl"
    assert source.estimate_count() == 4
    items = list(source)
    assert items == list(source)
    assert [(item.id, item.location) for item in items] == [
        ("a.jpg", "memory://data/lists/a.jpg"),
        ("7", "memory://data/photos/b.jpg"),
        ("memory://other.jpg", "memory://other.jpg"),
        ("gone.jpg", "memory://data/lists/gone.jpg"),
    ]
    assert list(map(source.reader, items[:3])) == [b"1", b"22", b"333"]
    with pytest.raises(ItemError, match="missing: there is nothing at this address"):
        source.reader(items[3])
    long = list(open_source("memory://data/lists/l.parquet"))
    assert (len(long), long[-1].id, long[-1].location) == (3001, "3000", "memory://data/lists/end.jpg")


def test_mistakes_in_a_list_behind_an_address_name_the_address(memory):
    memory.pipe("/l.csv", b"path\n/a.jpg\n")
    with pytest.raises(UserError, match=r"In line 2 of 'memory://l\.csv' stands the absolute path '/a\.jpg'"):
        open_source("memory://l.csv")
    memory.pipe("/l.csv", b"path\n\xe9.jpg\n")
    with pytest.raises(UserError, match=r"Line 2 of the list 'memory://l\.csv' is not UTF-8"):
        open_source("memory://l.csv")
    with pytest.raises(
        UserError, match=r"list 'memory://none.csv' cannot be read \(there is nothing at this address\)"
    ):
        open_source("memory://none.csv")


def test_paths_of_windows_are_found(tmp_path):
    touch(tmp_path, "images/sub/a.jpg", "b\\c.jpg", "b/c.jpg")
    (tmp_path / "l.csv").write_text('path\nimages\\sub\\a.jpg\nb\\c.jpg\n"images\\gone.jpg"\n')
    items = list(open_source(tmp_path / "l.csv"))
    assert [item.id for item in items] == ["images/sub/a.jpg", "b\\c.jpg", "images/gone.jpg"]  # one is called so here
    assert [Path(item.location).exists() for item in items] == [True, True, False]
    assert Path(items[0].location).samefile(tmp_path / "images" / "sub" / "a.jpg")


@pytest.mark.parametrize(("there", "written"), [("é.jpg", "e\u0301.jpg"), ("e\u0301.jpg", "é.jpg")])
def test_accents_of_another_system_are_found(tmp_path, there, written):
    (tmp_path / "café").mkdir()
    touch(tmp_path, there)
    (tmp_path / "l.jsonl").write_text(json.dumps({"path": written}) + "\n")
    (item,) = open_source(tmp_path / "l.jsonl")
    assert (item.id, item.size) == (there, 5)  # as the folder calls it
    (tmp_path / there).unlink()
    (item,) = open_source(tmp_path / "l.jsonl")
    assert (item.id, item.size) == (written, None)


def test_the_users_column_and_separator_count(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "l.csv").write_text("picture;path\na.jpg;no.jpg\nb.jpg;no.jpg\n")
    source = open_source(tmp_path / "l.csv", SourceOptions(column="picture"))
    assert [(item.id, item.size) for item in source] == [("a.jpg", 5), ("b.jpg", 5)]
    (tmp_path / "l.txt").write_text("picture;path\na.jpg;no.jpg\n")
    (item,) = open_source(tmp_path / "l.txt", SourceOptions(column="picture", table=TableOptions(separator=";")))
    assert (item.id, item.size) == ("a.jpg", 5)
    with pytest.raises(UserError, match=r"column in the list '.*l\.csv': 'photo'.*'path'.*'picture'"):
        open_source(tmp_path / "l.csv", SourceOptions(column="photo"))
    (tmp_path / "l.csv").write_text("foto,text\na.jpg,x\n")
    with pytest.raises(UserError, match=r"it has 'foto', 'text'; it needs .*name the column with --column"):
        open_source(tmp_path / "l.csv")


@pytest.mark.parametrize(
    ("name", "text"),
    [("l.txt", "a.jpg\r\n\nd e.jpg\n"), ("l.json", '["a.jpg", "d e.jpg"]'), ("l.jsonl", '"a.jpg"\n"d e.jpg"\n')],
)
def test_paths_alone(tmp_path, name, text):
    touch(tmp_path, "a.jpg", "d e.jpg")
    (tmp_path / name).write_bytes(text.encode())
    source = open_source(tmp_path / name, SourceOptions(table=TableOptions(format_of_name(name))))
    assert [(item.id, item.size) for item in source] == [("a.jpg", 5), ("d e.jpg", 5)]
    with pytest.raises(UserError, match="column in the list"):
        open_source(tmp_path / name, SourceOptions(column="path", table=TableOptions(format_of_name(name))))


HOME = "https://own.example.org/lists/l.jsonl"


@pytest.mark.parametrize(
    ("home", "address", "allow", "is_allowed"),
    [
        (HOME, "https://own.example.org/a.jpg", (), True),
        (HOME, "http://OWN.example.org/a.jpg", (), True),
        (HOME, "https://user:word@own.example.org/a.jpg", (), True),
        (HOME, "https://other.example.org/a.jpg", (), False),
        (HOME, "https://own.example.org:8080/a.jpg", (), False),
        (HOME, "https://own.example.org@other.example.org/a.jpg", (), False),
        (HOME, "https://own.example.org\\@other.example.org/a.jpg", (), False),
        (HOME, "https://other.example.org?own.example.org/a.jpg", (), False),
        (HOME, "https://own.example.org\t.other.org/a.jpg", ("https://own*",), False),
        (HOME, "http://169.254.169.254/latest/meta-data", (), False),
        (HOME, "file:///etc/passwd", (), False),
        (HOME, "local://etc/passwd", (), False),
        (HOME, "simplecache::file:///etc/passwd", (), False),
        (HOME, "simplecache::https://own.example.org/a.jpg", (), True),
        (HOME, "zip://a.jpg::https://own.example.org/a.zip", (), True),
        (HOME, "zip://a.jpg::file:///x.zip", (), False),
        (HOME, "reference://a.jpg::https://own.example.org/r.json", (), False),
        (HOME, "dir://a::https://own.example.org/", (), False),
        (HOME, "s3://bucket/a.jpg", (), False),
        (HOME, "s3://bucket/a.jpg", ("s3://bucket",), True),
        (HOME, "s3://other/a.jpg", ("s3://bucket",), False),
        (HOME, "s3a://bucket/a.jpg", ("s3",), True),
        (HOME, "file:///etc/passwd", ("file",), True),
        (HOME, "https://cdn7.example.org/a.jpg", ("https://*.example.org",), True),
        (HOME, "https://elsewhere.org/a.jpg", ("https://*.example.org",), False),
        (HOME, "https://elsewhere.org/a.jpg", ("https",), True),
        ("s3://bucket/l.csv", "s3://bucket/x/a.jpg", (), True),
        ("s3://bucket/l.csv", "s3://bucket2/a.jpg", (), False),
        ("memory://d/l.csv", "memory://e/a.jpg", (), True),
        ("zip://l.csv::s3://bucket/l.zip", "s3://bucket/a.jpg", (), True),
    ],
)
def test_lists_from_elsewhere_lead_to_their_own_place_and_where_the_user_allows(home, address, allow, is_allowed):
    refusal = Allowed(home, allow).refusal(address)
    assert (refusal is None) == is_allowed
    if refusal is not None:
        assert address in refusal


def test_places_that_are_none_are_refused():
    for place in ("/etc", "", "own.example.org/x y", "simplecache::file"):
        with pytest.raises(UserError, match="names no place"):
            Allowed(HOME, [place])


@pytest.mark.parametrize(
    "path", ["file:///etc/passwd", "local:///etc/passwd", "simplecache::file:/etc/passwd", "a::file:///etc/passwd"]
)
def test_a_list_from_elsewhere_reads_no_file_of_this_machine(memory, path):
    memory.pipe({"/d/a.jpg": b"12345", "/d/l.jsonl": (json.dumps({"path": path}) + "\n").encode()})
    with pytest.raises(UserError, match=r"In line 1 of 'memory://d/l\.jsonl'"):
        open_source("memory://d/l.jsonl")


def test_what_is_allowed_is_read(memory, tmp_path):
    touch(tmp_path, "a.jpg")
    memory.pipe({"/d/l.jsonl": (json.dumps({"path": f"file://{tmp_path}/a.jpg"}) + "\n").encode()})
    with pytest.raises(UserError, match="add --allow file if the list is to be trusted"):
        open_source("memory://d/l.jsonl")
    source = open_source("memory://d/l.jsonl", SourceOptions(allow=("file",)))
    assert [source.reader(item) for item in source] == [b"12345"]


def test_paths_of_windows_in_a_list_from_elsewhere(memory):
    memory.pipe({"/d/x/a.jpg": b"12345", "/d/l.csv": b"path\nx\\a.jpg\n"})
    source = open_source("memory://d/l.csv")
    assert [(item.id, source.reader(item)) for item in source] == [("x/a.jpg", b"12345")]
