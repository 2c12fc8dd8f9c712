"""Stores that keep the texts and labels of their items."""

import json

import numpy as np
import pytest
import zarr

from feature_samples import done, random_batch, same, small_spec, write_group
from tai_engine.errors import UserError
from tai_engine.store import FeatureStore, LabelSpec, StoredItem, content_of

NAMES = tuple(f"class {c}" for c in range(10))
LABELS = LabelSpec(NAMES, "ten", "0123456789abcdef", {"language": "en", "templates": ["a {}."]})
ITEMS = [
    StoredItem("1", text="zebra — a “horse”\0 🦓", labels=(0, 9)),
    StoredItem("2", "failed", "empty: no words", text="  ", labels=()),
    StoredItem("3", text="", labels=(7,)),
    StoredItem("template:3:0", text="x" * 5000, labels=()),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


def text_spec(**changes):
    return small_spec(**{"kind": "sentences", "has_text": True, "labels": LABELS, **changes})


def batch_of(items, seed=0):
    ids = [item.id for item in items if item.status == "done"]
    return random_batch(ids, [1 + n % 3 for n in range(len(ids))], seed=seed)


def filled(path, **changes):
    store = FeatureStore.create(path, text_spec(**changes))
    write_group(store, 0, ITEMS, [batch_of(ITEMS)])
    return store


def test_texts_and_labels_come_back(path):
    filled(path)
    store = FeatureStore.open(path)
    assert store.spec == text_spec()
    assert store.class_names == NAMES
    assert list(store.ledger()) == ITEMS
    done = [slot for slot, item in enumerate(ITEMS) if item.status == "done"]
    assert store.read_texts(done) == ["zebra — a “horse”\0 🦓", "", "x" * 5000]
    ((_, _, labels),) = store.iter_coarse()
    assert str(labels.dtype) == "torch.bool"
    assert labels.nonzero().tolist() == [[0, 0], [0, 9], [1, 7]]
    assert labels.shape == (3, 10)
    assert same(store.read_group(0), batch_of(ITEMS))


def test_texts_without_labels(path):
    items = [StoredItem("1", text="a dog")]
    store = FeatureStore.create(path, text_spec(labels=None))
    write_group(store, 0, items, [batch_of(items)])
    store = FeatureStore.open(path)
    assert (list(store.ledger()), store.read_texts([0]), store.class_names) == (items, ["a dog"], ())
    assert next(store.iter_coarse()).labels is None


def test_a_store_without_texts_says_so(path):
    store = FeatureStore.create(path, small_spec())
    write_group(store, 0, done("a"), [random_batch("a", [3])])
    for ask in (lambda: store.read_texts([0]), lambda: store.data_fingerprint):
        with pytest.raises(UserError, match=r"keeps no texts; .*tai cache texts"):
            ask()
    assert [(item.text, item.labels) for item in store.ledger()] == [(None, None)]


def test_any_zarr_reader_understands_it(path):
    filled(path)
    group = zarr.open_group(path, mode="r", zarr_format=3)
    assert group["text"][:].tolist() == [item.text for item in ITEMS]
    assert group["text"].chunks == (6,)
    # Classes 0 and 9, none, 7, none: bit c % 8 of byte c // 8.
    assert group["labels"][:].tolist() == [[1, 2], [0, 0], [128, 0], [0, 0]]
    assert group["labels"].chunks == (6, 2)
    attributes = group.attrs["tai_engine"]
    assert (attributes["schema_version"], attributes["has_text"], attributes["has_labels"]) == (2, True, True)
    assert attributes["labels"] == {
        "class_names": list(NAMES),
        "vocabulary": "ten",
        "vocabulary_fingerprint": "0123456789abcdef",
        "corpus": {"language": "en", "templates": ["a {}."]},
    }


def change_attributes(path, change):
    metadata = json.loads((path / "zarr.json").read_text())
    change(metadata["attributes"]["tai_engine"])
    (path / "zarr.json").write_text(json.dumps(metadata))


def test_a_store_from_before_texts_and_labels_is_sound(path):
    batch = random_batch("ab", [3, 3])
    write_group(FeatureStore.create(path, small_spec()), 0, done("a", "b"), [batch])

    def forget(attributes):
        for key in ("has_text", "has_labels", "labels"):
            del attributes[key]

    change_attributes(path, forget)
    store = FeatureStore.open_or_create(path, small_spec())
    assert same(store.read_group(0), batch)
    write_group(store, 1, done("c"), [random_batch("c", [3])])
    assert len(FeatureStore.open(path)) == 3


def test_parts_of_a_later_version_can_be_read_past_but_not_filled(path):
    filled(path)
    change_attributes(path, lambda a: a.update(has_audio=True, has_smell=False))
    assert len(FeatureStore.open(path).read_group(0)) == 3
    with pytest.raises(UserError, match=r"parts that this tai-engine cannot fill \(audio\); upgrade"):
        FeatureStore.open_or_create(path, text_spec())


@pytest.mark.parametrize("change", [lambda a: a["labels"].pop("class_names"), lambda a: a.update(labels={"x": 1})])
def test_labels_that_make_no_sense(path, change):
    filled(path)
    change_attributes(path, change)
    with pytest.raises(UserError, match=r"attributes in .* are damaged"):
        FeatureStore.open(path)


def test_other_labels_do_not_go_into_the_store(path):
    filled(path)
    FeatureStore.open_or_create(path, text_spec())
    with pytest.raises(UserError, match=r"'ten' has changed since .*0123456789abcdef then, ffff now"):
        FeatureStore.open_or_create(path, text_spec(labels=LabelSpec(NAMES, "ten", "ffff", LABELS.corpus)))
    with pytest.raises(UserError, match="texts True, but this run has False"):
        FeatureStore.open_or_create(path, text_spec(has_text=False))


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (StoredItem("a", text="x"), "every item needs labels"),
        (StoredItem("a", labels=()), "every item needs text"),
        (StoredItem("a", text="x", labels=(10,)), "outside the 10 classes"),
    ],
)
def test_items_have_to_fit_the_store(path, item, words):
    store = FeatureStore.create(path, text_spec())
    with pytest.raises(ValueError, match=words):
        write_group(store, 0, [item], [batch_of([item])])
    plain = FeatureStore.create(path.with_name("plain"), small_spec())
    with pytest.raises(ValueError, match="this store keeps no"):
        write_group(plain, 0, [item], [batch_of([item])])
    assert list(path.parent.rglob("c.*")) == []


