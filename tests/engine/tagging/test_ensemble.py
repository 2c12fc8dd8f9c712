"""Files of tags combined, by hand."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tag_samples import batches
from tai_engine.errors import UserError
from tai_engine.tagging import ensemble as module
from tai_engine.tagging.ensemble import ensemble
from tai_engine.tagging.exporters import parquet
from tai_engine.tagging.tag_file import read_tag_file

NAMES = ["dog", "cat"]


def tags(path, scores, names=NAMES, ids=("a", "b"), complete="true", **provenance):
    """A file of tags of every picture and word, best first."""
    pictures = []
    for name, row in zip(ids, scores, strict=True):
        pairs = sorted(zip(names, row, strict=True), key=lambda pair: -pair[1])
        pictures.append((name, tuple((tag, score, None) for tag, score in pairs)))
    facts = {"class_names": json.dumps(names), "complete": complete, "items": str(len(ids)), "space_key": "rn50:1"}
    parquet.export(batches(tuple(pictures), calibrated=False), path, facts | provenance)
    return path


def test_by_hand(tmp_path):
    # 0, 2, 3, 4 of a range of 4; 10 to 50 of a range of 40, where the order of words is another one.
    first = tags(
        tmp_path / "1.parquet", [[0.0, 2.0], [3.0, 4.0]], prompts_sha256="x", prompts='{"sentences": "builtin"}'
    )
    second = tags(tmp_path / "2.parquet", [[10.0, 50.0], [20.0, 30.0]], names=["cat", "dog"])
    assert ensemble(first, second, tmp_path / "e.parquet", 0.25) == 4
    found = read_tag_file(tmp_path / "e.parquet")
    assert found.scores.ids == ("a", "b")
    assert found.scores.class_names == ("dog", "cat")
    expected = 0.75 * np.array([[0, 0.5], [0.75, 1]]) + 0.25 * np.array([[1, 0], [0.5, 0.25]])
    np.testing.assert_allclose(found.scores.scores.numpy(), expected, atol=1e-7)
    assert found.is_complete
    assert found.provenance["prompts_method"] == "ensemble"
    assert json.loads(found.provenance["scoring"]) == {"which": "ensemble", "ratio": 0.25}
    assert found.provenance["space_key"] == "rn50:1"
    # What either has learned from is learned from by both.
    assert json.loads(found.provenance["prompts"])["sentences"] == "builtin"
    assert found.provenance["prompts_sha256"] not in ("x", "")
    rows = pq.read_table(tmp_path / "e.parquet").to_pylist()
    assert [row["tag"] for row in rows] == ["cat", "dog", "cat", "dog"]


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_the_ends_rank_as_one_of_both(tmp_path, ratio):
    scores = np.random.default_rng(1).normal(size=(2, 2, 2))
    files = [tags(tmp_path / f"{n}.parquet", one.tolist()) for n, one in enumerate(scores)]
    ensemble(*files, tmp_path / "e.parquet", ratio)
    found = read_tag_file(tmp_path / "e.parquet").scores.scores.numpy().ravel()
    assert found.argsort().tolist() == scores[int(ratio)].ravel().argsort().tolist()
    assert (found.min(), found.max()) == pytest.approx((0.0, 1.0), abs=1e-6)


def test_many_batches_and_equal_scores(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 3)
    ids = [f"{n}" for n in range(5)]
    first = tags(tmp_path / "1.parquet", [[1.0, 1.0]] * 5, ids=ids)
    second = tags(tmp_path / "2.parquet", [[n, 0.0] for n in range(5)], ids=ids)
    assert ensemble(first, second, tmp_path / "e.parquet", 0.5) == 10
    found = read_tag_file(tmp_path / "e.parquet").scores.scores.numpy()
    np.testing.assert_allclose(found[:, 0], np.arange(5) / 8, atol=1e-7)


def test_mistakes(tmp_path):
    good = tags(tmp_path / "1.parquet", [[0.0, 2.0], [3.0, 4.0]])
    cases = {
        "does not hold every word": tags(tmp_path / "2.parquet", [[0, 1], [2, 3]], complete="false"),
        "differ in their words .'cat' is in one alone": tags(tmp_path / "3.parquet", [[0, 1]] * 2, ["dog", "cow"]),
        "goes on with 'b' where .* has 'c'": tags(tmp_path / "4.parquet", [[0, 1], [2, 3]], ids=("a", "c")),
        "goes on with 'b' where .* has no more picture": tags(tmp_path / "5.parquet", [[0, 1]], ids=("a",)),
        "holds no tag at all": tags(tmp_path / "6.parquet", [], ids=()),
        "There is no file of tags": tmp_path / "none.parquet",
    }
    for message, other in cases.items():
        with pytest.raises(UserError, match=message):
            ensemble(good, other, tmp_path / "e.parquet", 0.5)
        assert not (tmp_path / "e.parquet").exists()
    for ratio in (-0.1, 1.5, float("nan")):
        with pytest.raises(UserError, match="it is the share of the second file, from 0 to 1"):
            ensemble(good, good, tmp_path / "e.parquet", ratio)
