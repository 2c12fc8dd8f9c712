import pytest

from tai_benchmarks.photo_clip.wordnet import Nouns
from tai_engine.errors import UserError


def test_synsets_have_lemmas_parents_and_topic(nouns):
    dog = nouns.synsets[5]
    assert dog.lemmas == ("dog", "domestic dog")
    assert dog.parents == (4,)
    assert dog.topic == 5
    assert nouns.senses["ball"] == (10, 11)
    assert nouns.first_senses["ball"] == 10


@pytest.mark.parametrize(
    ("word", "lemma"),
    [
        ("dogs", "dog"),
        ("dog", "dog"),
        ("men", "man"),
        ("oxen", None),
        ("glasses", "glasses"),
        ("glass", "glass"),
        ("balls", "ball"),
        ("walked", None),
        ("s", None),
    ],
)
def test_the_lemma_of_a_word(nouns, word, lemma):
    assert nouns.lemma(word) == lemma


def test_ancestors_with_their_steps(nouns):
    assert nouns.ancestors(7) == {7: 0, 5: 1, 4: 2, 3: 3, 2: 4, 1: 5}
    assert nouns.ancestors(7, 2) == {7: 0, 5: 1, 4: 2}
    assert nouns.ancestors(7, 0) == {7: 0}
    assert nouns.depth(7) == 5
    assert nouns.depth(1) == 0


def test_a_missing_file_is_named(wordnet_folder):
    (wordnet_folder / "noun.exc").unlink()
    with pytest.raises(UserError, match=r"There is no .*noun\.exc: take WordNet 3\.0's dictionary files"):
        Nouns.read(wordnet_folder)
