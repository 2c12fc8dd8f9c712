import itertools

import numpy as np
import pytest
import torch

from sentence_stores import example_sentences, write_store
from tai_engine.errors import UserError
from tai_engine.tuning import TuningConfig, sentence_table
from tai_engine.tuning.sentence_table import MIX, EpochOrder, StoredVectors, generator_of, split_sentences


def test_every_labelled_sentence_is_in_one_of_the_two(sentence_store):
    split = split_sentences(sentence_store, 0.3)
    positions = torch.cat([split.training.positions, split.held_out.positions]).sort().values.tolist()
    # Groups of 16 slots; 3 and 40 failed.
    assert positions == [n for n in range(90) if n not in (3, 40)]
    assert 10 < len(split.held_out) < 45
    assert split.training.positions.diff().min() > 0
    sentences = example_sentences(90)
    for table in split:
        labels = table.labels(torch.arange(len(table)))
        assert [tuple(row.nonzero().flatten().tolist()) for row in labels] == [
            sentences[n][1] for n in table.positions.tolist()
        ]
        assert table.class_counts().tolist() == labels.sum(dim=0).tolist()
        holders = table.holders()
        assert [holders.of(c).tolist() for c in range(5)] == [
            labels[:, c].nonzero().flatten().tolist() for c in range(5)
        ]


def test_places_are_rows_of_the_group(sentence_store):
    table = split_sentences(sentence_store, 0.3).training
    groups = table.positions // 16
    for group in (0, 2):  # both have a failed sentence
        ids = sentence_store.read_group(group).ids
        for position, place in zip(table.positions[groups == group], table.places[groups == group], strict=True):
            assert ids[int(place)] == str(int(position))


def test_labels_of_some_in_any_order(sentence_store):
    table = split_sentences(sentence_store, 0).training
    every = table.labels(torch.arange(len(table)))
    index = torch.tensor([7, 0, 7, 60])
    assert torch.equal(table.labels(index), every[index])
    assert table.labels(torch.zeros(0, dtype=torch.int64)).shape == (0, 5)


def test_nothing_is_held_out_unless_asked(sentence_store):
    assert [len(table) for table in split_sentences(sentence_store, 0)] == [88, 0]


def test_equal_texts_stay_together_and_new_ones_move_nobody(tmp_path, encoder, vocabulary):
    few = [*example_sentences(20), *[("a photo of a dog.", (0,))] * 9]
    first = split_sentences(write_store(tmp_path / "a.zarr", encoder, vocabulary, few), 0.4)
    copies = {p in set(first.held_out.positions.tolist()) for p in range(20, 29)}
    assert len(copies) == 1
    more = split_sentences(
        write_store(tmp_path / "b.zarr", encoder, vocabulary, [*few, *example_sentences(60)[20:]]), 0.4
    )
    before = [p for p in more.held_out.positions.tolist() if p < 29]
    assert before == first.held_out.positions.tolist()


def test_a_store_without_texts_goes_by_ids(tmp_path, encoder, vocabulary):
    same = [("a photo of a dog.", (0,))] * 60
    split = split_sentences(write_store(tmp_path / "s.zarr", encoder, vocabulary, same, has_text=False), 0.4)
    assert len(split.training) + len(split.held_out) == 60
    assert 5 < len(split.held_out) < 50


def test_so_many_are_held_out_at_most(sentence_store, monkeypatch):
    whole = split_sentences(sentence_store, 0.5).held_out.positions.tolist()
    monkeypatch.setattr(sentence_table, "_HELD_OUT_SENTENCES", 6)
    limited = split_sentences(sentence_store, 0.5)
    assert len(limited.held_out) == 6
    assert set(limited.held_out.positions.tolist()) < set(whole)
    assert len(limited.training) == 82
    monkeypatch.setattr(sentence_table, "_HELD_OUT_SCORES", 17)  # 3 sentences of 5 classes
    assert len(split_sentences(sentence_store, 0.5).held_out) == 3


