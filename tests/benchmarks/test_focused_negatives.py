"""Mined pairs that weigh more: by hand, and against `tai tune` where there are none."""

import pytest
import torch

from sentence_stores import NAMES, example_sentences, write_store
from tai_benchmarks.focused_negatives import FocusedRun, FocusedTuning, drawn_pairs, focused_table, pair_loss
from tai_benchmarks.photo_tuning import LabelledFeatures
from tai_engine.encoders import load_encoder
from tai_engine.errors import UserError
from tai_engine.prompts.prompt_set import zero_shot_prompts
from tai_engine.tuning import NegativeConfig, TuningConfig, TuningTask, tune
from tai_engine.tuning.negatives.strategies import MinedNegatives
from tai_engine.vocabulary import Vocabulary
from tiny_models import write_tiny_model


def test_runs():
    assert FocusedRun.parse("none").negatives == NegativeConfig(strategy="none")
    run = FocusedRun.parse("hard photograph 20 margin=0.3")
    assert (run.who, run.weight, run.negatives) == ("photograph", 20, NegativeConfig(strategy="hard", margin=0.3))
    for wrong in ("hard", "hard photograph", "hard caption 20"):
        with pytest.raises(
            UserError, match="is no run: write none, or a strategy, sentence or photograph, and a weight"
        ):
            FocusedRun.parse(wrong)


def test_pairs_are_of_a_class_and_what_was_mined_for_it():
    """Class 0 has sentences 4 and 5, class 1 none, class 2 sentence 6."""
    empty = torch.zeros(3)
    mined = MinedNegatives(
        torch.tensor([0, 2, 2, 3]), torch.tensor([4, 5, 6]), empty, torch.zeros(3, dtype=torch.int64)
    )
    sentences, classes = drawn_pairs(mined, 400, torch.Generator().manual_seed(1))
    assert set(zip(sentences.tolist(), classes.tolist(), strict=True)) == {(4, 0), (5, 0), (6, 2)}
    assert 150 < int((classes == 2).sum()) < 250  # however many a class has


def test_the_loss_of_pairs():
    scores = torch.tensor([[2.0, 1.5, 0.0], [0.0, 3.0, 1.0]])
    labels = torch.tensor([[True, False, False], [True, False, True]])
    # 1 - 2 + 1.5 for the first pair; 1 - 0 + 3 and 1 - 1 + 3 for the second.
    assert float(pair_loss(scores, labels, torch.tensor([1, 1]))) == pytest.approx((0.5 + 4 + 3) / 2)
    assert float(pair_loss(scores[:1], labels[:1], torch.tensor([2]))) == 0  # it is beaten by two


@pytest.fixture
def tuning(tmp_path):
    """90 sentences and a tiny model."""
    encoder = load_encoder(write_tiny_model(tmp_path / "model", "vit"), None, device="cpu")
    vocabulary = Vocabulary.from_names(NAMES)
    store = write_store(tmp_path / "sentences.zarr", encoder, vocabulary, example_sentences(90))
    config = TuningConfig(
        n_contexts=2, epochs=2, batch_size=16, learning_rate=0.01, warmup_epochs=0, noise=1.0, start_share=0.3
    )
    task = TuningTask.prepare(store, encoder, vocabulary, config, "a photo")
    return FocusedTuning(task, config, zero_shot_prompts(encoder, vocabulary), task.split.training.holders())


def test_without_negatives_prompts_are_those_of_tai_tune(tuning, same_threads):
    found = tuning.prompts(FocusedRun.parse("none"), tuning.config.seed)
    expected = tune(tuning.task, tuning.config).prompts
    assert torch.equal(found.global_vectors, expected.global_vectors)
    assert torch.equal(found.local_vectors, expected.local_vectors)


def test_the_table(tuning):
    pictures = tuning.task.store.read_items(tuning.task.split.training.positions[:12])
    labels = 2 * tuning.task.split.training.labels(torch.arange(12)).to(torch.int8).numpy() - 1
    runs = [FocusedRun.parse("none"), FocusedRun.parse("random photograph 5 per_class=4")]
    lines = list(focused_table(LabelledFeatures(pictures, labels), tuning, runs, [1, 2]))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[:2] for row in rows] == [[run.title, seed] for run in runs for seed in ("1", "2", "all")]
    assert [row[5:] for row in rows[:3]] == [[""] * 3] * 3
    assert all(" [" in cell for row in rows[3:] for cell in row[5:])
