"""Tag tables as files: the same rows come back, provenance with them, and an older file is never lost."""

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tai_engine.errors import UserError
from tai_engine.tagging import exporters
from tai_engine.tagging.exporters.parquet import ROW_GROUP_ROWS
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA

ROWS = [
    {"id": "a.jpg", "tag": "dog", "score": 0.3, "probability": None, "threshold": None},
    {"id": "a.jpg", "tag": "traffic light", "score": -1.25, "probability": 0.5, "threshold": 0.1},
    {"id": 'ü "x".jpg', "tag": "chaise longue\n", "score": 1e-20, "probability": 1.0, "threshold": -3.0},
]
PROVENANCE = {"space_key": "rn50:1", "prompts": '{"é": 1}'}


def batches(rows=ROWS, size=2):
    table = pa.Table.from_pylist(rows, schema=TAG_SCHEMA)
    return table.to_batches(max_chunksize=size)


def failing(rows=ROWS):
    yield from batches(rows)
    raise RuntimeError("half way")


def rounded(rows):
    """As fp32 would have it."""
    return pa.Table.from_pylist(rows, schema=TAG_SCHEMA).to_pylist()


def test_parquet_comes_back_with_provenance(tmp_path):
    path = tmp_path / "tags.parquet"
    assert exporters.get(path).export(iter(batches()), path, PROVENANCE) == 3
    table = pq.read_table(path)
    assert table.schema.equals(TAG_SCHEMA)
    assert table.to_pylist() == rounded(ROWS)
    metadata = pq.read_metadata(path).metadata
    assert metadata[b"tai_engine.space_key"] == b"rn50:1"
    assert metadata[b"tai_engine.prompts"].decode() == '{"é": 1}'
    assert [p.name for p in tmp_path.iterdir()] == ["tags.parquet"]


def test_jsonl_comes_back_with_provenance_beside_it(tmp_path):
    path = tmp_path / "tags.jsonl"
    assert exporters.get("jsonl").export(iter(batches()), path, PROVENANCE) == 3
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == '{"id": "a.jpg", "tag": "dog", "score": 0.3, "probability": null, "threshold": null}'
    assert [json.loads(line) for line in lines] == ROWS
    beside = json.loads((tmp_path / "tags.jsonl.provenance.json").read_text(encoding="utf-8"))
    assert beside == {
        "file": "tags.jsonl",
        "rows": 3,
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "tai_engine": PROVENANCE,
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tags.jsonl", "tags.jsonl.provenance.json"]


def test_json_numbers_round_to_the_same_fp32(tmp_path):
    scores = [0.1, 1 / 3, 16777217.0, 1e-45, -0.0, 3.4e38]
    rows = [{"id": str(n), "tag": "t", "score": s} for n, s in enumerate(scores)]
    path = tmp_path / "tags.jsonl"
    exporters.get(path).export(batches(rows), path, {})
    got = [json.loads(line)["score"] for line in path.read_text().splitlines()]
    assert pa.array(got, pa.float32()).equals(pa.array(scores, pa.float32()))


@pytest.mark.parametrize("name", ["parquet", "jsonl"])
def test_no_rows_at_all(tmp_path, name):
    path = tmp_path / f"tags.{name}"
    assert exporters.get(name).export([], path, PROVENANCE) == 0
    if name == "parquet":
        assert pq.read_table(path).to_pylist() == []
        assert pq.read_schema(path).metadata[b"tai_engine.space_key"] == b"rn50:1"
    else:
        assert path.read_bytes() == b""


@pytest.mark.parametrize("name", ["parquet", "jsonl"])
def test_a_failure_half_way_leaves_the_older_file(tmp_path, name):
    path = tmp_path / f"tags.{name}"
    exporter = exporters.get(path)
    exporter.export(batches(), path, PROVENANCE)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(RuntimeError, match="half way"):
        exporter.export(failing(ROWS[:1]), path, {"space_key": "other"})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["parquet", "jsonl"])
def test_a_full_disk_is_told_in_a_sentence(tmp_path, name, monkeypatch):
    import errno
    import os
    from pathlib import Path

    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match=rf"Cannot write .*tags.{name}: the disk is full"):
        exporters.get(name).export(batches(), tmp_path / f"tags.{name}", PROVENANCE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["parquet", "jsonl"])
def test_tables_of_another_form(tmp_path, name):
    export = exporters.get(name).export
    table = pa.Table.from_pylist(ROWS, schema=TAG_SCHEMA)
    extra = table.append_column("note", pa.array(["x"] * 3)).select(
        ["note", "threshold", "tag", "score", "id", "probability"]
    )
    encoded = extra.set_column(2, "tag", extra["tag"].dictionary_encode())
    assert export(encoded.to_batches(), tmp_path / "x", {}) == 3
    export(table.to_batches(), tmp_path / "y", {})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    with pytest.raises(ValueError, match="lacks score; it has id, tag"):
        export(table.select(["id", "tag", "probability", "threshold"]).to_batches(), tmp_path / "z", {})
    assert not (tmp_path / "z").exists()


def test_small_batches_become_large_row_groups(tmp_path):
    rows = 2 * ROW_GROUP_ROWS + 5
    table = pa.table(
        {
            "id": pa.array(range(rows)).cast(pa.string()),
            "tag": pa.array(["t"] * rows),
            "score": pa.array(range(rows), pa.float32()),
            "probability": pa.nulls(rows, pa.float32()),
            "threshold": pa.nulls(rows, pa.float32()),
        },
        schema=TAG_SCHEMA,
    )
    path = tmp_path / "tags.parquet"
    assert exporters.get(path).export(table.to_batches(max_chunksize=1000), path, {}) == rows
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [ROW_GROUP_ROWS] * 2 + [5]
    assert pq.read_table(path).equals(table)


def test_one_batch_larger_than_a_row_group(tmp_path):
    rows = ROW_GROUP_ROWS + 1
    table = pa.Table.from_pylist(ROWS[:1], schema=TAG_SCHEMA).take(pa.array([0] * rows))
    path = tmp_path / "tags.parquet"
    assert exporters.get(path).export(table.combine_chunks().to_batches(), path, {}) == rows
    assert pq.read_metadata(path).num_row_groups == 2


def test_formats_are_found_by_name_and_by_ending(tmp_path):
    assert exporters.get("parquet").name == "parquet"
    assert exporters.get("JSONL").name == "jsonl"
    assert exporters.get("out/tags.PARQUET").name == "parquet"
    assert exporters.get(tmp_path / "tags.ndjson").name == "jsonl"


def test_unknown_formats_list_the_known_ones(tmp_path):
    with pytest.raises(UserError, match=r"export format 'parket'.*parquet"):
        exporters.get("parket")
    with pytest.raises(UserError, match=r"'\.xlsx'.*\.parquet \(parquet\), \.jsonl \(jsonl\)"):
        exporters.get("tags.xlsx")
    with pytest.raises(UserError, match="no ending"):
        exporters.get(tmp_path / "tags")
