import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tai_engine.errors import UserError
from tai_engine.evaluation.truth import load_truth

NAMES = ("person", "dining table", "TV")
LABELS = [[1, -1, 1], [-1, -1, -1], [-1, 0, -1]]


def test_all_formats_give_the_same_truth(tmp_path):
    jsonl = [
        {"file_name": "./s/a.jpg", "labels": ["person", "tv"], "note": "x"},
        {"file_name": "b.jpg", "labels": []},
        {"file_name": "c.jpg", "labels": ["Dining_Table"], "difficult": ["dining  table"]},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, jsonl)))
    (tmp_path / "t.csv").write_text("id,labels,difficult\ns/a.jpg,person; TV ;,\nb.jpg,,\nc.jpg,,dining table\n")
    table = {
        "path": ["s/a.jpg", "b.jpg", "c.jpg"],
        "labels": [["person", "TV"], [], []],
        "difficult": [None, [], ["dining table"]],
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    for suffix in ("jsonl", "csv", "parquet"):
        truth = load_truth(tmp_path / f"t.{suffix}", NAMES)
        assert truth.ids == ("s/a.jpg", "b.jpg", "c.jpg")
        assert truth.class_names == NAMES
        assert truth.labels.dtype == np.int8
        assert truth.labels.tolist() == LABELS
        assert len(truth) == 3


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"id": "a", "labels": []}', '{"id": "a", "labels": []}'], "'a' occurs in line 1 and in line 2"),
        (['{"id": "a", "labels": ["persn"]}'], "In line 1 .*Unknown class name 'persn'; did you mean 'person'"),
        (['{"id": "a", "labels": ["a"], "difficult": ["zz"]}'], "Unknown class name 'a'"),
        (['{"id": "a", "labels": [], "difficult": ["zz"]}'], "Unknown class name 'zz'; choose one of"),
        (['{"id": "a", "label": ["TV"]}'], "In line 1 .* there are no 'labels'"),
        (['{"id": "a", "labels": [3]}'], r"The labels in line 1 .* are \[3\]; they must be class names"),
        (['{"id": "a", "labels": {"TV": 1}}'], "they must be class names"),
        (['{"labels": []}'], "In line 1 .* no column names the picture: it has 'labels'"),
        ([], "has no rows"),
    ],
)
def test_mistakes_name_the_line(tmp_path, lines, message):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=message):
        load_truth(path, NAMES)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_truth(tmp_path / "none.csv", NAMES)


def test_class_names_that_cannot_be_told_apart(tmp_path):
    with pytest.raises(ValueError, match="not unique"):
        load_truth(tmp_path / "t.csv", ("tv", "TV"))


@pytest.mark.data
def test_real_metadata():
    folder = os.environ.get("TAI_DATA")
    if not folder:
        pytest.skip("TAI_DATA is not set")
    names = json.loads((Path(folder) / "coco80_names.json").read_text())
    truth = load_truth(Path(folder) / "photos" / "metadata.jsonl", names)
    assert truth.labels.shape == (152, 80)
    assert truth.ids[0] == "000000000632.jpg"
    assert [names[c] for c in np.flatnonzero(truth.labels[0] == 1)] == ["chair", "potted plant", "bed", "book"]
