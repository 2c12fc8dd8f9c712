"""The least score that an embedded model brings is said where nobody has said another."""

import shutil

import pytest

from tai_engine.encoders.embedded import embedded_folder

FOLDER = embedded_folder("photos")


def test_tagging_says_it_to_who_looks_at_the_best_tags(tai, tmp_path):
    def said(*options):
        outcome = tai("tag", FOLDER / "coco_photographs.zarr", "--out", tmp_path / "tags.parquet", *options)
        assert outcome.status == 0
        return " ".join(outcome.stderr.split())

    words = ("--vocabulary", "coco80")
    line = (
        "Some words are near to every picture for this model: what scores below 3 is rarely right, and --threshold 3 "
        "leaves it out."
    )
    assert line in said(*words, "--top-k", "5")
    for others in ((), ("--top-k", "5", "--threshold", "2"), ("--top-k", "5", "--normalise", "none")):
        assert "rarely right" not in said(*words, *others)
    few = tmp_path / "few.txt"
    few.write_text("dog\ncat\n")
    assert "rarely right" not in said("--vocabulary", few, "--top-k", "5")  # of so few, scores are on another scale


@pytest.mark.slow
def test_annotating_with_few_words_says_that_there_is_none(tai, tmp_path):
    (tmp_path / "photos").mkdir()
    shutil.copy(FOLDER / "photographs" / "pizza.jpg", tmp_path / "photos")
    (tmp_path / "words.txt").write_text("dog\npizza\n")
    common = ("annotate", tmp_path / "photos", "--model", "photos", "--vocabulary", tmp_path / "words.txt")
    outcome = tai(*common, "--no-report", "--out", tmp_path / "own")
    assert outcome.status == 0
    said = " ".join(outcome.stderr.split())
    assert (
        "Of fewer than 20 words no least score is known for this model: every picture gets its best 2, right or not. "
        "Give more words (even such as you do not look for), or a --threshold of your own."
    ) in said
    outcome = tai(*common, "--no-report", "--out", tmp_path / "other", "--threshold", "1")
    assert "least score" not in outcome.stderr
