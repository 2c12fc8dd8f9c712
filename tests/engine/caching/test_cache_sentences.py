"""Sentences into a store of the same kind, packed."""

import pytest
import torch

from fake_encoders import DictSource, FakeEncoder, png
from tai_engine.caching import CacheOptions, cache_images, cache_sentences
from tai_engine.errors import UserError
from tai_engine.store import FeatureStore

SENTENCES = [("1", "a dog"), ("2", "two cats on a sofa"), ("3", "  "), ("4", "rain"), ("ü", "ein Zug fährt")]
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
    cache_images(source, FakeEncoder(), path, decode=source.decode)
    with pytest.raises(UserError, match="holds images, not sentences"):
        cache_sentences(SENTENCES, FakeEncoder(), path)


def test_no_sentences_and_ids_that_come_twice(path):
    with pytest.raises(UserError, match="nothing to cache"):
        cache_sentences([], FakeEncoder(), path)
    assert not path.exists()
    with pytest.raises(UserError, match="The id '1' comes twice"):
        cache_sentences([("1", "a"), ("1", "b")], FakeEncoder(), path)
