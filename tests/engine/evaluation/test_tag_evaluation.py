"""A file of tags against the truth: every picture that was scored counts, with a tag or without."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from tai_engine.errors import UserError
from tai_engine.evaluation.class_splits import ClassSplits
from tai_engine.evaluation.tag_comparison import compare_tags
from tai_engine.evaluation.tag_evaluation import EvaluationRules, evaluate_tags
from tai_engine.evaluation.truth import TruthOptions
from tai_engine.tagging import exporters
from tai_engine.tagging.exporters import parquet
from tai_engine.tagging.exporters.item_tags import ExportOptions
from tai_engine.tagging.exporters.tag_table import DECIDED_SCHEMA, TAG_SCHEMA

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
        # Dogs 3 x 3, the second cat 1 x 4, cars 2 x 4.
        "21 pairs of a picture with a class and one without it have the same score; such pictures share one rank.",
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


@pytest.mark.parametrize("difficult", [{}, {"difficult": ["dog"]}])
def test_a_truth_without_a_positive_measures_nothing(tmp_path, difficult):
    tags = tag_file(tmp_path / "t.parquet", [("p1", name, float(n)) for n, name in enumerate(NAMES)], ["p1"])
    path = tmp_path / "none.jsonl"
    path.write_text(json.dumps({"id": "p1", "labels": [], **difficult}))
    with pytest.raises(UserError, match=r"none of the classes is in any of the 1 pictures .* check its labels"):
        evaluate_tags(tags, path)
    with pytest.raises(UserError, match="none of the classes is in any of the 1 pictures"):
        compare_tags(tags, tags, path, EvaluationRules(), TruthOptions())


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


def test_ties_the_best_tags_coverage_and_groups_by_hand(tmp_path, truth):
    """Every class of p0 and p1: bed of both 2.0, dog 1.0 and 3.0, cat 0.0 and 4.0, car -1.0 and 5.0."""
    scores = {"p0": (2.0, 1.0, 0.0, -1.0), "p1": (2.0, 3.0, 4.0, 5.0)}
    rows = [(item, name, score) for item, row in scores.items() for name, score in zip(NAMES, row, strict=True)]
    splits = ClassSplits("mine", {"furniture": ("Bed",), "animals": ("dog", "cat")})
    tags = tag_file(tmp_path / "t.parquet", rows, ("p0", "p1"))
    found = evaluate_tags(tags, truth, EvaluationRules(top_k=2), splits=splits)
    # p0 holds a bed, p1 a dog and a cat; bed ties between the two, all else is in order.
    assert found.precisions.tied_pairs.tolist() == [1, 0, 0, 0]
    assert found.precisions.values[:3].tolist() == [0.5, 1.0, 1.0]
    assert "1 pairs of a picture with a class and one without it have the same score; such pictures share" in str(
        found.remarks
    )
    # The two best: bed and dog of p0, car and cat of p1; right are bed and cat.
    assert (found.tags.overall_precision, found.tags.overall_recall) == (0.5, pytest.approx(2 / 3))
    assert found.coverage == (1 + 3) / 2
    by_name = {group.name: group for group in found.groups}
    assert [(g.classes, g.mean) for g in found.groups] == [(1, 0.5), (2, 1.0), (3, pytest.approx(2.5 / 3))]
    # Among animals alone both are the two best of each picture: 2 of 4 are right, and all are found.
    assert by_name["animals"].tags.overall_precision == 0.5
    assert by_name["animals"].tags.overall_recall == 1.0
    assert "1 classes are in no group." in found.remarks
    above = evaluate_tags(tags, truth, EvaluationRules(threshold=2.0)).tags
    assert (above.overall_precision, above.overall_recall) == (3 / 5, 1.0)


def test_tags_that_were_not_written_are_never_among_the_best(tmp_path, truth):
    rows = [("p0", "bed", 5.0), ("p1", "cat", 6.0)]
    found = evaluate_tags(tag_file(tmp_path / "t.parquet", rows), truth, EvaluationRules(top_k=3))
    assert found.tags.overall_precision == 1.0
    assert found.coverage is None


def test_rules_that_do_not_fit(tmp_path, truth):
    with pytest.raises(UserError, match="leave one of them out"):
        EvaluationRules(top_k=1, threshold=0.0)
    with pytest.raises(UserError, match="--top-k is 0"):
        EvaluationRules(top_k=0)
    tags = tag_file(tmp_path / "t.parquet", [("p0", "bed", 5.0)])
    with pytest.raises(UserError, match=r"Unknown average precision '11'; choose one of '11-point', 'area'"):
        evaluate_tags(tags, truth, EvaluationRules(interpolation="11"))
    with pytest.raises(UserError, match=r"splits 'mine': Unknown class in the group 'pets' 'dogg'; did you mean 'dog'"):
        evaluate_tags(tags, truth, splits=ClassSplits("mine", {"pets": ("dogg",)}))
    with pytest.raises(UserError, match=r"the score of 'bed' of 'p0' is nan"):
        evaluate_tags(tag_file(tmp_path / "n.parquet", [("p0", "bed", float("nan"))]), truth)


def test_accents_may_be_composed_otherwise_in_the_truth(tmp_path):
    scored = ("caf\u00e9.jpg", "a\u0308.jpg", "plain.jpg")
    rows = [(item, "dog", score) for item, score in zip(scored, (3.0, 2.0, 1.0), strict=True)]
    truth = tmp_path / "truth.csv"
    truth.write_text("id,labels\ncafe\u0301.jpg,dog\n\u00e4.jpg,\nplain.jpg,dog\n", encoding="utf-8")
    found = evaluate_tags(tag_file(tmp_path / "t.parquet", rows, scored), truth)
    assert found.precisions.items == 3
    # The positives stand first and third: (1/1 + 2/3) / 2.
    assert dict(zip(NAMES, found.precisions.values.tolist(), strict=True))["dog"] == pytest.approx(5 / 6)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_tags_with_decisions_are_no_ranking(tmp_path, truth, suffix):
    rows = [
        {"id": "p0", "tag": "bed", "score": 5.0, "probability": None, "threshold": None, "decision": "accept"},
        {"id": "p1", "tag": "sun", "score": None, "probability": None, "threshold": None, "decision": "add"},
    ]
    path = tmp_path / f"decided.{suffix}"
    batches = pa.Table.from_pylist(rows, schema=DECIDED_SCHEMA).to_batches()
    exporters.get(path).export(batches, path, {"class_names": json.dumps([*NAMES, "sun"])})
    with pytest.raises(
        UserError, match=r"holds what people decided.*that `tai tag` wrote; this one can be its --truth"
    ):
        evaluate_tags(path, truth)
    tags = tag_file(tmp_path / "t.parquet", [("p0", "bed", 5.0)])
    assert evaluate_tags(tags, path, options=TruthOptions("ignore")).precisions.items == 2
