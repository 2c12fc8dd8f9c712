import pyarrow as pa
import pytest

from tai_engine.review.decisions import PictureDecision
from tai_engine.review.merging import DECIDED_SCHEMA, merge
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA

ROWS = [
    # id, tag, score, threshold
    ("a", "dog", 0.9, None),
    ("a", "cat", 0.2, None),
    ("b", "dog", 0.8, 0.5),
    ("b", "car", 0.1, 0.5),
    ("b", "owl", 0.3, 0.5),
    ("c", "dog", 0.7, None),
    ("d", "cat", 0.6, None),
]
DECISIONS = {
    "a": PictureDecision({"cat": "reject", "puppy": "add"}),
    "b": PictureDecision({"car": "accept", "bus": "accept"}),  # the machine no longer says bus
    "d": PictureDecision({}, is_none=True),
    "z": PictureDecision({"fox": "add", "hen": "reject"}),  # a picture without any row
}
MERGED = [
    ("a", "dog", None),
    ("a", "puppy", "add"),
    ("b", "dog", None),
    ("b", "car", "accept"),
    ("b", "bus", "accept"),
    ("c", "dog", None),
    ("z", "fox", "add"),
]


def table(rows):
    return pa.table(
        {
            "id": [r[0] for r in rows],
            "tag": [r[1] for r in rows],
            "score": pa.array([r[2] for r in rows], pa.float32()),
            "probability": pa.nulls(len(rows), pa.float32()),
            "threshold": pa.array([r[3] for r in rows], pa.float32()),
        },
        schema=TAG_SCHEMA,
    )


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_what_a_person_said_is_kept_however_the_rows_are_cut(size):
    merged = list(merge(table(ROWS).to_batches(max_chunksize=size), DECISIONS))
    assert all(batch.schema == DECIDED_SCHEMA for batch in merged)
    rows = pa.Table.from_batches(merged).to_pylist()
    assert [(row["id"], row["tag"], row["decision"]) for row in rows] == MERGED
    scores = {(row["id"], row["tag"]): row["score"] for row in rows}
    assert scores["b", "car"] == pytest.approx(0.1)  # accepted below its threshold
    assert scores["a", "puppy"] is None


def test_without_decisions_rows_that_reach_their_threshold_stay():
    (batch,) = merge(table(ROWS).to_batches(), {})
    assert [(r["id"], r["tag"]) for r in batch.to_pylist()] == [
        ("a", "dog"), ("a", "cat"), ("b", "dog"), ("c", "dog"), ("d", "cat"),
    ]  # fmt: skip


def test_a_tag_that_a_person_added_and_the_machine_now_says_too_is_there_once():
    decisions = {"c": PictureDecision({"dog": "add"})}
    rows = pa.Table.from_batches(merge(table(ROWS[5:6]).to_batches(), decisions)).to_pylist()
    assert [(r["tag"], r["decision"], round(r["score"], 3)) for r in rows] == [("dog", "add", 0.7)]


def test_no_rows_and_no_decisions():
    assert list(merge([], {})) == []
    assert list(merge(table([]).to_batches(), {})) == []
    (batch,) = merge([], {"z": PictureDecision({"fox": "add"})})
    assert batch.to_pylist() == [
        {"id": "z", "tag": "fox", "score": None, "probability": None, "threshold": None, "decision": "add"}
    ]
