"""Two files of tags: matched by name, refused where they do not match, told apart where they do."""

import json

import numpy as np
import pyarrow as pa
import pytest

from tai_engine.errors import UserError
from tai_engine.evaluation.measures import mean_average_precision
from tai_engine.evaluation.tag_comparison import compare_tags
from tai_engine.evaluation.tag_evaluation import EvaluationRules
from tai_engine.evaluation.truth import TruthOptions
from tai_engine.tagging.exporters import parquet
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA

NAMES = ("dog", "cat", "car")


def write(path, scores, names=NAMES, ids=None, lacking=0):
    ids = ids or [f"p{n}.jpg" for n in range(len(scores))]
    rows = [
        {"id": item, "tag": name, "score": score, "probability": None, "threshold": None}
        for item, row in zip(ids, scores.tolist(), strict=True)
        for name, score in zip(names, row, strict=True)
    ][lacking:]
    provenance = {"class_names": json.dumps(names), "items": str(len(ids))}
    parquet.export(pa.Table.from_pylist(rows, schema=TAG_SCHEMA).to_batches(), path, provenance)
    return path


@pytest.fixture
def collection(tmp_path):
    """Labels, a weaker run and a stronger one that shares its noise."""
    random = np.random.default_rng(0)
    labels = np.where(random.random((120, 3)) < 0.4, 1, -1)
    noise = random.normal(size=labels.shape)
    truth = tmp_path / "truth.jsonl"
    truth.write_text(
        "".join(
            json.dumps({"id": f"p{n}.jpg", "labels": [NAMES[c] for c in np.flatnonzero(row == 1)]}) + "\n"
            for n, row in enumerate(labels)
        )
    )
    weak, strong = (np.float32(scale * labels + noise) for scale in (0.7, 1.1))
    return truth, labels, weak, strong


def test_the_better_one_is_found_whatever_the_order_of_pictures_and_classes(tmp_path, collection):
    truth, labels, weak, strong = collection
    one = write(tmp_path / "a.parquet", weak)
    order, columns = np.random.default_rng(1).permutation(120), [2, 0, 1]
    two = write(
        tmp_path / "b.parquet",
        strong[order][:, columns],
        [NAMES[c].upper() for c in columns],
        [f"p{n}.jpg" for n in order],
    )
    found = compare_tags(one, two, truth, EvaluationRules(top_k=1), draws=200)
    assert found.mean.first.value == pytest.approx(mean_average_precision(weak, labels).mean)
    assert found.mean.second.value == pytest.approx(mean_average_precision(strong, labels).mean)
    assert found.mean.difference.is_clear_of_zero
    assert found.precisions[1].class_names == NAMES
    assert found.overall_f1.difference.value > 0
    assert found.remarks == ()
    alone = compare_tags(one, one, truth, draws=20)
    assert (alone.mean.difference.low, alone.mean.difference.high) == (0, 0)
    assert alone.class_f1 is None


def test_other_pictures_and_classes_are_refused_or_left_out(tmp_path, collection):
    truth, labels, weak, strong = collection
    one = write(tmp_path / "a.parquet", weak)
    fewer = write(tmp_path / "b.parquet", strong[:100])
    with pytest.raises(UserError, match=r"100 pictures in common and 20 that only one has, such as 'p100\.jpg' of"):
        compare_tags(one, fewer, truth)
    found = compare_tags(one, fewer, truth, only_common=True, draws=10)
    assert found.mean.first.value == pytest.approx(mean_average_precision(weak[:100], labels[:100]).mean)
    assert found.remarks == (f"20 pictures are in '{one}' alone and were left out.",)
    other = write(tmp_path / "c.parquet", strong, ("dog", "cat", "boat"))
    with pytest.raises(UserError, match=r"2 classes in common and 2 that only one has, such as 'car' of"):
        compare_tags(one, other, truth)
    by_two = compare_tags(one, other, truth, options=TruthOptions("ignore"), only_common=True, draws=10)
    assert by_two.precisions[0].class_names == ("dog", "cat")
    elsewhere = write(tmp_path / "d.parquet", strong, ids=[f"q{n}.jpg" for n in range(120)])
    with pytest.raises(UserError, match=r"0 pictures in common.*tag the same pictures with the same words\."):
        compare_tags(one, elsewhere, truth, only_common=True)


def test_scores_that_are_lacking_or_tie(tmp_path, collection):
    truth, _, weak, strong = collection
    one = write(tmp_path / "a.parquet", weak)
    with pytest.raises(UserError, match=r"b\.parquet' lacks 1 scores"):
        compare_tags(one, write(tmp_path / "b.parquet", strong, lacking=1), truth)
    with pytest.raises(UserError, match="inf, which is no number"):
        compare_tags(one, write(tmp_path / "c.parquet", np.where(strong > 2, np.inf, strong)), truth)
    rounded = write(tmp_path / "d.parquet", np.round(strong))
    found = compare_tags(one, rounded, truth, draws=10)
    assert found.precisions[0].tied_pairs.sum() == 0
    tied = found.precisions[1].tied_pairs.sum()
    assert tied > 0
    assert found.remarks == (
        f"{tied:,} pairs of a picture with a class and one without it have the same score in '{rounded}'; such "
        "pictures share one rank.",
    )
    for rules, draws, words in (
        (EvaluationRules(interpolation="11-point"), 1, "by the area alone"),
        (None, 0, "take 1 draw"),
    ):
        with pytest.raises(UserError, match=words):
            compare_tags(one, one, truth, rules, draws=draws)
