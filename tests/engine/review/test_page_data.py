import json

import numpy as np
import pytest

from review_samples import ORDER, sample_collection, write_pictures, write_tags
from tai_engine.review import page_data
from tai_engine.review.collection import Collection
from tai_engine.review.decisions import Decisions


def parsed(collection):
    data, n, m = page_data.columns(collection), len(collection), len(collection.suggestions.classes)
    kinds = [("<u4", n + 1), ("<u4", m), ("<f4", m), ("<f4", m), ("u1", m)]
    columns, start = [], 0
    for kind, length in kinds:
        columns.append(np.frombuffer(data, kind, length, start).tolist())
        start += columns[-1].__len__() * np.dtype(kind).itemsize
    assert start == len(data)
    return columns


def test_columns_are_in_the_order_of_looking(tmp_path):
    collection = sample_collection(tmp_path)
    offsets, classes, values, doubts, flags = parsed(collection)
    assert offsets == [0, 1, 3, 4, 4, 5]
    assert [collection.suggestions.tags[c] for c in classes] == ["cat", "dog", "cat", "owl", "fox"]
    np.testing.assert_allclose(values, [0.5, 0.9, 0.3, 0.95, 0.6])
    np.testing.assert_allclose(doubts, [1.0, 0.2, 0.6, 0.1, 0.8], atol=1e-6)
    assert flags == [0] * 5


def test_scores_stand_for_probabilities_that_are_not_there(tmp_path):
    tags = write_tags(tmp_path / "t.parquet", [("a.jpg", "dog", 2.0, 0.5, 3.0), ("a.jpg", "cat", 4.0, None, 3.0)])
    collection = Collection.open(tags, write_pictures(tmp_path / "p", ["a.jpg"]))
    assert page_data.facts(collection, "t")["value"] == "score"
    _, _, values, _, flags = parsed(collection)
    assert values == [4.0, 2.0]
    assert flags == [0, 1]


def test_rows_have_ids_and_exact_numbers(tmp_path):
    collection = sample_collection(tmp_path)
    assert page_data.rows(collection, 0) == {
        "ids": ORDER,
        "scores": [[2.0], [3.0, 1.0], [4.0], [], [2.0]],
        "thresholds": [[None], [None, None], [None], [], [None]],
    }
    for chunk in (1, -1, 10**12):
        with pytest.raises(IndexError):
            page_data.rows(collection, chunk)


def test_rows_come_in_chunks(tmp_path):
    names = [f"{n:03}.jpg" for n in range(2 * page_data.CHUNK + 1)]
    tags = write_tags(tmp_path / "t.parquet", [(name, "dog", 1.0, 0.5) for name in names])
    collection = Collection.open(tags, write_pictures(tmp_path / "p", names, (2, 2)))
    assert page_data.chunk_count(collection) == 3
    assert [i for chunk in range(3) for i in page_data.rows(collection, chunk)["ids"]] == names


def test_facts(tmp_path):
    facts = page_data.facts(sample_collection(tmp_path), "tags")
    assert facts["value"] == "probability"
    assert (facts["pictures"], facts["tagged"], facts["missing"], facts["suggestions"]) == (5, 3, 1, 5)
    assert facts["favourites"][0] == "cat"  # suggested twice
    assert json.loads(page_data.to_json(facts)) == facts


def test_decisions_go_by_number_and_those_on_other_pictures_are_left_out(tmp_path):
    decisions = Decisions()
    changes = [{"ids": ["a.jpg", "gone.jpg"], "accept": ["dog"]}, {"ids": ["d.jpg"], "none": True}]
    decisions.apply({"revision": 1, "act": "decide", "by": "anna", "at": "now", "changes": changes})
    found = page_data.decisions_snapshot(sample_collection(tmp_path), decisions)
    assert found["pictures"] == {
        "1": {"verdicts": {"dog": "accept"}, "none": False, "by": "anna", "at": "now"},
        "3": {"verdicts": {}, "none": True, "by": "anna", "at": "now"},
    }
    assert found["undo"] == {"revision": 1, "summary": "accept dog; none of these, 3 pictures"}
    assert (found["revision"], found["redo"], found["favourites"]) == (1, None, None)
