"""Tags with decisions: the pictures that end without a tag are known too."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from tai_engine.errors import UserError
from tai_engine.review import decided_tags
from tai_engine.review.decided_tags import decided_rows, untagged_items
from tai_engine.review.decisions import PictureDecision
from tai_engine.tagging import exporters
from tai_engine.tagging.exporters.item_tags import ExportOptions
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA

ROWS = [("a", "dog"), ("a", "cat"), ("b", "dog"), ("c", "cat")]
UNTAGGED = ("d", "e")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_pictures_without_a_tag_after_all_decisions(tmp_path, monkeypatch, suffix):
    tags = tmp_path / f"t.{suffix}"
    ids, names = zip(*ROWS, strict=True)
    nothing = [None] * len(ROWS)
    columns = map(pa.array, (ids, names, [1.0] * len(ROWS), nothing, nothing), TAG_SCHEMA.types)
    table = pa.Table.from_arrays(list(columns), schema=TAG_SCHEMA)
    provenance = {"class_names": json.dumps(["cat", "dog"])}
    exporters.get(tags).export(table.to_batches(), tags, provenance, ExportOptions(untagged=UNTAGGED))
    assert untagged_items(tags) == ["d", "e"]
    decisions = {
        "a": PictureDecision({"cat": "reject"}),
        "b": PictureDecision({"dog": "reject"}),  # had one tag, and has none
        "d": PictureDecision({"owl": "add"}),  # had none, and has one
        "c": PictureDecision({}, is_none=True),
    }
    monkeypatch.setattr(decided_tags, "read_decisions", lambda _: decisions)
    assert untagged_items(tags, Path("journal")) == ["b", "c", "e"]


def test_decisions_hold_however_accents_are_composed(tmp_path, monkeypatch):
    tags = tmp_path / "t.parquet"
    rows = [
        {"id": "caf\u00e9.jpg", "tag": "cr\u00e8me", "score": 1.0},
        {"id": "b.jpg", "tag": "cr\u00e8me", "score": 1.0},
    ]
    table = pa.Table.from_pylist(rows, schema=TAG_SCHEMA)
    provenance = {"class_names": json.dumps(["cr\u00e8me", "dog"])}
    exporters.get(tags).export(table.to_batches(), tags, provenance, ExportOptions(untagged=()))
    decisions = {
        "cafe\u0301.jpg": PictureDecision({"cre\u0300me": "reject", "dog": "add"}),
        "b.jpg": PictureDecision({"cre\u0300me": "accept"}),
    }
    monkeypatch.setattr(decided_tags, "read_decisions", lambda _: decisions)
    batches, found, _ = decided_rows(tags, Path("journal"))
    rows = [(row["id"], row["tag"], row["decision"]) for batch in batches for row in batch.to_pylist()]
    assert rows == [("caf\u00e9.jpg", "dog", "add"), ("b.jpg", "cr\u00e8me", "accept")]
    assert json.loads(found["class_names"]) == ["cr\u00e8me", "dog"]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_picture_that_is_there_twice_is_not_exported_twice(tmp_path, suffix):
    tags = tmp_path / f"t.{suffix}"
    rows = [{"id": item_id, "tag": tag, "score": 1.0} for item_id, tag in ROWS]
    provenance = {"class_names": json.dumps(["cat", "dog"]), "items": "3"}
    table = pa.Table.from_pylist(rows, schema=TAG_SCHEMA)
    for copies, is_right in ((1, True), (2, False)):
        batches = [batch for _ in range(copies) for batch in table.to_batches(max_chunksize=3)]
        exporters.get(tags).export(iter(batches), tags, provenance, ExportOptions(untagged=()))
        found, _, _ = decided_rows(tags)
        if is_right:
            assert sum(map(len, found)) == len(ROWS)
            continue
        with pytest.raises(UserError, match="says that 3 pictures were scored but has the tags of 6, or of some"):
            list(found)
