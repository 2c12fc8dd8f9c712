"""The table's figures are those of the held-out half, whatever the calibration was made from."""

import numpy as np
import pytest

from tai_benchmarks.calibration_sources import LabelledScores, named_in, photograph_scores
from tai_benchmarks.calibration_table import markdown, mean_rows, rows
from tai_engine.sentences.nouns import NounFilter
from tai_engine.vocabulary import Vocabulary


def labelled(items, seed, shift=0.0):
    random = np.random.default_rng(seed)
    labels = np.where(random.random((items, 3)) < 0.3, 1, -1).astype(np.int8)
    return 3.0 * labels + random.normal(size=labels.shape) + shift, labels  # told apart nearly without error


def source(sentences=0, shift=0.0):
    scores, labels = labelled(800, 0)
    return LabelledScores("a", "b", scores, labels, *labelled(sentences, 1, shift))


def test_each_row_is_counted_on_the_other_half():
    found = list(rows(source(), (100, 400, 900), seed=1))
    assert [(row.made_from, row.examples, row.promise) for row in found] == [
        ("labels", 100, "each"),
        ("labels", 100, "together"),
        ("labels", 400, "each"),
        ("labels", 400, "together"),
        ("rates", 0, ""),
    ]
    for row in found[2:4]:
        assert row.kept == 3
        assert row.precision > 0.9
        assert row.recall > 0.9
        assert row.error < 0.02
    assert found[-1].kept == 0
    assert np.isnan(found[-1].precision)
    assert found[-1].recall == 0


def test_sentences_that_score_like_pictures_do_as_well_and_others_do_not():
    alike = {(row.made_from, row.promise): row for row in rows(source(500), (400,), seed=1)}
    assert alike["sentences", "together"].precision > 0.9
    assert alike["sentences", "together"].error < 0.02
    assert alike["rates of captions", ""].examples == 500
    higher = {(row.made_from, row.promise): row for row in rows(source(500, shift=5.0), (400,), seed=1)}
    assert higher["sentences", "together"].error > 0.1
    assert higher["rates of captions", ""].error == pytest.approx(alike["rates of captions", ""].error)


def test_means_and_the_table():
    tables = [list(rows(source(50), (100,), seed)) for seed in (0, 1)]
    mean = mean_rows(tables)
    assert mean[0].error == pytest.approx((tables[0][0].error + tables[1][0].error) / 2)
    assert np.isnan(mean[2].precision)
    lines = markdown(source(50), mean).splitlines()
    assert lines[:4] == ["## a", "", "b.", ""]
    assert len(lines) == 6 + len(mean)
    assert lines[8].startswith("| rates |  | 0.")
    assert lines[8].endswith("|  |  |  |  |")


def test_what_sentences_name():
    nouns = NounFilter(Vocabulary.from_names(["dog", "cat"]))
    assert named_in(["Two dogs.", "Nothing", "a cat and a dog"], nouns, 2).tolist() == [[1, -1], [-1, -1], [1, 1]]
    assert named_in([], nouns, 2).shape == (0, 2)


@pytest.mark.slow
def test_the_embedded_photographs_come_with_their_captions(monkeypatch):
    monkeypatch.setattr("tai_benchmarks.calibration_sources.CAPTION_STEP", 2000)
    found = photograph_scores()
    assert found.scores.shape == found.labels.shape == (152, 80)
    assert found.sentence_scores.shape == found.sentence_labels.shape == (11, 80)
    # A picture's scores are standardised over the classes.
    assert found.scores.mean(axis=1) == pytest.approx(0, abs=1e-5)
    assert found.sentence_scores.std(axis=1, ddof=1) == pytest.approx(1, abs=1e-4)
    # Labels go with their pictures: those of the classes there are higher.
    assert found.scores[found.labels == 1].mean() > found.scores[found.labels == -1].mean() + 1
