import pytest

from tai_benchmarks.photo_clip.captions import Mention, frequent_nouns, mentions, read_captions, words_of
from tai_engine.errors import UserError


def test_compounds_come_first_and_take_their_words(nouns):
    assert mentions("Two men with a hot dog and dogs .", nouns) == [
        Mention("man", 1, 1),
        Mention("hot dog", 4, 2),
        Mention("dog", 7, 1),
    ]


def test_stop_words_begin_no_noun(nouns):
    assert mentions("a black cat runs past the ball", nouns) == [Mention("cat", 2, 1), Mention("ball", 6, 1)]
    assert mentions("", nouns) == []


def test_words_keep_inner_hyphens():
    assert words_of("A man in a T-shirt, 2 dogs.") == ["a", "man", "in", "a", "t-shirt", "dogs"]


def test_a_noun_counts_once_a_photograph():
    dog, cat = Mention("dog", 0, 1), Mention("cat", 0, 1)
    photographs = [[[dog, dog], [dog]], [[dog, cat]], [[cat], []], [[dog]]]
    assert frequent_nouns(photographs, 2) == ("cat", "dog")
    assert frequent_nouns(photographs, 3) == ("dog",)


def test_captions_are_read_by_photograph_in_the_order_of_the_names(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("b.jpg#0\tA dog .\na.jpg#0\tA cat .\nb.jpg#1\tThe dog\tsits .\nc.jpg#0\tNobody has this .\n")
    found = read_captions(path, ["a.jpg", "b.jpg"])
    assert found.names == ("a.jpg", "b.jpg")
    assert found.captions == (("A cat .",), ("A dog .", "The dog\tsits ."))
    with pytest.raises(UserError, match=r"1 photographs have no caption in .*, such as d\.jpg"):
        read_captions(path, ["a.jpg", "d.jpg"])
    with pytest.raises(UserError, match="There is no file of captions"):
        read_captions(tmp_path / "none.txt", ["a.jpg"])
