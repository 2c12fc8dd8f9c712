"""Which words count as known."""

from tai_benchmarks.photo_clip.taught_words import count_words, known_words, write_known_words
from tai_engine.encoders.known_words import KNOWN_WORDS, read_known_words


def test_words_of_names_and_of_enough_photographs():
    captions = [("A dog runs.", "the dog"), ("dog on a T-shirt",), ("Dogs and a dog, 3",), ("a dog",)]
    counts = count_words(captions)
    assert (counts["dog"], counts["dogs"], counts["a"], counts["shirt"]) == (4, 1, 4, 1)
    assert counts["3"] == 0
    words = known_words(["zebra crossing"], counts, least=4)
    assert {"zebra", "crossing", "dog", "a"} <= set(words)
    assert not {"dogs", "shirt", "runs"} & set(words)
    assert {"photo", "sculpture"} <= set(words)  # of CLIP's templates, which names are taught in
    assert list(words) == sorted(words)


def test_the_list_is_read_as_it_was_written(tmp_path):
    write_known_words(("cat", "dog"), tmp_path / KNOWN_WORDS)
    assert read_known_words(tmp_path) == {"cat", "dog"}
