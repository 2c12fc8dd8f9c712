"""Sentences into a store of the same kind, packed."""

import pytest
import torch

from dict_source import DictSource, png
from fake_encoders import FakeEncoder
from tai_engine.caching.images import cache_images
from tai_engine.caching.report import CacheOptions
from tai_engine.caching.texts import MAX_TEXT_CHARACTERS, cache_sentences
from tai_engine.errors import UserError
from tai_engine.store import FeatureStore, LabelSpec

SENTENCES = [
    ("1", "a dog", None),
    ("2", "two cats on a sofa", None),
    ("3", "  ", None),
    ("4", "rain", None),
    ("ü", "ein Zug fährt", None),
]
CLASSES = LabelSpec(("dog", "cat", "sofa"), "pets", "aaaa", {"language": "en"})
LABELLED = [("1", "a dog", (0,)), ("2", "two cats on a sofa", [2, 1, 1]), ("4", "rain", ())]
SMALL = CacheOptions(group_items=4, slice_items=2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


def test_sentences_are_packed_in_order(path):
    encoder = FakeEncoder()
    report = cache_sentences(iter(SENTENCES), encoder, path, total=5, options=SMALL)
    store = FeatureStore.open(path)
    assert (store.spec.kind, store.spec.recipe_key) == ("sentences", "text16:fake")
    assert (store.spec.rows_per_item_max, store.spec.recipe) == (16, {"context_length": 16})
    assert (store.spec.has_text, store.spec.labels) == (True, None)
    assert [i.text for i in store.ledger()] == [text for _, text, _ in SENTENCES]
    assert [(i.id, i.status, i.reason) for i in store.ledger()] == [
        ("1", "done", None),
        ("2", "done", None),
        ("3", "failed", "empty: the sentence has no words"),
        ("4", "done", None),
        ("ü", "done", None),
    ]
    first = store.read_group(0)
    assert first.ids == ("1", "2", "4")
    assert first.counts.tolist() == [2, 5, 1]
    dog = torch.nn.functional.normalize(torch.tensor([3.0, 1.0, float(ord("d")), 2.0]), dim=0).half()
    assert torch.equal(first.fine[1], dog)
    assert store.read_group(1).ids == ("ü",)
    assert (report.done, report.failed, report.skipped, report.reasons) == (4, 1, 0, {"empty": 1})
    assert encoder.batches == [2, 1, 1]


def test_more_sentences_are_added(path):
    cache_sentences(SENTENCES[:3], FakeEncoder(), path, options=SMALL)
    encoder = FakeEncoder()
    report = cache_sentences(SENTENCES, encoder, path, options=SMALL)
    assert (report.done, report.skipped) == (2, 3)
    assert encoder.batches == [2]
    assert [i.id for i in FeatureStore.open(path).ledger()] == ["1", "2", "3", "4", "ü"]


def test_towers_without_token_rows_give_coarse_stores(path):
    class CoarseEncoder(FakeEncoder):
        def encode_sentences(self, sentences, ids):
            batch = super().encode_sentences(sentences, ids)
            return type(batch)(batch.ids, batch.coarse, batch.fine[:0], batch.offsets * 0, batch.space_key)

    encoder = CoarseEncoder()
    encoder.has_fine_sentences = False
    cache_sentences(SENTENCES, encoder, path, options=SMALL)
    store = FeatureStore.open(path)
    assert not store.spec.has_fine
    assert len(store.read_group(0)) == 3


def test_pictures_and_sentences_do_not_share_a_store(path):
    source = DictSource({"a": png("red")})
    cache_images(source, FakeEncoder(), path)
    with pytest.raises(UserError, match="holds images, not sentences"):
        cache_sentences(SENTENCES, FakeEncoder(), path)


def test_no_sentences_and_ids_that_come_twice(path):
    with pytest.raises(UserError, match="nothing to cache"):
        cache_sentences([], FakeEncoder(), path)
    assert not path.exists()
    with pytest.raises(UserError, match="The id '1' comes twice"):
        cache_sentences([("1", "a", None), ("1", "b", None)], FakeEncoder(), path)


def test_labels_go_with_their_sentences(path):
    cache_sentences(LABELLED, FakeEncoder(), path, labels=CLASSES, options=SMALL)
    store = FeatureStore.open(path)
    assert store.spec.labels == CLASSES
    assert [(i.id, i.text, i.labels) for i in store.ledger()] == [
        ("1", "a dog", (0,)),
        ("2", "two cats on a sofa", (1, 2)),
        ("4", "rain", ()),
    ]
    (batch,) = store.iter_coarse()
    assert batch.labels.tolist() == [[True, False, False], [False, True, True], [False, False, False]]


@pytest.mark.parametrize("labels", [None, CLASSES])
def test_labels_have_to_come_with_their_meaning(path, labels):
    given = SENTENCES if labels else LABELLED
    with pytest.raises(ValueError, match="every item needs labels" if labels else "keeps no labels"):
        cache_sentences(given, FakeEncoder(), path, labels=labels, options=SMALL)
    assert FeatureStore.open(path).groups() == []


def test_other_vocabularies_and_settings_are_refused(path):
    cache_sentences(LABELLED, FakeEncoder(), path, labels=CLASSES, options=SMALL)
    encoder = FakeEncoder()
    for labels, words in (
        (LabelSpec(CLASSES.class_names, "pets", "bbbb", CLASSES.corpus), "aaaa then, bbbb now"),
        (LabelSpec(CLASSES.class_names, "pets", "aaaa", {"language": "de"}), "language 'en' then, 'de' now"),
        (None, "has labels of the vocabulary 'pets'"),
    ):
        with pytest.raises(UserError, match=words):
            cache_sentences(LABELLED, encoder, path, labels=labels, options=SMALL)
    assert encoder.batches == []


@pytest.mark.parametrize(
    "changed",
    [
        ("2", "two cats on a mat", (1, 2)),  # another text under an old id: another file
        ("2", "two cats on a sofa", (1,)),  # other labels
    ],
)
def test_a_store_is_not_gone_on_with_from_other_sentences(path, changed):
    cache_sentences(LABELLED, FakeEncoder(), path, labels=CLASSES, options=SMALL)
    before = FeatureStore.open(path).data_fingerprint
    sentences = [LABELLED[0], changed, ("9", "new", ())]
    with pytest.raises(UserError, match=r"made from other sentences: .*'2' is 'two cats.*same files"):
        cache_sentences(sentences, FakeEncoder(), path, labels=CLASSES, options=SMALL)
    assert FeatureStore.open(path).data_fingerprint == before


def test_going_on_gives_the_same_store(path):
    whole, parts = path / "whole", path / "parts"
    sentences = [(f"{n}", f"sentence number {n}", (n % 3,)) for n in range(11)]
    cache_sentences(sentences, FakeEncoder(), whole, labels=CLASSES, options=SMALL)

    class StoppedError(Exception):
        pass

    def stopping():
        yield from sentences[:6]
        raise StoppedError

    with pytest.raises(StoppedError):
        cache_sentences(stopping(), FakeEncoder(), parts, labels=CLASSES, options=SMALL)
    assert len(FeatureStore.open(parts)) == 4
    report = cache_sentences(sentences, FakeEncoder(), parts, labels=CLASSES, options=SMALL)
    assert (report.skipped, report.done) == (4, 7)
    first, second = FeatureStore.open(whole), FeatureStore.open(parts)
    assert list(first.ledger()) == list(second.ledger())
    assert first.data_fingerprint == second.data_fingerprint
    for group in first.groups():
        assert torch.equal(first.read_group(group).fine, second.read_group(group).fine)


def test_slices_are_long_enough_for_sorting_by_length(path):
    encoder = FakeEncoder()
    cache_sentences(((f"{n}", "a b", None) for n in range(2500)), encoder, path)
    assert encoder.batches == [1024, 1024, 452]


def test_very_long_texts_are_cut(path):
    text = "word " * 10_000
    encoder = FakeEncoder()
    encoder.context_length = 4000
    cache_sentences([("1", text, None)], encoder, path, options=SMALL)
    store = FeatureStore.open(path)
    assert store.read_texts([0]) == [text[:MAX_TEXT_CHARACTERS]]
    assert cache_sentences([("1", text, None)], encoder, path, options=SMALL).skipped == 1
