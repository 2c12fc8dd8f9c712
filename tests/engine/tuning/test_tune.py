import copy
import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

from sentence_stores import NAMES, example_sentences, tune, write_store
from tai_engine.errors import UserError
from tai_engine.evaluation.measures import mean_average_precision
from tai_engine.prompts.learner import ClassVectors
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore
from tai_engine.tagging.scoring import ScoringConfig, default_scoring, score
from tai_engine.tuning import (
    ConstantsGrid,
    DivergedError,
    FoundConstants,
    NegativeConfig,
    Trial,
    TuningConfig,
    TuningTask,
    find_constants,
    loop,
)
from tai_engine.tuning.negatives.strategies import NegativeMiner
from tai_engine.tuning.objective import evaluate
from tai_engine.tuning.sentence_table import split_sentences
from tai_engine.vocabulary import Vocabulary

pytestmark = pytest.mark.slow

# 88 sentences: with a quarter held out three or four steps an epoch.
CONFIG = TuningConfig(
    n_contexts=4, epochs=3, batch_size=20, learning_rate=0.1, warmup_learning_rate=0.01, held_out=0.25, window_groups=2
)
STRATEGIES = ("none", "random", "hard")


def with_negatives(strategy, **changes):
    return replace(CONFIG, negatives=NegativeConfig(strategy=strategy, per_class=6, margin=0.0, skip_top=1, **changes))


def assert_same_result(first, second):
    for name in ("global_contexts", "local_contexts"):
        assert torch.equal(first.prompts.contexts[name], second.prompts.contexts[name])
    assert torch.equal(first.prompts.global_vectors, second.prompts.global_vectors)
    assert torch.equal(first.prompts.local_vectors, second.prompts.local_vectors)
    assert [m.loss for m in first.history] == [m.loss for m in second.history]
    assert [m.held_out_map for m in first.history] == [m.held_out_map for m in second.history]


