from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tai_benchmarks import bench_corpus
from tai_benchmarks.bench_corpus import CorpusBenchConfig, PlainFilter, generated_sentences, generated_vocabulary
from tai_engine.errors import UserError
from tai_engine.sentences.nouns import NounFilter
from tai_engine.vocabulary import load_vocabulary

COCO = load_vocabulary("coco80")
OURS, PLAIN = NounFilter(COCO), PlainFilter(COCO)
WORDS = [word for entry in COCO.classes for word in entry.words][::7]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*WORDS, "hot", "dog", "bear", "old", "car"]), max_size=6))
def test_both_ways_agree_on_cocos_names(parts: list[str]) -> None:
    text = " ".join(parts)
    assert OURS.classes_in(text) == PLAIN.labels(text)


def test_the_plain_way_by_hand() -> None:
    assert [COCO.names[i] for i in PLAIN.labels("Two dogs dogs eat hot dogs near a teddy bear.")] == [
        "dog",
        "hot dog",
        "teddy bear",
    ]


def test_generated_sentences_are_the_same_every_time_and_hold_names() -> None:
    vocabulary = generated_vocabulary(50)
    texts = generated_sentences(vocabulary, 200)
    assert texts == generated_sentences(vocabulary, 200)
    noun_filter = NounFilter(vocabulary)
    labels = [noun_filter.classes_in(text) for text in texts]
    assert 100 < sum(map(bool, labels)) < 200  # a quarter has no name
    assert len({c for found in labels for c in found}) > 40


def test_rows_of_a_small_run() -> None:
    config = CorpusBenchConfig(sentences=60, rounds=3, classes=(80, 12))
    rows = list(bench_corpus.run(config))
    assert [(r.case, r.classes, r.candidate) for r in rows] == [
        (case, classes, name)
        for classes in (80, 12)
        for case in ("text", "jsonl", "coco-json")
        for name in ("tai", "published")
    ]
    assert all(row.value > 0 and row.unit == "sentences/s" for row in rows)
    assert all(row.ratio == 1.0 for row in rows if row.candidate == "published")


def test_a_wrong_label_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlainFilter, "labels", lambda self, text: (0, 1))
    with pytest.raises(RuntimeError, match="the two ways give"):
        list(bench_corpus.run(CorpusBenchConfig(sentences=5, rounds=1, classes=(12,))))


def test_options() -> None:
    assert bench_corpus.configure(quick=True).rounds < bench_corpus.configure(quick=False).rounds
    with pytest.raises(UserError, match="Unknown case 'txt'; did you mean 'text'"):
        CorpusBenchConfig(cases=("txt",))
    with pytest.raises(UserError, match="give numbers from 1"):
        CorpusBenchConfig(sentences=0)
    with pytest.raises(UserError, match=r"gone\.txt cannot be read"):
        list(bench_corpus.run(CorpusBenchConfig(file=Path("gone.txt"))))
