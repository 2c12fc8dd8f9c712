import numpy as np
import pytest

from tai_engine.demo.sentences import DRAWN_CLASSES, SentenceWriter, embedded_sentences, generate_sentences, plural
from tai_engine.sentences.nouns import NounFilter
from tai_engine.vocabulary import load_vocabulary


@pytest.mark.parametrize(
    ("noun", "wanted"),
    [
        ("dog", "dogs"),
        ("wine glass", "wine glasses"),
        ("knife", "knives"),
        ("baby", "babies"),
        ("toy", "toys"),
        ("bench", "benches"),
        ("computer mouse", "computer mice"),
        ("sheep", "sheep"),
        ("policeman", "policemen"),
        ("cup of tea", "cups of tea"),
        ("skis", "skis"),
    ],
)
def test_plural(noun: str, wanted: str) -> None:
    assert plural(noun) == wanted


def test_sentences_are_the_same_every_time_and_all_different() -> None:
    sentences = generate_sentences(300, seed=3)

    assert sentences == generate_sentences(300, seed=3)
    assert sentences != generate_sentences(300, seed=4)
    assert len(set(sentences)) == 300
    assert all(sentence[0].isupper() and sentence == sentence.strip() for sentence in sentences)


def test_embedded_sentences_are_those_of_the_generator() -> None:
    embedded = embedded_sentences()

    assert len(embedded) == 5000
    assert embedded == generate_sentences(5000, seed=0)


def test_pieces_join_to_the_sentence_and_name_exactly_the_given_classes() -> None:
    writer = SentenceWriter()
    for seed in range(50):
        rng = np.random.default_rng(seed)
        names = [DRAWN_CLASSES[i] for i in rng.choice(len(DRAWN_CLASSES), size=3, replace=False)]
        pieces = writer.pieces(np.random.default_rng(seed), names)

        text = "".join(piece.text for piece in pieces)
        assert sorted(piece.class_name for piece in pieces if piece.class_name) == sorted(names)
        assert writer.sentence(np.random.default_rng(seed), names) == text[0].upper() + text[1:]


def test_the_noun_filter_finds_the_classes_that_were_written() -> None:
    vocabulary = load_vocabulary("coco80")
    nouns = NounFilter(vocabulary)
    writer = SentenceWriter()
    rng = np.random.default_rng(11)
    wrong = []
    for _ in range(500):
        names = [DRAWN_CLASSES[i] for i in rng.choice(len(DRAWN_CLASSES), size=int(rng.integers(1, 5)), replace=False)]
        sentence = writer.sentence(rng, names)
        found = {vocabulary.names[index] for index in nouns.classes_in(sentence)}
        if found != set(names):
            wrong.append((sentence, sorted(names), sorted(found)))

    assert len(wrong) <= 5, wrong[:10]


def test_every_word_is_still_one_of_its_class_in_the_vocabulary() -> None:
    words = {entry.name: set(entry.words) for entry in load_vocabulary("coco80").classes}

    assert SentenceWriter().words.keys() == words.keys()
    for name, written in SentenceWriter().words.items():
        assert written[0] == name
        assert set(written) <= words[name]
