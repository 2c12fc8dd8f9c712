"""Calibrations of a store whose pictures' probabilities are known."""

import numpy as np
import pytest
import torch

from feature_samples import small_spec, write_group
from tai_engine.annotating.calibrate_store import Labelled, calibrate_by_labels, calibrate_by_rates
from tai_engine.annotating.calibration_files import PER_TAG, PLOT, read_rates, write_report
from tai_engine.calibration.thresholds import Target
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.review.decisions import PictureDecision
from tai_engine.store import FeatureStore, StoredItem
from tai_engine.tagging.scoring import ScoringConfig

ITEMS, DIM, CLASSES = 600, 16, 3
SCORING = ScoringConfig(which="coarse", scale=10.0)
NAMES = ("cat", "dog", "bird")


def unit(*shape, seed):
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """A store, prompts, and labels drawn with the probability ``sigmoid(2 score - 3)``."""
    spec = small_spec(dim=DIM, rows_per_item_max=1, group_items=1024)
    store = FeatureStore.create(tmp_path_factory.mktemp("calibrate") / "s.zarr", spec)
    ids = tuple(f"{n}.jpg" for n in range(ITEMS))
    coarse = unit(ITEMS, DIM, seed=1)
    fine = unit(ITEMS, DIM, seed=2)
    write_group(
        store,
        0,
        [StoredItem(name) for name in ids],
        [FeatureBatch(ids, coarse.half(), fine.half(), torch.arange(ITEMS + 1), spec.space_key)],
    )
    vectors = unit(CLASSES, DIM, seed=3)
    prompts = PromptSet(NAMES, vectors, vectors, spec.space_key, logit_scale=10.0)
    scores = (10 * coarse @ vectors.T).numpy()
    random = np.random.default_rng(0)
    there = random.random(scores.shape) < 1 / (1 + np.exp(3 - 2 * scores))
    return store, prompts, Labelled(ids, np.where(there, 1, -1).astype(np.int8))


def test_curves_are_those_that_the_labels_were_drawn_with(collection):
    store, prompts, labelled = collection
    seen = []
    result = calibrate_by_labels(
        store, prompts, SCORING, labelled, [Target("precision", 0.7)], progress=lambda *given: seen.append(given)
    )
    found = result.calibration
    assert np.allclose(found.curves.slopes, 2.0, atol=0.35)
    assert np.allclose(found.curves.intercepts, -3.0, atol=0.5)
    assert (found.examples, found.made_from, result.missing) == (ITEMS, "labels", 0)
    assert found.positives == tuple((labelled.labels == 1).sum(0).tolist())
    assert found.promises[0].kept == 3
    assert result.held_out.items == 180
    assert result.fitted.items == 420
    assert result.held_out.precision > 0.6
    assert result.held_out.reliability.error < 0.05
    assert seen[-1] == (ITEMS, ITEMS)


def test_pictures_that_are_not_in_the_store_are_counted(collection):
    store, prompts, labelled = collection
    more = Labelled(("gone.jpg", *labelled.ids), np.concatenate([labelled.labels[:1], labelled.labels]))
    assert calibrate_by_labels(store, prompts, SCORING, more, []).missing == 1
    with pytest.raises(UserError, match=r"None of the 1 labelled pictures \(first 'gone\.jpg'\) is in the store"):
        calibrate_by_labels(store, prompts, SCORING, Labelled(("gone.jpg",), labelled.labels[:1]), [])


def test_too_few_to_hold_any_out(collection):
    store, prompts, labelled = collection
    few = Labelled(labelled.ids[:40], labelled.labels[:40])
    result = calibrate_by_labels(store, prompts, SCORING, few, [Target("precision", 0.7)])
    assert result.held_out is result.fitted is None


def test_decisions_are_labels():
    decisions = {
        "a.jpg": PictureDecision({"cat": "accept", "dog": "reject", "unicorn": "add"}),
        "b.jpg": PictureDecision({"bird": "add"}, is_none=False),
        "c.jpg": PictureDecision({}, is_none=True),
    }
    labelled = Labelled.of_decisions(decisions, NAMES)
    assert labelled.ids == ("a.jpg", "b.jpg", "c.jpg")
    assert labelled.labels.tolist() == [[1, -1, 0], [0, 0, 1], [-1, -1, -1]]
    assert Labelled.of_decisions({}, NAMES).labels.shape == (0, 3)


def test_rates_alone(collection, tmp_path):
    store, prompts, labelled = collection
    rates = dict(zip(NAMES, (labelled.labels == 1).mean(0).tolist(), strict=True))
    result = calibrate_by_rates(store, prompts, SCORING, rates)
    assert (result.calibration.made_from, result.calibration.promises) == ("rates", ())
    path = tmp_path / "rates.csv"
    path.write_text("tag,rate\n" + "".join(f"{name},{rate}\n" for name, rate in rates.items()))
    assert read_rates(path) == pytest.approx(rates)
    with pytest.raises(UserError, match=r"no rate for 'bird' \(1 words lack one\)"):
        calibrate_by_rates(store, prompts, SCORING, {"cat": 0.1, "dog": 0.1})
    path.write_text("tag,rate\ncat,often\n")
    with pytest.raises(UserError, match="the rate of 'cat' is no number"):
        read_rates(path)
    path.write_text("Tag,RATE\ncat,0.1\n")
    assert read_rates(path) == {"cat": 0.1}
    path.write_text("dog,0.5\ncat,0.2\n")
    with pytest.raises(UserError, match=r"needs the columns 'tag' and 'rate', and has 'dog', '0\.5'"):
        read_rates(path)
    path.write_text("tag,rate\ncat,0.1\ncat,0.2\n")
    with pytest.raises(UserError, match="'cat' comes twice"):
        read_rates(path)


def test_the_report_has_both_parts(collection, tmp_path):
    store, prompts, labelled = collection
    write_report(calibrate_by_labels(store, prompts, SCORING, labelled, [Target("f1", 0.5)]), tmp_path / "report")
    rows = (tmp_path / "report" / PER_TAG).read_text().splitlines()
    assert rows[0].startswith("part,tag,positives,brier")
    assert [row.split(",")[:2] for row in rows[1:]] == [[part, n] for part in ("fitted", "held out") for n in NAMES]
    assert (tmp_path / "report" / PLOT).stat().st_size > 5_000


def test_rates_and_labels_are_found_however_they_are_spelt(collection, tmp_path):
    store, prompts, _ = collection
    (tmp_path / "rates.csv").write_text("tag,rate\nCat,0.5\n_dog,0.5\nbird ,0.5\n", encoding="utf-8")
    assert calibrate_by_rates(store, prompts, SCORING, read_rates(tmp_path / "rates.csv")).calibration.examples == ITEMS
    (tmp_path / "twice.csv").write_text("tag,rate\ncaf\u00e9,0.5\ncafe\u0301,0.5\n", encoding="utf-8")
    with pytest.raises(UserError, match="comes twice"):
        read_rates(tmp_path / "twice.csv")


def test_decisions_on_a_class_hold_however_its_accents_are_composed():
    decided = {"a.jpg": PictureDecision({"cafe\u0301": "accept"}), "b.jpg": PictureDecision({"caf\u00e9": "reject"})}
    assert Labelled.of_decisions(decided, ["caf\u00e9", "dog"]).labels.tolist() == [[1, 0], [-1, 0]]
