"""Class vectors moved towards sentences, on three axes by hand."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from feature_samples import write_group
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.label_free.sentence_means import with_sentence_means
from tai_engine.prompts.prompt_set import PromptSet, ScoringConstants
from tai_engine.store import FeatureStore, LabelSpec, StoredItem, StoreSpec

NAMES = ("dog", "cat", "cow")
X, Y, Z = torch.eye(3)


def sentence_store(path, sentences, names=NAMES, group_items=2, space="space", labelled=True):
    """Sentences are (id, coarse vector, class indices)."""
    labels = LabelSpec(names, "animals", "fingerprint") if labelled else None
    spec = StoreSpec(
        kind="sentences", space_key=space, recipe_key="r", dim=3, rows_per_item_max=0, row_dtype="float32",
        group_items=group_items, chunk_items=group_items, has_text=True, labels=labels,
    )  # fmt: skip
    store = FeatureStore.create(path, spec)
    for group, start in enumerate(range(0, len(sentences), group_items)):
        part = sentences[start : start + group_items]
        items = [StoredItem(name, text=name, labels=classes if labelled else None) for name, _, classes in part]
        rows = torch.stack([row for _, row, _ in part])
        empty = torch.zeros(0, 3), torch.zeros(len(part) + 1, dtype=torch.int64)
        write_group(store, group, items, [FeatureBatch(tuple(i.id for i in items), rows, *empty, space)])
    return store


def prompts(**changes):
    rows = torch.stack([X, Y, Z])
    values = {"class_names": NAMES, "global_vectors": rows, "local_vectors": rows, "space_key": "space"}
    return PromptSet(**values | {"logit_scale": 100.0} | changes)


def test_by_hand(tmp_path):
    between = normalize(X + Y, dim=0)
    store = sentence_store(tmp_path / "s", [("1", X, (0,)), ("2", Y, (0, 1)), ("3", between, (1,))])
    moved = with_sentence_means(prompts(), store)
    mean = (X + Y + between) / 3
    centred = [normalize(row - torch.full((3,), 1 / 3), dim=0) for row in (X, Y, Z)]
    dog = normalize(centred[0] + normalize((X + Y) / 2 - mean, dim=0), dim=0)
    cat = normalize(centred[1] + normalize((Y + between) / 2 - mean, dim=0), dim=0)
    # No sentence names a cow.
    torch.testing.assert_close(moved.global_vectors, torch.stack([dog, cat, centred[2]]))
    torch.testing.assert_close(moved.local_vectors, moved.global_vectors)
    assert moved.metadata["sentence_means"] == store.data_fingerprint
    assert (moved.method, moved.logit_scale) == ("zero-shot", 100.0)


def test_templates_do_not_count_and_tuned_prompts_keep_their_constants(tmp_path):
    sentences = [("1", X, (0,)), ("2", Y, (1,))]
    with_templates = [*sentences, ("template:0:0", Z, (0,)), ("template:2:0", Z, (2,)), ("template:2:1", Z, (2,))]
    contexts = {"global_contexts": torch.ones(1, 4), "local_contexts": torch.ones(1, 4)}
    tuned = prompts(method="tuned", constants=ScoringConstants(4.0, 40.0), contexts=contexts)
    one = with_sentence_means(tuned, sentence_store(tmp_path / "s", sentences))
    other = with_sentence_means(tuned, sentence_store(tmp_path / "t", with_templates))
    assert torch.equal(one.global_vectors, other.global_vectors)
    assert one.constants == ScoringConstants(4.0, 40.0)
    assert not one.contexts


def test_one_class_alone_keeps_its_vector_where_sentences_say_nothing_more(tmp_path):
    store = sentence_store(tmp_path / "s", [("1", normalize(X + Y, dim=0), (0,))], names=("dog",))
    one = PromptSet(("dog",), X[None], X[None], "space", 100.0)
    torch.testing.assert_close(with_sentence_means(one, store).global_vectors, X[None])
    assert math.isclose(float(one.global_vectors.norm()), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labelled": False}, "holds no labelled sentences: make one with `tai cache texts --vocabulary`"),
        ({"names": ("dog", "cat", "pig")}, "which are not the 3 classes of the prompts: label it with the same"),
        ({"space": "other"}, "comparable within one space"),
    ],
)
def test_mistakes(tmp_path, changes, message):
    classes = () if changes.get("labelled") is False else (0,)
    store = sentence_store(tmp_path / "s", [("1", X, classes)], **changes)
    with pytest.raises(UserError, match=message):
        with_sentence_means(prompts(), store)


def test_templates_alone_are_no_sentences(tmp_path):
    store = sentence_store(tmp_path / "s", [("template:0:0", X, (0,))])
    with pytest.raises(UserError, match="holds no sentence beside templates"):
        with_sentence_means(prompts(), store)
