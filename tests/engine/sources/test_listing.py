import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tai_engine.errors import ItemError, UserError
from tai_engine.sources import SourceItem, open_source


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
        (['{"path": "a.jpg"}', '{"path": "b.jpg"}', '{"path": "./a.jpg"}'], "'a.jpg' occurs in line 1 and in line 3"),
        (['{"path": "a.jpg", "id": 1}', '{"path": "b.jpg", "id": "1"}'], "'1' occurs in line 1 and in line 2"),
        (['{"path": "a.jpg"}', '{"url": "b.jpg"}'], "In line 2 of .* no column names the picture.*path, file_name"),
        (['{"path": {"bytes": "x"}}'], "The path in line 1 .* must be a path as text"),
        (
            ['{"path": "a.jpg"}', '{"path": "nowhere-at-all://a.jpg"}'],
            "In line 2 of .*: Unknown kind of address 'nowhere-at",
        ),
        (['{"path": "memory://a.jpg"}'] * 2, "'memory://a.jpg' occurs in line 1 and in line 2"),
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
