"""What comes back from a file of tags: all pictures that were scored, and nothing that is no tag."""

import hashlib
import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tai_engine.errors import UserError
from tai_engine.tagging import tag_file
from tai_engine.tagging.exporters import EXPORTERS
from tai_engine.tagging.exporters.item_tags import ExportOptions
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA
from tai_engine.tagging.exporters.untagged_items import METADATA_KEY, read_listing, write_listing
from tai_engine.tagging.tag_file import read_tag_file

ROWS = [("p1", "dog", 2.5), ("p1", "cat", -1.0), ("p3", "cat", 0.0)]
UNTAGGED = ("p0", "line\nbreak.jpg", "ü 'x'.jpg")
NAN = float("nan")


def table(rows=ROWS):
    ids, tags, scores = zip(*rows, strict=True) if rows else ((), (), ())
    columns = {
        "id": ids,
        "tag": tags,
        "score": scores,
        "probability": [None] * len(ids),
        "threshold": [None] * len(ids),
    }
    return pa.table(
        {name: pa.array(values, TAG_SCHEMA.field(name).type) for name, values in columns.items()}, TAG_SCHEMA
    )


def write(path: Path, rows=ROWS, untagged=UNTAGGED, **provenance: str) -> Path:
    said = {"class_names": json.dumps(["cat", "dog"]), "items": str(len({row[0] for row in rows}) + len(untagged))}
    exporter = EXPORTERS[path.suffix.removeprefix(".")]
    exporter.export(table(rows).to_batches(), path, {**said, **provenance}, ExportOptions(untagged=iter(untagged)))
    return path


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_pictures_without_a_tag_come_back_too(tmp_path, suffix):
    file = read_tag_file(write(tmp_path / f"t.{suffix}"))
    assert file.scores.ids == ("p1", "p3", *UNTAGGED)
    low = -torch.inf
    assert file.scores.scores.tolist() == [[-1.0, 2.5], [0.0, low], [low, low], [low, low], [low, low]]
    assert not file.is_complete
    none = read_tag_file(write(tmp_path / f"none.{suffix}", rows=[]))
    assert none.scores.ids == UNTAGGED
    assert none.scores.scores.tolist() == [[low, low]] * 3
    nothing = read_tag_file(write(tmp_path / f"nothing.{suffix}", rows=[], untagged=()))
    assert nothing.scores.ids == ()


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_name_does_not_say_what_a_file_is(tmp_path, suffix):
    path = write(tmp_path / f"t.{suffix}")
    path.rename(tmp_path / "tags")
    if suffix == "jsonl":
        (tmp_path / "t.jsonl.provenance.json").rename(tmp_path / "tags.provenance.json")
    assert len(read_tag_file(tmp_path / "tags").scores.ids) == 5


def test_other_readers_see_tags_alone(tmp_path):
    path = write(tmp_path / "t.parquet")
    assert pq.read_table(path).equals(table())
    assert pq.ParquetFile(path, pre_buffer=True, memory_map=True).read().num_rows == 3
    pandas = pytest.importorskip("pandas")
    assert pandas.read_parquet(path)["id"].tolist() == ["p1", "p1", "p3"]
    assert json.loads((write(tmp_path / "t.jsonl").parent / "t.jsonl.provenance.json").read_text())["untagged"] == [
        *UNTAGGED
    ]
    full = write(tmp_path / "full.parquet", untagged=())
    assert METADATA_KEY.encode() not in pq.read_metadata(full).metadata


@settings(max_examples=30, deadline=None)
@given(ids=st.lists(st.text(), max_size=50), before=st.integers(0, 9))
def test_any_ids_come_back(ids, before):
    file = io.BytesIO()
    file.write(b"x" * before)
    place = write_listing(file, ids)
    file.write(b"behind")
    if not ids:
        assert place is None
        assert file.getvalue() == b"x" * before + b"behind"
    else:
        assert list(read_listing(file, place)) == ids


def test_a_million_ids_take_little_room(tmp_path):
    path = write(tmp_path / "t.parquet", rows=[], untagged=[f"2024/summer/IMG_{n:07d}.jpg" for n in range(100_000)])
    assert path.stat().st_size < 500_000  # 5 bytes each, of 27
    assert len(pq.read_metadata(path).metadata[METADATA_KEY.encode()]) < 200


def test_a_file_that_does_not_name_all_that_were_scored_is_refused(tmp_path):
    for suffix in ("parquet", "jsonl"):
        path = write(tmp_path / f"t.{suffix}", untagged=(), items="6")
        with pytest.raises(UserError, match=r"6 pictures were scored but names 2, .*make it again with `tai tag`"):
            read_tag_file(path)


def test_a_file_that_another_program_wrote_anew_is_refused(tmp_path):
    path = write(tmp_path / "t.parquet")
    metadata = dict(pq.read_metadata(path).metadata)
    metadata.pop(b"ARROW:schema")
    pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), tmp_path / "new.parquet")
    with pytest.raises(UserError, match="list of items without a tag"):
        read_tag_file(tmp_path / "new.parquet")


def parquet(path, columns, **provenance):
    said = {"class_names": '["cat", "dog"]', **provenance}
    metadata = {f"tai_engine.{key}": value for key, value in said.items() if value is not None}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


GOOD = {"id": ["p"], "tag": ["dog"], "score": [1.0]}