def test_sentences_without_a_class_do_not_train(tmp_path, encoder, vocabulary):
    store = write_store(tmp_path / "s.zarr", encoder, vocabulary, [("nothing here", ()), ("a dog", (0,))])
    assert split_sentences(store, 0).training.positions.tolist() == [1]
    store = write_store(tmp_path / "n.zarr", encoder, vocabulary, [("nothing here", ())])
    with pytest.raises(UserError, match="has no labelled sentence to train on"):
        split_sentences(store, 0)


def test_stored_vectors_are_those_of_the_table(sentence_store):
    table = split_sentences(sentence_store, 0.3).training
    vectors = StoredVectors(table)
    every = sentence_store.read_items(table.positions).coarse
    assert vectors.shape == tuple(every.shape)
    assert torch.equal(vectors[0 : len(table)], every)
    assert torch.equal(vectors[10:35], every[10:35])
    assert torch.equal(vectors[np.array([0, 30, 31])], every[[0, 30, 31]])
    assert vectors[5:5].shape == (0, every.shape[1])


def make_order(store, **changes):
    table = split_sentences(store, 0).training
    return table, EpochOrder(table, TuningConfig(**{"batch_size": 20, "window_groups": 2} | changes))


@pytest.mark.parametrize("window_groups", [1, 2, 100])
@pytest.mark.parametrize("batch_size", [1, 20, 33, 88])
def test_an_epoch_sees_every_sentence_once_but_for_the_last_incomplete_batch(sentence_store, window_groups, batch_size):
    table, order = make_order(sentence_store, batch_size=batch_size, window_groups=window_groups)
    assert order.steps == 88 // batch_size
    batches = list(order.batches(0))
    assert [len(indices) for _, indices in batches] == [batch_size] * order.steps
    seen = torch.cat([indices for _, indices in batches]).tolist()
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(88))
    for batch, indices in batches:
        assert batch.ids == tuple(map(str, table.positions[indices].tolist()))
    batch, indices = batches[-1]
    expected = sentence_store.read_items(table.positions[indices])
    assert torch.equal(batch.coarse, expected.coarse)
    assert torch.equal(batch.fine, expected.fine)
    assert torch.equal(batch.offsets, expected.offsets)


def test_order_depends_on_seed_and_epoch_alone(sentence_store):
    def of(seed, epoch):
        _, order = make_order(sentence_store, seed=seed)
        return [indices.tolist() for _, indices in order.batches(epoch)]

    assert of(1, 0) == of(1, 0)
    assert of(1, 0) != of(1, 1)
    assert of(1, 0) != of(2, 0)


@pytest.mark.parametrize("first", [0, 1, 3, 4])
def test_going_on_in_the_middle_gives_the_rest(sentence_store, first, monkeypatch):
    _, order = make_order(sentence_store)
    whole = [indices.tolist() for _, indices in order.batches(3)]
    read = []
    real = type(sentence_store).read_group
    monkeypatch.setattr(type(sentence_store), "read_group", lambda self, g: read.append(g) or real(self, g))
    assert [indices.tolist() for _, indices in order.batches(3, first)] == whole[first:]
    assert len(read) == (6 if first < 2 else len(read))
    if first == 4:
        assert read == []  # what is skipped is not read


def test_a_window_holds_its_groups_only(sentence_store):
    table, order = make_order(sentence_store, window_groups=1, batch_size=1)
    groups = [int(table.positions[indices] // 16) for _, indices in order.batches(0)]
    changes = sum(a != b for a, b in itertools.pairwise(groups))
    assert changes == 5  # six groups, each in one run
    _, uniform = make_order(sentence_store, window_groups=6, batch_size=1)
    groups = [int(table.positions[indices] // 16) for _, indices in uniform.batches(0)]
    assert sum(a != b for a, b in itertools.pairwise(groups)) > 40


def test_fewer_sentences_than_a_batch_are_one_batch(sentence_store):
    _, order = make_order(sentence_store, batch_size=512)
    assert (order.batch_size, order.steps) == (88, 1)


def test_chance_is_named_by_its_arguments():
    draws = {
        int(torch.randint(1 << 60, (1,), generator=generator_of(*key)))
        for key in [(1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1)]
    }
    assert len(draws) == 4
    first, again = (torch.rand(3, generator=generator_of(5, MIX, 7)) for _ in range(2))
    assert torch.equal(first, again)
