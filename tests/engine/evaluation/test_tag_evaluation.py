"""A file of tags against the truth: every picture that was scored counts, with a tag or without."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from tai_engine.errors import UserError
from tai_engine.evaluation.tag_evaluation import evaluate_tags
from tai_engine.tagging.exporters import parquet
from tai_engine.tagging.exporters.item_tags import ExportOptions
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA

NAMES = ("bed", "dog", "cat", "car")
TRUTH = {"p0": ["bed"], "p1": ["dog", "cat"], "p2": ["car"], "p3": ["dog"], "p4": ["cat", "car"], "p5": ["dog"]}


def tag_file(path: Path, rows, items=tuple(TRUTH), prompts: str = "{}"):
    given = {row[0] for row in rows}
    columns = list(zip(*rows, strict=True)) or [[], [], []]
    empty = [None] * len(rows)
    table = pa.Table.from_arrays(list(map(pa.array, [*columns, empty, empty], TAG_SCHEMA.types)), schema=TAG_SCHEMA)
    provenance = {"class_names": json.dumps(NAMES), "items": str(len(items)), "prompts": prompts}
    untagged = [item for item in items if item not in given]
    parquet.export(table.to_batches(), path, provenance, ExportOptions(untagged=untagged))
    return path


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "truth.jsonl"
    path.write_text("".join(json.dumps({"id": item, "labels": labels}) + "\n" for item, labels in TRUTH.items()))
    return path


def test_pictures_without_a_tag_are_negatives_and_positives_as_others(tmp_path, truth):
    rows = [("p0", "bed", 5.0), ("p1", "cat", 6.0)]
    found = evaluate_tags(tag_file(tmp_path / "t.parquet", rows), truth)
    assert found.precisions.items == 6
    assert dict(zip(NAMES, found.precisions.positives.tolist(), strict=True)) == {
        "bed": 1,
        "dog": 3,
        "cat": 2,
        "car": 2,
    }
    # bed and the first cat are found; the second cat, dogs and cars tie with all others: 3 of 6, 2 of 6, 2 of 6.
    expected = [1.0, 3 / 6, (1 / 1 + 2 / 6) / 2, 2 / 6]
    assert found.precisions.values.tolist() == pytest.approx(expected)
    assert found.remarks == (
        "Not every class was written for every picture (--top-k or --threshold): a rough guide only.",
    )


def test_a_file_without_any_tag(tmp_path, truth):
    found = evaluate_tags(tag_file(tmp_path / "t.parquet", []), truth)
    assert found.precisions.values.tolist() == pytest.approx([1 / 6, 3 / 6, 2 / 6, 2 / 6])


def test_pictures_of_one_file_alone_are_told(tmp_path, truth):
    rows = [("p0", "bed", 5.0), ("x", "dog", 1.0)]
    found = evaluate_tags(tag_file(tmp_path / "t.parquet", rows, ("p0", "p1", "x", "y")), truth)
    assert found.precisions.items == 2
    assert "2 scored pictures are not in the truth and were left out." in found.remarks
    assert "4 pictures of the truth were not scored and were left out." in found.remarks


def test_no_picture_in_common(tmp_path, truth):
    with pytest.raises(UserError, match=r"first id 'x'.*first id 'p0'.*no picture in common"):
        evaluate_tags(tag_file(tmp_path / "t.parquet", [], ("x",)), truth)
    with pytest.raises(UserError, match="no picture at all"):
        evaluate_tags(tag_file(tmp_path / "t.parquet", [], ()), truth)


CAPTIONED, READY = "000000000285.jpg", "000000000632.jpg"  # of COCO val2017; the second one has no built-in caption


@pytest.fixture
def coco_truth(tmp_path):
    path = tmp_path / "coco.jsonl"
    path.write_text("".join(json.dumps({"id": name, "labels": ["bed"]}) + "\n" for name in (CAPTIONED, READY)))
    return path


def test_prompts_are_not_judged_by_pictures_whose_captions_taught_them(tmp_path, coco_truth):
    rows = [(CAPTIONED, "bed", 5.0), (READY, "bed", 6.0)]
    taught = tag_file(tmp_path / "t.parquet", rows, (CAPTIONED, READY), '{"sentences": "builtin"}')
    with pytest.raises(UserError, match=r"built-in captions, and 1 of 2 pictures \(000000000285.jpg, ...\) are those"):
        evaluate_tags(taught, coco_truth)


@pytest.mark.parametrize("prompts", ["{}", '{"sentences": "other"}', "[1]", "{damaged"])
def test_other_prompts_are(tmp_path, coco_truth, prompts):
    rows = [(CAPTIONED, "bed", 5.0), (READY, "bed", 6.0)]
    found = evaluate_tags(tag_file(tmp_path / "t.parquet", rows, (CAPTIONED, READY), prompts), coco_truth)
    assert found.precisions.mean == 1.0


def test_pictures_without_a_built_in_caption_judge_all_prompts(tmp_path, coco_truth):
    tags = tag_file(tmp_path / "t.parquet", [(READY, "bed", 6.0)], (READY,), '{"sentences": "builtin"}')
    assert evaluate_tags(tags, coco_truth).precisions.mean == 1.0


def test_of_many_classes_without_a_picture_some_are_named(tmp_path, truth, monkeypatch):
    monkeypatch.setattr("tai_engine.evaluation.tag_evaluation.MANY", 2)
    truth.write_text('{"id": "p0", "labels": ["bed"]}\n')
    found = evaluate_tags(tag_file(tmp_path / "t.parquet", [("p0", "bed", 5.0)], ("p0",)), truth)
    assert "3 classes are in no picture and were left out: dog, cat and 1 more." in found.remarks