@pytest.fixture(scope="module")
def plain_result(sentence_store, encoder, vocabulary, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    return tune(sentence_store, encoder, vocabulary, CONFIG, run=run), run


def test_a_run_to_the_end(plain_result, sentence_store, vocabulary):
    result, _ = plain_result
    prompts = result.prompts
    assert prompts.class_names == NAMES
    assert (prompts.method, prompts.space_key) == ("tuned", sentence_store.spec.space_key)
    assert prompts.constants.scale == 4.0
    assert prompts.constants.image_temperature == 40.0
    assert result.training_sentences + result.held_out_sentences == 88
    steps = result.training_sentences // 20
    assert [m.steps for m in result.history] == [steps, 2 * steps, 3 * steps]
    assert [m.learning_rate for m in result.history] == [0.01, 0.1, pytest.approx(0.05 * (1 + math.cos(math.pi / 3)))]
    assert (result.epoch, result.steps) == (3, 3 * steps)
    assert result.history[-1].loss < result.history[0].loss
    metadata = prompts.metadata
    assert metadata["vocabulary_fingerprint"] == vocabulary.fingerprint
    assert metadata["data_fingerprint"] == sentence_store.data_fingerprint
    assert (metadata["seed"], metadata["n_contexts"], metadata["class_specific"]) == ("1", "4", "false")
    assert json.loads(metadata["recipe"])["learning_rate"] == 0.1
    assert float(metadata["held_out_map"]) == result.held_out.merged.mean
    assert result.remarks == ()


def test_what_the_run_folder_holds(plain_result):
    result, run = plain_result
    assert {path.name for path in run.iterdir()} == {"checkpoint.pt", "metrics.jsonl", "curve.png", "per_class.jsonl"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["held_out_map"] for line in lines] == [m.held_out_map for m in result.history]
    assert all(line["steps_per_second"] > 0 for line in lines)
    classes = [json.loads(line) for line in (run / "per_class.jsonl").read_text().splitlines()]
    assert [row["class"] for row in classes] == list(NAMES)
    assert classes[2]["ap_merged"] == float(result.held_out.merged.values[2])
    both = sum(row["training_sentences"] + row["held_out_sentences"] for row in classes)
    assert both == sum(len(set(c)) for n, (_, c) in enumerate(example_sentences(90)) if n not in (3, 40))
    with Image.open(run / "curve.png") as picture:
        assert picture.size == (720, 480)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert {(31, 119, 180), (214, 96, 20), (44, 140, 60)} <= colours  # every line is drawn


def test_what_comes_out_holds_a_share_of_the_start(plain_result, sentence_store, encoder, vocabulary, tmp_path):
    plain, _ = plain_result
    task = TuningTask.prepare(sentence_store, encoder, vocabulary, CONFIG)
    with torch.no_grad():
        start = task.start.learner(CONFIG.seed).class_vectors()
    config = replace(CONFIG, start_share=0.25, normalise="standard")
    result = tune(sentence_store, encoder, vocabulary, config, run=tmp_path)
    for name, first in zip(("global_vectors", "local_vectors"), start, strict=True):
        learned = getattr(plain.prompts, name)
        expected = 0.25 * first + 0.75 * learned
        expected /= expected.norm(dim=1, keepdim=True)
        torch.testing.assert_close(getattr(result.prompts, name), expected, atol=1e-6, rtol=0)
        assert not torch.allclose(expected, learned, atol=1e-4)
    # What learns is the same, what is judged is what comes out.
    for name, contexts in plain.prompts.contexts.items():
        assert torch.equal(contexts, result.prompts.contexts[name])
    vectors = ClassVectors(result.prompts.global_vectors, result.prompts.local_vectors)
    judged = evaluate(task.split.held_out, vectors, config)
    assert result.held_out.merged.mean == judged.merged.mean == result.history[-1].held_out_map
    # A run that is gone on with knows the start, not the contexts of its checkpoint.
    again = tune(sentence_store, encoder, vocabulary, config, run=tmp_path)
    assert torch.equal(again.prompts.local_vectors, result.prompts.local_vectors)
    assert default_scoring(result.prompts).normalise == "standard"
    assert default_scoring(plain.prompts).normalise == "none"


def test_held_out_figures_are_those_of_scoring(plain_result, sentence_store):
    """Held-out sentences are scored by another path than training: ordinary scoring of the saved prompts agrees."""
    result, _ = plain_result
    held = [row["held_out_sentences"] for row in result.per_class]
    assert result.held_out.merged.positives.tolist() == held
    table = split_sentences(sentence_store, CONFIG.held_out).held_out
    batch = sentence_store.read_items(table.positions)
    labels = table.labels(torch.arange(len(table)))
    scores = {
        which: score(batch, result.prompts, ScoringConfig(which=which, temperature=50.0)).scores
        for which in ("coarse", "fine", "merged")
    }
    for which, found in scores.items():
        expected = mean_average_precision(found, labels, NAMES).mean
        assert getattr(result.held_out, which).mean == pytest.approx(expected, abs=1e-6)
    by_hand = 0.0
    for which in ("coarse", "fine"):
        for row, present in zip(scores[which].double(), labels, strict=True):
            by_hand += sum(max(0.0, 1 - float(i - j)) for i in row[present] for j in row[~present]) / len(batch)
    assert result.held_out.loss == pytest.approx(by_hand, rel=1e-4)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(plain_result, sentence_store, encoder, vocabulary):
    again = tune(sentence_store, encoder, vocabulary, CONFIG)
    assert_same_result(plain_result[0], again)
    other = tune(sentence_store, encoder, vocabulary, replace(CONFIG, seed=2))
    assert not torch.equal(other.prompts.global_vectors, again.prompts.global_vectors)


class Stop:
    """Interrupts after so many steps."""

    def __init__(self, step):
        self.step = step

    def __call__(self, progress):
        if progress.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_that_is_stopped_after_any_step_ends_the_same(strategy, sentence_store, encoder, vocabulary, tmp_path):
    config = replace(with_negatives(strategy, refresh=2), epochs=2)
    whole = tune(sentence_store, encoder, vocabulary, config)
    steps = whole.steps
    for step in range(1, steps + 1):
        run = tmp_path / f"{step}"
        with pytest.raises(KeyboardInterrupt):
            tune(sentence_store, encoder, vocabulary, config, run=run, progress=Stop(step))
        left = []
        result = tune(sentence_store, encoder, vocabulary, config, run=run, progress=left.append)
        assert [p.step for p in left] == list(range(step + 1, steps + 1))
        assert_same_result(result, whole)


def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint(
    plain_result, sentence_store, encoder, vocabulary, tmp_path, monkeypatch
):
    def die(progress):
        if progress.step == 5:
            raise MemoryError  # nothing is saved on the way out

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 1e9)
    with pytest.raises(MemoryError):
        tune(sentence_store, encoder, vocabulary, CONFIG, run=tmp_path, progress=die)
    left = []
    result = tune(sentence_store, encoder, vocabulary, CONFIG, run=tmp_path, progress=left.append)
    assert left[0].step == plain_result[0].history[0].steps + 1  # after the first epoch
    assert_same_result(result, plain_result[0])


