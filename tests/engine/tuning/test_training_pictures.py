"""Tuning on labelled pictures: what is drawn, what is unknown, and runs of every system to the end."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from feature_samples import write_group
from tai_engine.errors import UserError
from tai_engine.evaluation.truth import Truth
from tai_engine.features import FeatureBatch
from tai_engine.prompts.learner import ClassVectors
from tai_engine.store import FeatureStore, StoredItem, StoreSpec
from tai_engine.tagging.scoring import score
from tai_engine.tuning import NegativeConfig, TrainingPictures, TuningConfig, TuningTask, tune
from tai_engine.tuning.objective import SentenceScores, evaluate, tuning_loss
from tai_engine.tuning.sentence_table import split_sentences
from tai_engine.tuning.training_pictures import few_shots, too_few_for

PICTURES = 24


def make_store(path, encoder, vocabulary, **changes):
    """Pictures whose rows are near to the texts of what they show, each of two classes; three groups, one failed."""
    texts = encoder.encode_class_texts(list(vocabulary.names))
    generator = torch.Generator().manual_seed(0)
    values = {
        "kind": "images", "space_key": encoder.space_key, "recipe_key": "r", "dim": encoder.dim,
        "rows_per_item_max": 4, "row_dtype": "float32", "group_items": 8, "chunk_items": 8,
        "provenance": {"model": "tiny"},
    }  # fmt: skip
    store = FeatureStore.create(path, StoreSpec(**values | changes))
    for group in range(3):
        numbers = range(8 * group, 8 * group + 8)
        items = [StoredItem(f"{n}.jpg", status="failed" if n == 5 else "done", reason="bad" if n == 5 else None)
                 for n in numbers]  # fmt: skip
        done = [n for n in numbers if n != 5]
        rows = torch.stack([texts[c] for n in done for c in (*shown(n), *shown(n))])
        rows = rows + 0.3 * torch.randn(rows.shape, generator=generator) / encoder.dim**0.5
        fine = torch.nn.functional.normalize(rows, dim=1)
        coarse = torch.nn.functional.normalize(rows.view(len(done), 4, -1).mean(1), dim=1)
        offsets = torch.arange(len(done) + 1) * (4 if store.spec.has_fine else 0)
        fine = fine if store.spec.has_fine else fine[:0]
        ids = tuple(f"{n}.jpg" for n in done)
        write_group(store, group, items, [FeatureBatch(ids, coarse, fine, offsets, encoder.space_key)])
    return store


def shown(n):
    return n % 5, (n + 1 + n // 5) % 5


def truth_of(vocabulary, numbers=range(PICTURES)):
    labels = np.full((len(numbers), 5), -1, dtype=np.int8)
    for row, n in enumerate(numbers):
        labels[row, list(shown(n))] = 1
    return Truth(tuple(f"{n}.jpg" for n in numbers), vocabulary.names, labels)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, encoder, vocabulary):
    return make_store(tmp_path_factory.mktemp("pictures") / "p.zarr", encoder, vocabulary)


def test_labels_of_what_is_in_both(pictures, vocabulary):
    # 5 has no features, 30 is not in the store, 0 to 2 have no labels.
    source = TrainingPictures(pictures, truth_of(vocabulary, [*range(3, 24), 30]))
    assert len(source) == 20
    assert source.items(0)[0].labels is None
    assert source.items(0)[3].labels == tuple(sorted(shown(3)))
    table = split_sentences(source, 0.0).training
    assert len(table) == 20
    assert table.known is None
    held = [set(row.nonzero()[:, 0].tolist()) for row in table.labels(torch.arange(20))]
    assert held == [set(shown(n)) for n in range(3, 24) if n != 5]


def test_a_share_of_labels_is_known(pictures, vocabulary):
    truth = truth_of(vocabulary)
    table = split_sentences(TrainingPictures(pictures, truth, known=0.5, seed=2), 0.0).training
    targets = table.targets(torch.arange(len(table)))
    rows = [n for n in range(PICTURES) if n != 5]
    whole = torch.from_numpy(truth.labels[rows])
    assert bool(((targets == whole) | (targets == 0)).all())
    assert 0.35 < float((targets != 0).float().mean()) < 0.65
    # The same seed draws the same, another one not.
    again, other = (TrainingPictures(pictures, truth, known=0.5, seed=seed) for seed in (2, 3))
    assert torch.equal(split_sentences(again, 0.0).training.targets(torch.arange(len(table))), targets)
    assert again.data_fingerprint != other.data_fingerprint


def test_difficult_labels_are_unknown_and_pictures_without_a_class_stay(pictures, vocabulary):
    truth = truth_of(vocabulary)
    truth.labels[1] = -1
    truth.labels[2, 4] = 0
    table = split_sentences(TrainingPictures(pictures, truth), 0.0).training
    targets = table.targets(torch.arange(len(table)))
    assert targets[1].tolist() == [-1] * 5
    assert targets[2].tolist() == [-1, -1, 1, 1 if 3 in shown(2) else -1, 0]


def test_held_out_figures_leave_out_what_is_unknown(pictures, encoder, vocabulary):
    source = TrainingPictures(pictures, truth_of(vocabulary), known=0.7, seed=2)
    table = split_sentences(source, 0.0).training
    texts = encoder.encode_class_texts(list(vocabulary.names))
    config = TuningConfig.of_system("coop", known=0.7, loss="asl_partial")
    found = evaluate(table, ClassVectors(texts, texts), config)
    targets = table.targets(torch.arange(len(table)))
    assert bool((targets == 0).any())
    scores = (source.read_items(table.positions).coarse @ texts.T).numpy()
    for c, average in enumerate(found.coarse.values):
        is_known = (targets[:, c] != 0).numpy()
        assert average == pytest.approx(
            average_precision_score((targets[is_known, c] == 1).numpy(), scores[is_known, c])
        )


def test_few_pictures_are_told_where_a_system_wants_thousands():
    assert too_few_for("coop", 3) is None
    assert too_few_for("dualcoop", 1000) is None
    assert "wants 1,000 labelled pictures or more; of 999 " in too_few_for("dualcoop", 999)


def test_the_loss_passes_over_what_is_unknown():
    scores = torch.tensor([[1.0, -2.0, 3.0]], requires_grad=True)
    config = TuningConfig.of_system("dualcoop")
    tuning_loss(SentenceScores(scores, scores), torch.tensor([[1, 0, -1]], dtype=torch.int8), config).backward()
    assert scores.grad is not None
    assert scores.grad[0, 1] == 0
    assert scores.grad[0, 0] < 0 < scores.grad[0, 2]


def test_few_shots_by_hand():
    # Class 2 is the rarest and takes picture 3, which shows class 1 too.
    present = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0]], dtype=bool)
    for seed in range(5):
        one = few_shots(present, 1, seed)
        assert 3 in one
        assert 4 not in one
        assert present[one].sum(axis=0).tolist() in ([1, 1, 1], [1, 2, 1])
    assert few_shots(present, 9, 1).tolist() == [0, 1, 2, 3]
    assert {few_shots(present, 1, seed).tolist()[0] for seed in range(20)} >= {0, 1}


@pytest.mark.slow
@pytest.mark.parametrize(("system", "known"), [("tai-dpt", 1.0), ("coop", 1.0), ("dualcoop", 0.7)])
@pytest.mark.parametrize("strategy", ["none", "hard"])
def test_runs_of_every_system_can_go_on(tmp_path, pictures, encoder, vocabulary, system, known, strategy):
    negatives = NegativeConfig(strategy=strategy, per_class=3, margin=0.0, skip_top=0)
    config = TuningConfig.of_system(
        system, n_contexts=2, epochs=4, batch_size=8, learning_rate=0.05, known=known, held_out=0.0, negatives=negatives
    )
    source = TrainingPictures(pictures, truth_of(vocabulary), known=known, seed=config.seed)
    task = TuningTask.prepare(source, encoder, vocabulary, config)
    whole = tune(task, config, tmp_path / "whole")

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(task, config, tmp_path / "parts", stop)
    parts = tune(task, config, tmp_path / "parts")
    assert torch.equal(whole.prompts.global_vectors, parts.prompts.global_vectors)
    assert whole.prompts.constants == parts.prompts.constants
    with torch.no_grad():
        start = task.start.learner(config.seed).class_vectors()
    assert not torch.equal(whole.prompts.global_vectors, start.global_vectors)
    assert whole.trained_on == "pictures"
    assert whole.prompts.metadata["system"] == system
    if system == "dualcoop":
        assert torch.equal(whole.prompts.negative_vectors, parts.prompts.negative_vectors)
        assert whole.prompts.constants.scale != pytest.approx(np.exp(3.0), abs=1e-6)  # it has learned
    whole.prompts.save(tmp_path / "p.safetensors")
    assert score(pictures.read_group(1), whole.prompts).scores.shape == (8, 5)


@pytest.mark.slow
def test_coarse_only_pictures(tmp_path, encoder, vocabulary):
    store = make_store(tmp_path / "c.zarr", encoder, vocabulary, rows_per_item_max=0)
    config = TuningConfig.of_system("dualcoop", n_contexts=2, epochs=1, batch_size=8)
    task = TuningTask.prepare(TrainingPictures(store, truth_of(vocabulary)), encoder, vocabulary, config)
    result = tune(task, config)
    assert result.remarks == ("The pictures have no patch vectors, so the fine prompts are copies of the coarse ones.",)


def test_prompts_of_one_system_do_not_start_another(pictures, encoder, vocabulary):
    config = TuningConfig.of_system("dualcoop", n_contexts=2)
    contexts = {name: torch.zeros(2, 32) for name in ("global_contexts", "local_contexts")}
    source = TrainingPictures(pictures, truth_of(vocabulary))
    task = TuningTask.prepare(source, encoder, vocabulary, config, contexts)
    with pytest.raises(UserError, match="The saved prompts hold no positive_contexts"):
        task.start.learner(1)


def test_mistakes(pictures, sentence_store, encoder, vocabulary):
    truth = truth_of(vocabulary)
    elsewhere = Truth(tuple(f"other/{n}" for n in range(PICTURES)), truth.class_names, truth.labels)
    with pytest.raises(UserError, match=r"first id 'other/0'.*first id '0.jpg'.*have no picture in common"):
        TrainingPictures(pictures, elsewhere)
    nothing = Truth(truth.ids, truth.class_names, np.full_like(truth.labels, -1))
    with pytest.raises(UserError, match=r"None of the 23 labelled pictures .* shows a class"):
        TrainingPictures(pictures, nothing)
    with pytest.raises(UserError, match="holds sentences, which have labels of their own: leave --labels out"):
        TrainingPictures(sentence_store, truth)
    with pytest.raises(UserError, match="holds images: give their labels with --labels"):
        TuningTask.prepare(pictures, encoder, vocabulary, TuningConfig())
    with pytest.raises(UserError, match=r"--shots is for pictures, but .* holds sentences"):
        TuningTask.prepare(sentence_store, encoder, vocabulary, TuningConfig.of_system("coop", shots=1))
    with pytest.raises(UserError, match=r"All 23 labelled pictures .* are held out"):
        split_sentences(TrainingPictures(pictures, truth), 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"system": "dualcop"}, "Unknown system 'dualcop'; did you mean 'dualcoop'"),
        ({"system": "dualcoop", "known": 0.0}, "known of tuning is 0.0; it has to be a share above 0"),
        ({"system": "coop", "known": 0.5}, "takes unknown ones for absent: take --system dualcoop"),
        ({"system": "coop", "shots": 0}, "shots of tuning is 0; it has to be a whole number from 1"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(UserError, match=message):
        TuningConfig.of_system(**settings)


def test_the_record_names_the_system():
    recipe = TuningConfig.of_system("dualcoop", known=0.1).as_recipe()
    assert json.loads(json.dumps(recipe))["system"] == "dualcoop"
    assert (recipe["known"], recipe["loss"], recipe["class_specific"]) == (0.1, "asl_partial", True)