@pytest.mark.parametrize(
    ("columns", "provenance", "message"),
    [
        ({**GOOD, "score": [NAN]}, {}, "the score of 'dog' of 'p' is nan, which is no number"),
        ({**GOOD, "score": [float("inf")]}, {}, "'dog' of 'p' is inf, which is no number"),
        ({**GOOD, "score": ["high"]}, {}, "not a whole file of tags"),
        ({**GOOD, "score": pa.array([None], pa.float32())}, {}, "tags without a score"),
        ({**GOOD, "id": pa.array([None], pa.string())}, {}, "a row without 'id'"),
        ({"id": ["p"], "score": [1.0]}, {}, "it has no 'tag', only 'id', 'score'"),
        ({"picture": ["p"]}, {}, "it has no 'id' and no 'tag' and no 'score', only 'picture'"),
        ({**GOOD, "tag": ["cow"]}, {}, "the tag 'cow' is none of its own classes"),
        ({"id": ["p", "p"], "tag": ["dog", "dog"], "score": [1.0, 2.0]}, {}, "a tag occurs twice for a picture"),
        (GOOD, {"class_names": None}, "it does not say which classes it has"),
        (GOOD, {"class_names": "3"}, "its classes are 3, not a list of names"),
        (GOOD, {"class_names": "[" * 10_000}, "nested deeper than 100 levels"),
        (GOOD, {"class_names": '["dog", "dog"]'}, "one of its classes occurs twice"),
        (GOOD, {"class_names": "[]"}, "not a list of names"),
        (GOOD, {"items": "many"}, "not a whole file of tags"),
        (GOOD, {"untagged": '{"offset": 0}'}, "not a whole file of tags"),
        (GOOD, {"untagged": '{"offset": 4, "bytes": 9, "items": 1, "sha256": ""}'}, "list of items without a tag"),
        (GOOD, {"untagged": '{"offset": -4, "bytes": 9, "items": 1, "sha256": ""}'}, "not a whole file of tags"),
    ],
)
def test_foreign_parquet_is_one_sentence(tmp_path, columns, provenance, message):
    path = parquet(tmp_path / "t.parquet", columns, **provenance)
    with pytest.raises(UserError, match=message) as caught:
        read_tag_file(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "p", "tag": "dog", "score": NaN}', "the score of 'dog' of 'p' is nan"),
        ('{"id": "p", "tag": "dog", "score": "1"}', "line 1: the score is '1', which is no number"),
        ('{"id": "p", "tag": "dog", "score": true}', "line 1: the score is True"),
        ('{"id": 3, "tag": "dog", "score": 1}', "line 1: the id is 3, which is no text"),
        ('{"id": "p", "tag": "dog"}', "line 1: it has no 'score', only 'id', 'tag'"),
        ('{"id": "p", "tag": "dog", "score": ' + "1" * 6000 + "}", "which is no number"),
        ('{"id": "p", "tag": "dog", "score": ' + "[" * 10_000 + "}", "nested deeper"),
        ('"dog"', "line 1: it has no 'id'"),
    ],
)
def test_foreign_lines_are_one_sentence(tmp_path, line, message):
    path = write(tmp_path / "t.jsonl")
    path.write_text(line + "\n")
    beside = tmp_path / "t.jsonl.provenance.json"
    beside.write_text(json.dumps({"tai_engine": json.loads(beside.read_text())["tai_engine"]}))
    with pytest.raises(UserError, match=message) as caught:
        read_tag_file(path)
    assert str(path) in str(caught.value)


def test_lines_beside_the_provenance_of_another_run_are_refused(tmp_path):
    """As a writer leaves them that is killed between the two files."""
    path, beside = write(tmp_path / "t.jsonl"), tmp_path / "t.jsonl.provenance.json"
    older, lines = beside.read_text(), path.read_text()
    assert json.loads(older)["sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    for other in (lines + lines.splitlines()[0] + "\n", lines.replace("p1", "p9"), ""):
        path.write_text(other)
        with pytest.raises(
            UserError, match=r"'t\.jsonl\.provenance\.json' beside it are not of one run: .* again with"
        ):
            read_tag_file(path)
    path.write_text(lines)
    assert len(read_tag_file(path).scores.ids) == 5
    record = json.loads(older)
    del record["sha256"]  # as before there was one
    beside.write_text(json.dumps(record))
    assert len(read_tag_file(path).scores.ids) == 5
    path.write_text(lines[:-2] + "\n")
    with pytest.raises(UserError, match="are not of one run"):
        read_tag_file(path)


def test_the_file_beside_json_lines(tmp_path):
    path = write(tmp_path / "t.jsonl")
    beside = tmp_path / "t.jsonl.provenance.json"
    for text, message in (
        ("[", "not a whole file"),
        ("{}", "has no provenance"),
        ('{"tai_engine": {}}', "which classes"),
    ):
        beside.write_text(text)
        with pytest.raises(UserError, match=message):
            read_tag_file(path)
    beside.write_text(json.dumps({"tai_engine": {"class_names": '["a"]'}, "untagged": [3]}))
    with pytest.raises(UserError, match="no list of ids"):
        read_tag_file(path)
    beside.unlink()
    with pytest.raises(UserError, match=r"'t\.jsonl\.provenance\.json', .* is missing; keep the two together"):
        read_tag_file(path)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="There is no file of tags"):
        read_tag_file(tmp_path / "t.parquet")


def test_the_bound_is_looked_at_before_memory_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(tag_file, "MAX_SCORES", 9)
    path = write(tmp_path / "t.parquet")
    with pytest.raises(
        UserError, match=r"5 pictures with 2 classes have 10 scores; tai-engine reads at most 9 at once"
    ):
        read_tag_file(path)


@pytest.mark.parametrize("said", ["[]", '{"offset": 1e30, "bytes": 1, "items": 1}', '{"offset": -5}', "1"])
def test_a_place_of_the_untagged_that_makes_no_sense(said):
    with pytest.raises(ValueError, match="makes no sense"):
        list(read_listing(io.BytesIO(b"PAR1"), said))
