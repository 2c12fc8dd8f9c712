"""Class vectors learned from sentences: what they learn, which sentences count, what is refused."""

import pytest
import torch
from torch.nn.functional import normalize

from feature_samples import write_group
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.label_free import linear_head
from tai_engine.label_free.linear_head import learn_head, with_linear_head
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore, LabelSpec, StoredItem, StoreSpec

NAMES = ("dog", "cat", "cow", "hen")
AXES = torch.eye(16)[:4]
START = normalize(AXES + 0.5, dim=1)


def disturbed(items):
    """Rows near the axis of one class each, in turn."""
    generator = torch.Generator().manual_seed(0)
    rows = AXES.repeat(items // 4, 1)
    return normalize(rows + 0.1 * torch.randn(rows.shape, generator=generator), dim=1)


def sentence_store(path, rows, prefix="caption"):
    spec = StoreSpec(
        kind="sentences", space_key="space", recipe_key="r", dim=16, rows_per_item_max=0, row_dtype="float32",
        group_items=len(rows), chunk_items=len(rows), has_text=True, labels=LabelSpec(NAMES, "animals", "fingerprint"),
    )  # fmt: skip
    store = FeatureStore.create(path, spec)
    items = [StoredItem(f"{prefix}:{i}", text=str(i), labels=(i % 4,)) for i in range(len(rows))]
    empty = torch.zeros(0, 16), torch.zeros(len(rows) + 1, dtype=torch.int64)
    write_group(store, 0, items, [FeatureBatch(tuple(i.id for i in items), rows, *empty, "space")])
    return store


def prompts(**changes):
    values = {"class_names": NAMES, "global_vectors": START, "local_vectors": START, "space_key": "space"}
    return PromptSet(**values | {"logit_scale": 100.0} | changes)


def test_what_sentences_say_is_learned():
    items, labels = disturbed(1200), torch.eye(4, dtype=torch.bool).repeat(300, 1)
    head = learn_head(START, items, labels, seed=1)
    assert torch.equal(head, learn_head(START, items, labels, seed=1))
    torch.testing.assert_close(head.norm(dim=1), torch.ones(4))
    assert bool(((items @ head.T).argmax(dim=1) == torch.arange(1200) % 4).all())
    # Nearer to its own axis than before, farther from the others.
    before, after = START @ AXES.T, head @ AXES.T
    assert bool((after.diagonal() > before.diagonal()).all())
    assert float((after - after.diag().diag()).max()) < float((before - before.diag().diag()).max())


def test_of_a_store(tmp_path):
    rows = disturbed(400)
    store = sentence_store(tmp_path / "s", rows)
    contexts = {"global_contexts": torch.ones(1, 4), "local_contexts": torch.ones(1, 4)}
    found = with_linear_head(prompts(contexts=contexts), store, seed=3)
    wanted = learn_head(START, rows, torch.eye(4, dtype=torch.bool).repeat(100, 1), seed=3)
    assert torch.equal(found.global_vectors, wanted)
    assert torch.equal(found.local_vectors, wanted)
    assert found.metadata["linear_head"] == store.data_fingerprint
    assert not found.contexts


def test_of_more_sentences_than_are_held_some_are_taken_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(linear_head, "MOST_SENTENCES", 134)
    rows = disturbed(400)
    found = with_linear_head(prompts(), sentence_store(tmp_path / "s", rows))
    labels = torch.eye(4, dtype=torch.bool).repeat(100, 1)
    assert torch.equal(found.global_vectors, learn_head(START, rows[::3], labels[::3], seed=0))


def test_templates_alone_are_no_sentences(tmp_path):
    with pytest.raises(UserError, match="holds no sentence beside templates"):
        with_linear_head(prompts(), sentence_store(tmp_path / "s", disturbed(4), prefix="template"))


def test_other_classes_are_refused(tmp_path):
    other = prompts(class_names=("dog", "cat", "cow", "pig"))
    with pytest.raises(UserError, match="label it with the same vocabulary"):
        with_linear_head(other, sentence_store(tmp_path / "s", disturbed(4)))