def test_an_interruption_within_an_update_leaves_the_checkpoint_alone(
    plain_result, sentence_store, encoder, vocabulary, tmp_path, monkeypatch
):
    real, calls = torch.optim.SGD.step, []

    def step(self, *args, **options):
        calls.append(1)
        if len(calls) == 5:
            with torch.no_grad():  # half an update
                self.param_groups[0]["params"][0].add_(1.0)
            raise KeyboardInterrupt
        return real(self, *args, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    with pytest.raises(KeyboardInterrupt):
        tune(sentence_store, encoder, vocabulary, CONFIG, run=tmp_path)
    assert_same_result(tune(sentence_store, encoder, vocabulary, CONFIG, run=tmp_path), plain_result[0])


def test_a_finished_run_is_not_run_again(plain_result, sentence_store, encoder, vocabulary):
    result, run = plain_result
    steps = []
    assert_same_result(tune(sentence_store, encoder, vocabulary, CONFIG, run=run, progress=steps.append), result)
    assert steps == []


def test_a_folder_of_another_run_is_refused(plain_result, sentence_store, encoder, vocabulary):
    run = plain_result[1]
    with pytest.raises(UserError, match=r"holds another run \(recipe.learning_rate 0.1 then, 0.2 now\)"):
        tune(sentence_store, encoder, vocabulary, replace(CONFIG, learning_rate=0.2), run=run)
    with pytest.raises(UserError, match="init 'random' then, 'words: a photo' now"):
        tune(sentence_store, encoder, vocabulary, CONFIG, run=run, init="a photo")


def test_a_damaged_checkpoint_is_refused(sentence_store, encoder, vocabulary, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"is damaged .*remove the folder"):
        tune(sentence_store, encoder, vocabulary, CONFIG, run=tmp_path)
    torch.save({"format": "something else", "identity": "{}"}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="its format is 'something else'"):
        tune(sentence_store, encoder, vocabulary, CONFIG, run=tmp_path)


# When the loss goes wrong


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good(
    sentence_store, encoder, vocabulary, tmp_path, monkeypatch
):
    seen, real = [], loop.tuning_loss

    def spoilt(scores, labels, config):
        loss = real(scores, labels, config)
        if loss.requires_grad:
            seen.append(1)
            return loss * math.nan if len(seen) == 6 else loss
        return loss

    good = {}

    def watch(progress):
        good[progress.step] = progress.loss

    monkeypatch.setattr(loop, "tuning_loss", spoilt)
    with pytest.raises(
        DivergedError, match=r"not finite at step 6 \(epoch 2, learning rate 0.1\).*last-good"
    ) as caught:
        tune(sentence_store, encoder, vocabulary, CONFIG, run=tmp_path, progress=watch)
    assert "take a lower learning rate" in str(caught.value)
    assert max(good) == 5
    prompts = PromptSet.load(tmp_path / "last-good.safetensors")
    # The contexts of the last step whose loss was a number are those before its update: after four updates.
    monkeypatch.setattr(loop, "tuning_loss", real)
    with pytest.raises(KeyboardInterrupt):
        tune(sentence_store, encoder, vocabulary, CONFIG, run=tmp_path / "other", progress=Stop(4))
    state = torch.load(tmp_path / "other" / "checkpoint.pt", weights_only=True)
    for name, contexts in prompts.contexts.items():
        assert torch.equal(contexts, state["contexts"][name])


def test_contexts_that_overflow_are_found_out(sentence_store, encoder, vocabulary, tmp_path):
    config = replace(CONFIG, learning_rate=1e38, warmup_epochs=0, schedule="constant", weight_decay=1e3)
    with pytest.raises(DivergedError, match="take a lower learning rate"):
        tune(sentence_store, encoder, vocabulary, config, run=tmp_path)
    prompts = PromptSet.load(tmp_path / "last-good.safetensors")
    assert bool(prompts.global_vectors.isfinite().all())
    # Without a folder there is nowhere to keep them, but the same sentence is said.
    with pytest.raises(DivergedError, match="lower learning rate"):
        tune(sentence_store, encoder, vocabulary, config)


# Which epoch


def fake_maps(monkeypatch, values):
    """Held-out mAPs as they are told, one a call; the last one stays."""
    rest = list(values)

    def told(*args):
        found = evaluate(*args)
        value = rest.pop(0) if len(rest) > 1 else rest[0]
        merged = copy.copy(found.merged)
        object.__setattr__(merged, "values", torch.full((5,), value, dtype=torch.float64).numpy())
        return replace(found, merged=merged)

    monkeypatch.setattr(loop, "evaluate", told)


def test_early_stopping_goes_by_held_out_sentences(sentence_store, encoder, vocabulary, monkeypatch):
    fake_maps(monkeypatch, [0.5, 0.6, 0.6, 0.55, 0.9])
    result = tune(sentence_store, encoder, vocabulary, replace(CONFIG, epochs=9, patience=2))
    # The second epoch is the best; two without a better one end the run, so the fifth is never seen.
    assert [m.held_out_map for m in result.history] == pytest.approx([0.5, 0.6, 0.6, 0.55])
    assert result.epoch == 4


def test_the_best_epoch_is_kept_when_asked(sentence_store, encoder, vocabulary, monkeypatch, tmp_path):
    short = replace(CONFIG, schedule="constant")
    second = tune(sentence_store, encoder, vocabulary, replace(short, epochs=2))
    fake_maps(monkeypatch, [0.5, 0.6, 0.55])
    best = tune(sentence_store, encoder, vocabulary, replace(short, keep="best"), run=tmp_path)
    assert best.epoch == 2
    assert torch.equal(best.prompts.contexts["global_contexts"], second.prompts.contexts["global_contexts"])
    again = tune(sentence_store, encoder, vocabulary, replace(short, keep="best"), run=tmp_path)
    assert torch.equal(again.prompts.global_vectors, best.prompts.global_vectors)
    last = tune(sentence_store, encoder, vocabulary, short)
    assert not torch.equal(last.prompts.global_vectors, best.prompts.global_vectors)


def test_what_goes_by_held_out_sentences_needs_one(tmp_path, encoder, vocabulary):
    store = write_store(tmp_path / "s.zarr", encoder, vocabulary, example_sentences(8))
    assert not len(split_sentences(store, 0.01).held_out)
    for setting in ({"keep": "best"}, {"patience": 1}):
        with pytest.raises(UserError, match=r"none of its 8 sentences .* held_out is 0.01; hold more out"):
            tune(store, encoder, vocabulary, replace(CONFIG, held_out=0.01, **setting), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nothing_held_out_nothing_said(sentence_store, encoder, vocabulary, tmp_path):
    result = tune(sentence_store, encoder, vocabulary, replace(CONFIG, held_out=0, epochs=1), run=tmp_path)
    assert result.held_out is None
    assert result.history[0].held_out_map is None
    assert result.per_class[0] == {
        "class": "dog", "training_sentences": result.per_class[0]["training_sentences"], "held_out_sentences": 0,
        "ap_merged": None, "ap_coarse": None, "ap_fine": None,
    }  # fmt: skip
    assert Image.open(tmp_path / "curve.png").size == (720, 240)  # of the loss alone


# Negatives


@pytest.mark.parametrize("strategy", ["random", "hard"])
def test_mined_sentences_take_their_share_of_the_batch(
    strategy, sentence_store, encoder, vocabulary, tmp_path, monkeypatch
):
    batches = []
    real = loop.score_sentences
    monkeypatch.setattr(loop, "score_sentences", lambda batch, *rest: batches.append(batch) or real(batch, *rest))
    plain, mined = [], []
    for config, kept in ((with_negatives("none"), plain), (with_negatives(strategy, share=0.5), mined)):
        batches.clear()
        result = tune(sentence_store, encoder, vocabulary, config, run=tmp_path / config.negatives.strategy)
        kept += batches
    assert len(plain) == len(mined) == result.steps
    for before, after in zip(plain, mined, strict=True):
        assert after.ids[:10] == before.ids[:10]  # the half that stays
        assert len(before) == 20
        assert 11 <= len(after) <= 20  # a sentence that is drawn twice is seen once
    text = (tmp_path / strategy / "mined.txt").read_text(encoding="utf-8")
    assert text.startswith(f"{strategy} negatives before step {2 * result.steps // 3 + 1}, ")
    assert "zebra ← '" in text
    assert not (tmp_path / "none" / "mined.txt").exists()


def test_no_held_out_sentence_is_ever_trained_on(sentence_store, encoder, vocabulary, monkeypatch):
    seen, real = set(), loop.score_sentences
    monkeypatch.setattr(loop, "score_sentences", lambda batch, *rest: seen.update(batch.ids) or real(batch, *rest))
    tune(sentence_store, encoder, vocabulary, with_negatives("hard", share=1.0))
    held = split_sentences(sentence_store, CONFIG.held_out).held_out.positions
    assert seen
    assert not seen & set(map(str, held.tolist()))


@pytest.mark.parametrize(("refresh", "expected"), [("epoch", 3), (1, 9), (2, 5)])
def test_mining_happens_when_it_is_due(refresh, expected, sentence_store, encoder, vocabulary, monkeypatch):
    calls, real = [], NegativeMiner.mine
    monkeypatch.setattr(NegativeMiner, "mine", lambda self, queries, n: calls.append(n) or real(self, queries, n))
    result = tune(sentence_store, encoder, vocabulary, with_negatives("hard", refresh=refresh))
    assert result.steps == 9
    assert calls == list(range(expected))


# Stores, starts and kinds of contexts


def test_a_store_of_another_vocabulary_is_refused(sentence_store, encoder):
    changed = Vocabulary.from_names([*NAMES[:4], "lion"], "animals and things")
    with pytest.raises(UserError, match=r"labels of the vocabulary 'animals and things' \(\w+\), but the .* is now \("):
        tune(sentence_store, encoder, changed, CONFIG)
    with pytest.raises(UserError, match="is 'others'"):
        tune(sentence_store, encoder, Vocabulary.from_names(["lion"], "others"), CONFIG)


def test_stores_that_cannot_be_tuned_on(tmp_path, encoder, vocabulary, sentence_store):
    spec = replace(sentence_store.spec, labels=None)
    with pytest.raises(UserError, match="has no labels; make one with"):
        tune(FeatureStore.create(tmp_path / "a.zarr", spec), encoder, vocabulary, CONFIG)
    pictures = FeatureStore.create(tmp_path / "b.zarr", replace(spec, kind="images"))
    with pytest.raises(UserError, match="holds images: give their labels with --labels"):
        tune(pictures, encoder, vocabulary, CONFIG)
    other = FeatureStore.create(tmp_path / "c.zarr", replace(sentence_store.spec, space_key="space:other"))
    with pytest.raises(UserError, match="'space:other'"):
        tune(other, encoder, vocabulary, CONFIG)


def test_a_class_without_sentences_is_named(tmp_path, encoder, vocabulary):
    sentences = [("a dog", (0,)), ("a cat", (4,)), ("a zebra and a dog", (0, 2))]
    store = write_store(tmp_path / "s.zarr", encoder, vocabulary, sentences)
    result = tune(store, encoder, vocabulary, replace(CONFIG, held_out=0, epochs=1))
    assert len(result.remarks) == 1
    assert "No training sentence names 2 of 5 classes ('potted plant', 'hair drier')" in result.remarks[0]


def test_half_precision_rows_give_nearly_the_same(plain_result, tmp_path, encoder, vocabulary):
    store = write_store(
        tmp_path / "s.zarr", encoder, vocabulary, example_sentences(90), failed=(3, 40), row_dtype="float16"
    )
    result = tune(store, encoder, vocabulary, CONFIG)
    expected = [m.loss for m in plain_result[0].history]
    assert [m.loss for m in result.history] == pytest.approx(expected, rel=2e-2)


def test_sentences_without_token_vectors_teach_the_coarse_prompts(tmp_path, encoder, vocabulary):
    def coarse_only(texts, ids):
        batch = encoder.encode_sentences(texts, ids)
        return replace(batch, fine=batch.fine[:0], offsets=torch.zeros_like(batch.offsets))

    store = write_store(
        tmp_path / "s.zarr", encoder, vocabulary, example_sentences(40), rows_per_item_max=0, encode=coarse_only
    )
    result = tune(store, encoder, vocabulary, replace(CONFIG, epochs=2))
    assert torch.equal(result.prompts.local_vectors, result.prompts.global_vectors)
    assert result.history[1].loss < result.history[0].loss
    assert "fine prompts are copies" in result.remarks[0]


@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize("position", ["front", "middle"])
def test_other_kinds_of_contexts(class_specific, position, sentence_store, encoder, vocabulary, tmp_path):
    config = replace(CONFIG, epochs=2, class_specific=class_specific, position=position)
    result = tune(sentence_store, encoder, vocabulary, config)
    shape = (5, 4, 32) if class_specific else (4, 32)
    assert result.prompts.contexts["local_contexts"].shape == shape
    assert result.prompts.metadata["position"] == position
    assert result.history[1].loss < result.history[0].loss


def test_starting_from_tuned_prompts_and_from_words(plain_result, sentence_store, encoder, vocabulary, tmp_path):
    first = plain_result[0].prompts
    gentle = replace(CONFIG, epochs=1, learning_rate=1e-9, warmup_epochs=0, weight_decay=0)
    path = tmp_path / "first.safetensors"
    first.save(path)
    second = tune(sentence_store, encoder, vocabulary, gentle, init=PromptSet.load(path)).prompts
    torch.testing.assert_close(second.global_vectors, first.global_vectors, atol=1e-5, rtol=0)
    assert second.metadata["init"].startswith("contexts with the sums")
    words = tune(sentence_store, encoder, vocabulary, gentle, init="a photo of a").prompts
    embedded = encoder.model.token_embedding.weight[encoder.tokenize(["a photo of a"])[0, 1:5]]
    torch.testing.assert_close(words.contexts["global_contexts"], embedded.detach(), atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="The initial prompt set is of the embedding space 'elsewhere'"):
        tune(sentence_store, encoder, vocabulary, gentle, init=replace(first, space_key="elsewhere"))
    with pytest.raises(UserError, match="hold no global_contexts"):
        tune(sentence_store, encoder, vocabulary, gentle, init=replace(first, contexts={}))


# Constants


def test_constants_are_found_by_held_out_sentences(sentence_store, encoder, vocabulary, tmp_path):
    task = TuningTask.prepare(sentence_store, encoder, vocabulary, CONFIG)
    grid = ConstantsGrid((1e-9, 0.3), (5.0, 50.0), steps=5)
    heard = []
    found = find_constants(task, CONFIG, grid, folder=tmp_path, progress=lambda *told: heard.append(told))
    assert [(t.learning_rate, t.text_temperature) for t in found.trials] == [
        (1e-9, 5.0),
        (1e-9, 50.0),
        (0.3, 5.0),
        (0.3, 50.0),
    ]
    assert [told[:2] for told in heard] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert found.best.merged == max(t.merged for t in found.trials)
    chosen = found.apply(CONFIG)
    assert (chosen.learning_rate, chosen.text_temperature) == (found.best.learning_rate, found.best.text_temperature)
    assert chosen.warmup_learning_rate == pytest.approx(chosen.learning_rate / 10)
    assert chosen.temperature_for_images == pytest.approx(0.8 * chosen.text_temperature)
    assert f"learning rate {found.best.learning_rate:g}" in found.describe()
    # A short run is a run: the trial's figures are those of as many steps of tuning at that rate.
    short = replace(CONFIG, learning_rate=0.3, text_temperature=5.0, schedule="constant", warmup_epochs=0, epochs=9)
    tuner = loop.Tuner(task.split, task.start.learner(short.seed), short)
    done = next(itertools.islice(tuner.steps(), 4, None))
    assert tuner.state.step == done.step == 5
    judged = evaluate(task.split.held_out, tuner.class_vectors(), short)
    assert judged.merged.mean == found.trials[2].merged
    # And it is not looked for twice.
    heard.clear()
    assert find_constants(task, CONFIG, grid, folder=tmp_path, progress=lambda *told: heard.append(told)) == found
    assert heard == []
    assert find_constants(task, replace(CONFIG, seed=2), grid, folder=tmp_path) != found


def test_the_first_of_equal_constants_is_taken_and_said(sentence_store, encoder, vocabulary):
    task = TuningTask.prepare(sentence_store, encoder, vocabulary, CONFIG)
    found = find_constants(task, CONFIG, ConstantsGrid((1e-12, 1e-11), (50.0,), steps=1))
    assert found.best.learning_rate == 1e-12
    assert "the first of 2 equal ones" in found.describe()


def test_constants_at_the_edge_of_the_grid_are_said():
    def described(rate, temperature):
        trials = [Trial(r, t, merged=float((r, t) == (rate, temperature))) for r in (1, 2, 3) for t in (10, 20, 30)]
        best = next(trial for trial in trials if trial.merged)
        return FoundConstants(tuple(trials), best).describe()

    assert "edge" not in described(2, 20)
    assert "The best learning rate lies at the edge of what was tried." in described(3, 20)
    assert "The best text temperature lies at the edge" in described(2, 10)
    assert "The best learning rate and text temperature lies at" in described(1, 30)


def test_constants_need_held_out_sentences(sentence_store, encoder, vocabulary):
    config = replace(CONFIG, held_out=0)
    task = TuningTask.prepare(sentence_store, encoder, vocabulary, config)
    with pytest.raises(UserError, match="but there are none"):
        find_constants(task, config)
    with pytest.raises(UserError, match="at least one learning rate"):
        ConstantsGrid(learning_rates=())


def test_rates_that_go_wrong_are_passed_over(sentence_store, encoder, vocabulary):
    config = replace(CONFIG, weight_decay=1e3)
    task = TuningTask.prepare(sentence_store, encoder, vocabulary, config)
    found = find_constants(task, config, ConstantsGrid((1e-6, 1e38), (50.0,), steps=3))
    assert [t.merged is None for t in found.trials] == [False, True]
    with pytest.raises(UserError, match="went wrong with every learning rate"):
        find_constants(task, config, ConstantsGrid((1e38,), (50.0,), steps=3))
