"""The file of a calibration: written whole, read back equal, refused where it does not belong."""

import json

import numpy as np
import pytest

from tai_engine.calibration.calibration import Calibration, Promise, Steps
from tai_engine.calibration.logistic import LogisticCurves
from tai_engine.calibration.thresholds import Target, Threshold
from tai_engine.errors import UserError

THRESHOLDS = (Threshold(0.5, 0.91, 0.95), Threshold(None, reason="nobody has it"), Threshold(2.0))


def calibration(**changes):
    values = {
        "class_names": ("cat", "größe_2", "10% off"),
        "prompts_sha256": "ab" * 32,
        "scoring": {"which": "merged", "scale": 4.0},
        "made_from": "labels",
        "examples": 120,
        "positives": (30, 2, 0),
        "curves": LogisticCurves(np.array([-1.0, 0.0, -5.0]), np.array([2.0, 1.0, 0.0])),
        "steps": {"cat": Steps((0.0, 1.0), (0.25, 0.75))},
        "promises": (
            Promise(Target("precision", 0.9), THRESHOLDS),
            Promise(Target("f1", 0.5, 0.8, True), (Threshold(0.0),) * 3),
        ),
    }
    return Calibration(**values | changes)


def test_it_comes_back_as_it_was(tmp_path):
    path = tmp_path / "c.json"
    calibration().save(path)
    found, made = Calibration.load(path), calibration()
    assert found.class_names == made.class_names
    assert found.promises == made.promises
    assert (found.made_from, found.examples, found.positives) == ("labels", 120, (30, 2, 0))
    assert found.scoring == made.scoring
    assert np.array_equal(found.curves.intercepts, made.curves.intercepts)
    scores = np.random.default_rng(0).normal(size=(50, 3))
    assert np.array_equal(found.probabilities(scores), made.probabilities(scores))


def test_probabilities_by_hand():
    found = calibration().probabilities(np.array([[0.5, 0.0, 9.0], [-np.inf, -np.inf, -np.inf], [7.0, np.log(3), 0.0]]))
    rare = 1 / (1 + np.exp(5.0))
    assert np.allclose(found[0], [0.5, 0.5, rare])
    assert np.allclose(found[2], [0.75, 0.75, rare])
    assert found[1, 1] == found[1, 2] == 0
    assert found[1, 0] == 0.25  # the curve's points end there


def test_thresholds_that_cannot_be_kept_are_never_reached():
    promise = calibration().promise("precision", 0.9)
    assert promise.least_scores.tolist() == [0.5, np.inf, 2.0]
    assert promise.kept == 2
    with pytest.raises(UserError, match=r"precision of 0\.8 \(it has: precision 0\.9, f1 0\.5\)"):
        calibration().promise("precision", 0.8)
    with pytest.raises(UserError, match="none, as nothing was labelled"):
        calibration(promises=()).promise("recall", 0.5)


def test_scores_of_another_kind_are_refused():
    made = calibration()
    made.require_fits(made.class_names, made.prompts_sha256, made.scoring)
    with pytest.raises(UserError, match="for other prompts"):
        made.require_fits(made.class_names, "cd" * 32, made.scoring)
    with pytest.raises(UserError, match="for other prompts"):
        made.require_fits(made.class_names[:2], made.prompts_sha256, made.scoring)
    with pytest.raises(UserError, match=r"for other scores: scale is 4\.0 there and 5 here"):
        made.require_fits(made.class_names, made.prompts_sha256, {"which": "merged", "scale": 5})


def changed(path, change):
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.update(format="other"), "format"),
        (lambda v: v.update(version=2), "version 2"),
        (lambda v: v.update(tags=[]), "none or not unique"),
        (lambda v: v["tags"].append(v["tags"][0]), "not unique"),
        (lambda v: v["tags"][0].update(slope=-1.0), "falls"),
        (lambda v: v["tags"][0].update(slope=float("nan")), "it holds NaN"),
        (lambda v: v["tags"][0]["steps"].update(scores=[1.0, 0.0]), "fall"),
        (lambda v: v["tags"][0]["steps"].update(probabilities=[0.5, 1.5]), "leaves"),
        (lambda v: v["promises"][0]["thresholds"][0].update(score=float("inf")), "it holds Infinity"),
        (lambda v: v["promises"][0]["thresholds"].pop(), "one threshold a tag"),
        (lambda v: v["promises"][0]["target"].update(value=7), "wanted is 7"),
        (lambda v: v.pop("prompts_sha256"), "prompts_sha256"),
        (lambda v: v.update(tags="cat"), "calibration"),
    ],
)
def test_files_that_were_changed_are_refused(tmp_path, change, words):
    path = tmp_path / "c.json"
    calibration().save(path)
    changed(path, change)
    with pytest.raises(UserError, match=words):
        Calibration.load(path)


@pytest.mark.parametrize("text", ["", "[]", "nothing", "{" * 100_000, '{"format": "tai-calibration"'])
def test_files_that_are_none_are_refused(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(UserError, match="is not a calibration"):
        Calibration.load(path)
    with pytest.raises(UserError, match="There is no calibration"):
        Calibration.load(tmp_path / "missing.json")
