"""How labels are packed, what tells two inputs apart, and which labels may go into one store."""

import hashlib
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tai_engine.errors import UserError
from tai_engine.store.layout.labels import (
    LabelSpec,
    add_digests,
    content_of,
    contents_digest,
    pack_labels,
    require_same_labels,
    unpack_labels,
)

PETS = LabelSpec(("cat", "dog"), "pets", "aaaa", {"language": "en", "limit": None, "templates": ["a {}."]})


def test_bits_by_hand():
    packed = pack_labels([(0, 9), (), (7,), (1, 2, 8)], 10)
    assert packed.dtype == np.uint8
    assert packed.tolist() == [[0b00000001, 0b10], [0, 0], [0b10000000, 0], [0b110, 0b1]]


@pytest.mark.parametrize(("classes", "size"), [(1, 1), (8, 1), (9, 2), (80, 10), (81, 11)])
def test_bytes_of_an_item(classes, size):
    assert LabelSpec(tuple(map(str, range(classes))), "v", "f").packed_bytes == size
    assert pack_labels([()], classes).shape == (1, size)


@given(st.data())
def test_labels_come_back(data):
    classes = data.draw(st.integers(1, 30))
    labels = data.draw(st.lists(st.sets(st.integers(0, classes - 1)), max_size=8))
    unpacked = unpack_labels(pack_labels([tuple(indices) for indices in labels], classes), classes)
    assert unpacked.shape == (len(labels), classes)
    assert [set(row.nonzero()[0].tolist()) for row in unpacked] == labels


@pytest.mark.parametrize("wrong", [-1, 10])
def test_labels_outside_the_classes_are_refused(wrong):
    with pytest.raises(ValueError, match="outside the 10 classes"):
        pack_labels([(1,), (2, wrong)], 10)


def test_labels_need_a_class():
    with pytest.raises(ValueError, match="at least one class"):
        LabelSpec((), "v", "f")


def test_the_digest_by_hand():
    lines = ['["1", "a \\u00fc", [0, 2]]', '["x", null, null]']
    hashes = [int.from_bytes(hashlib.blake2b(line.encode(), digest_size=16).digest(), "big") for line in lines]
    assert (
        contents_digest([content_of("1", "a ü", (2, 0)), content_of("x", None, None)]) == f"{sum(hashes) % 2**128:032x}"
    )
    assert contents_digest([]) == "0" * 32


@given(st.lists(st.text(max_size=4), max_size=8), st.randoms())
def test_the_digest_does_not_depend_on_order_or_parts(contents, random):
    whole = contents_digest(contents)
    shuffled = random.sample(contents, len(contents))
    cut = random.randint(0, len(contents))
    assert contents_digest(shuffled) == whole
    assert add_digests([contents_digest(shuffled[:cut]), contents_digest(shuffled[cut:])]) == whole


def test_contents_differ_by_every_part():
    contents = [
        content_of("1", "a", (0,)),
        content_of("2", "a", (0,)),
        content_of("1", "b", (0,)),
        content_of("1", "a", (0, 1)),
        content_of("1", "a", ()),
        content_of("1", "a", None),
        content_of("1", "", None),
        content_of("1", None, None),
        content_of('1", "a', None, None),
    ]
    assert len(set(contents)) == len(contents)
    assert content_of("1", "a", [1, 0, 1]) == content_of("1", "a", (0, 1))


def changed(**values):
    return LabelSpec(**{**vars(PETS), **values})


@pytest.mark.parametrize(
    ("stored", "wanted", "words"),
    [
        (PETS, None, ["has labels of the vocabulary 'pets' (aaaa)", "--vocabulary"]),
        (None, PETS, ["has no labels", "'pets' (aaaa)"]),
        (PETS, changed(vocabulary_fingerprint="bbbb"), ["'pets' has changed since", "aaaa then, bbbb now"]),
        (PETS, changed(vocabulary="zoo", vocabulary_fingerprint="bbbb"), ["'pets' (fingerprint aaaa)", "'zoo' (bbbb)"]),
        (PETS, changed(class_names=("dog", "cat")), ["'pets' has changed since"]),
        (
            PETS,
            changed(corpus={"language": "de", "limit": None, "templates": ["a {}."]}),
            ["corpus settings have changed", "language 'en' then, 'de' now)", PETS.corpus_fingerprint],
        ),
        (
            PETS,
            changed(corpus={"language": "en", "limit": 5, "templates": []}),
            ["limit None then, 5 now; templates ["],
        ),
        (PETS, changed(corpus={"language": "en", "templates": ["a {}."]}), ["limit None then, 'not set' now"]),
        (PETS, changed(corpus={**PETS.corpus, "words": ["w" * 500]}), ["…"]),
    ],
)
def test_other_labels_are_refused(stored, wanted, words):
    with pytest.raises(UserError) as caught:
        require_same_labels(stored, wanted, "the/path")
    message = str(caught.value)
    for word in [*words, "the/path"]:
        assert word in message
    assert len(message) < 500
    assert re.search(r"another store\.$", message)


def test_the_same_labels_pass():
    require_same_labels(None, None, "x")
    require_same_labels(PETS, PETS, "x")
    # What a vocabulary is called does not matter, nor the order of settings.
    renamed = changed(vocabulary="animals", corpus=dict(reversed(PETS.corpus.items())))
    require_same_labels(PETS, renamed, "x")