def test_the_data_fingerprint_is_of_the_sentences_alone(path):
    items = [StoredItem(f"{n}", text=f"sentence {n}", labels=(n,)) for n in range(5)]

    def fingerprint(name, groups, **changes):
        store = FeatureStore.create(path.with_name(name), text_spec(**changes))
        for number, group in enumerate(groups):
            write_group(store, number, group, [batch_of(group, seed=number)])
        return FeatureStore.open(store.path).data_fingerprint

    first = fingerprint("a", [items[:2], items[2:]])
    assert len(first) == 32
    assert fingerprint("b", [items[3:], items[:3]], space_key="space:1", group_items=4) == first
    assert fingerprint("c", [items[:4]]) != first
    other = [*items[:4], StoredItem("4", text="sentence 4", labels=(5,))]
    assert fingerprint("d", [other]) != first
    other = [*items[:4], StoredItem("4", text="sentence 5", labels=(4,))]
    assert fingerprint("e", [other]) != first


def test_known_contents(path):
    contents = filled(path).known_contents()
    assert all(content_of(item.id, item.text, item.labels) in contents for item in ITEMS)
    assert content_of("1", ITEMS[0].text, (0,)) not in contents


@pytest.mark.parametrize("name", ["text", "labels"])
def test_damage_is_named(path, name):
    filled(path)
    (chunk,) = (path / name).glob("c.*")
    data = bytearray(chunk.read_bytes())
    data[9] ^= 4
    chunk.write_bytes(data)
    read = {"text": lambda store: store.read_texts([0]), "labels": lambda store: next(store.iter_coarse())}[name]
    with pytest.raises(UserError, match=rf"Group 0 .*the chunk {name}/{chunk.name} is damaged"):
        read(FeatureStore.open(path))
    chunk.unlink()
    with pytest.raises(UserError, match=rf"Group 0 .*the chunk {name}/{chunk.name} is missing"):
        read(FeatureStore.open(path))
    assert len(FeatureStore.open(path).read_group(0)) == 3


def test_a_record_without_its_digest(path):
    filled(path)
    record = path / "commits" / "00000000.json"
    values = json.loads(record.read_text())
    record.write_text(json.dumps({**values, "digest": "xyz"}))
    with pytest.raises(UserError, match=r"00000000.json is damaged \(ValueError: its digest is not one\)"):
        FeatureStore.open(path)
    del values["digest"]
    record.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"Group 0 .*its record has no digest"):
        _ = FeatureStore.open(path).data_fingerprint


def test_the_estimate_is_what_is_written(path):
    store = FeatureStore.create(path, text_spec(rows_per_item_max=0))
    # Ids and texts as long as estimates take them to be, in a full group.
    items = [StoredItem(f"{n:080d}", text=f"{n:060d}", labels=(n,)) for n in range(6)]
    write_group(store, 0, items, [random_batch([item.id for item in items], [0] * 6)])
    # The number of strings, twice, and the checksums of the six chunks per group.
    assert store.nbytes == store.spec.estimate_bytes(6) + 2 * 4 + 6 * 4 + 4
    assert np.prod(zarr.open_group(path)["labels"].shape) == 12
