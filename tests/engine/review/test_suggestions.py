import numpy as np
import pytest

from review_samples import CLASSES, write_tags
from tai_engine.errors import UserError
from tai_engine.review import suggestions as module
from tai_engine.review.suggestions import read_suggestions


def listed(found):
    """(id, [(tag, score)]) of every picture."""
    names = np.array(found.tags)[found.classes]
    return [
        (
            item_id,
            [(str(names[i]), float(found.scores[i])) for i in range(found.offsets[n], found.offsets[n + 1])],
        )
        for n, item_id in enumerate(found.ids.to_pylist())
    ]


SCORES = [("b", "cat", 1.0), ("b", "dog", 3.0), ("b", "owl", 2.0), ("a", "fox", -1.0), ("a", "cat", -2.0)]


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl"])
def test_the_best_come_first_and_pictures_as_in_the_file(tmp_path, name):
    found = read_suggestions(write_tags(tmp_path / name, SCORES))
    assert listed(found) == [
        ("b", [("dog", 3.0), ("owl", 2.0), ("cat", 1.0)]),
        ("a", [("fox", -1.0), ("cat", -2.0)]),
    ]
    assert found.tags == CLASSES
    assert not found.has_probabilities
    assert len(found.sha256) == 64


def test_so_many_are_kept(tmp_path):
    path = write_tags(tmp_path / "t.parquet", SCORES)
    assert listed(read_suggestions(path, 1)) == [("b", [("dog", 3.0)]), ("a", [("fox", -1.0)])]


def test_of_files_with_every_tag_few_are_kept(tmp_path):
    classes = tuple(f"class {n}" for n in range(50))
    rows = [("a", name, float(n)) for n, name in enumerate(classes)]
    for complete, kept in (("true", 8), ("false", 32)):
        found = read_suggestions(write_tags(tmp_path / f"{complete}.parquet", rows, classes, complete=complete))
        assert found.scores.tolist() == [float(n) for n in range(49, 49 - kept, -1)]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_pictures_that_lie_in_several_batches_or_places(tmp_path, monkeypatch, size):
    rows = [*SCORES, ("b", "fox", 2.5)]
    path = write_tags(tmp_path / "t.parquet", rows)
    whole = module.iter_tag_rows

    def cut(path):
        for batch in whole(path):
            for start in range(0, len(batch), size):
                yield batch.slice(start, size)

    monkeypatch.setattr(module, "iter_tag_rows", cut)
    assert listed(read_suggestions(path, 3)) == [
        ("b", [("dog", 3.0), ("fox", 2.5), ("owl", 2.0)]),
        ("a", [("fox", -1.0), ("cat", -2.0)]),
    ]


def test_probabilities_order_before_scores_and_what_misses_its_threshold_comes_last(tmp_path):
    rows = [
        ("a", "cat", 1.0, 0.2, 0.5),
        ("a", "dog", 0.9, 0.7, 0.5),
        ("a", "owl", 0.4, 0.9, 0.5),
        ("a", "fox", 0.5, 0.1, 0.5),
    ]
    found = read_suggestions(write_tags(tmp_path / "t.parquet", rows))
    assert [tag for tag, _ in listed(found)[0][1]] == ["dog", "cat", "fox", "owl"]
    assert found.is_weak.tolist() == [False, False, False, True]
    assert found.has_probabilities


def test_doubt_by_probability_by_threshold_and_by_the_best_two_scores(tmp_path):
    rows = [
        ("p", "cat", 0.0, 0.5),
        ("p", "dog", 9.0, 1.0),
        ("p", "owl", 1.0, 0.25),
        ("t", "cat", 2.0, None, 1.0),
        ("t", "dog", 1.0, None, 1.0),
        ("s", "cat", 5.0),
        ("s", "dog", 4.0),
        ("s", "owl", 1.0),
        ("one", "cat", 5.0),
    ]
    found = read_suggestions(write_tags(tmp_path / "t.parquet", rows))
    np.testing.assert_allclose(found.doubts(), [0.0, 1.0, 0.5, 0.5, 1.0, 0.5, 0.5, 0.5, 0.0])


def test_what_is_no_file_of_tags(tmp_path):
    with pytest.raises(UserError, match="holds no tags"):
        read_suggestions(write_tags(tmp_path / "empty.parquet", []))
    with pytest.raises(UserError, match="no file of tags at"):
        read_suggestions(tmp_path / "none.parquet")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 or so")
    with pytest.raises(UserError, match="not a whole file of tags"):
        read_suggestions(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="the tag 'yak'"):
        read_suggestions(write_tags(tmp_path / "other.parquet", [("a", "yak", 1.0)]))
    (tmp_path / "empty.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="not a whole file of tags"):
        read_suggestions(tmp_path / "empty.parquet")
