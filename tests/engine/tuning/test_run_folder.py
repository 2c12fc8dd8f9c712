"""What a run takes up from its folder: its own state, whole and of its own sizes, or nothing."""

import json
import os
import resource
from dataclasses import replace

import pytest
import torch

from sentence_stores import tune
from tai_engine.errors import UserError
from tai_engine.tuning import ConstantsGrid, NegativeConfig, TuningConfig, TuningTask, find_constants

CONFIG = TuningConfig(
    n_contexts=4,
    epochs=2,
    batch_size=20,
    learning_rate=0.1,
    held_out=0.25,
    negatives=NegativeConfig("random", per_class=3),
)
NAN = torch.full((4, 32), float("nan"))


@pytest.fixture(scope="module")
def saved(sentence_store, encoder, vocabulary, tmp_path_factory):
    run = tmp_path_factory.mktemp("saved")
    tune(sentence_store, encoder, vocabulary, CONFIG, run=run)
    return torch.load(run / "checkpoint.pt", weights_only=True)


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def within(name, **changes):
    return lambda content: content[name].update(changes)


def instead(**changes):
    return lambda content: content.update(changes)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda content: content.pop("contexts"), "damaged .'contexts'"),
        (instead(format="another"), "its format is 'another'"),
        (instead(identity="[" * 100_000), "nested too deep"),
        (instead(identity="1" * 6000), "damaged"),
        (instead(identity=7), "damaged"),
        (instead(identity="[]"), "damaged"),
        (instead(contexts=[1]), "damaged"),
        (instead(contexts={}), "its contexts are not global_contexts and local_contexts"),
        (within("contexts", global_contexts=torch.zeros(5, 32)), "'global_contexts' is not of the shape"),
        (within("contexts", global_contexts=torch.zeros(4, 32).double()), "in fp32"),
        (within("contexts", global_contexts=NAN), "'global_contexts' holds something that is no number"),
        (within("contexts", local_contexts="x"), "'local_contexts' is not of the shape"),
        (within("contexts", other=torch.zeros(3)), "its contexts are not global_contexts and"),
        (within("best_contexts", global_contexts=torch.zeros(1)), "'global_contexts' is not of the shape"),
        (instead(optimizer={}), "damaged"),
        (instead(optimizer={"state": {7: {"momentum_buffer": None}}}), "of another optimizer"),
        (instead(optimizer={"state": {0: {"exp_avg": NAN}}}), "of another optimizer"),
        (
            instead(optimizer={"state": {0: {"momentum_buffer": torch.zeros(2)}}}),
            "'global_contexts' is not of the shape",
        ),
        (instead(step=-1), "do not fit its history"),
        (instead(step=1.5), "do not fit its history"),
        (instead(step="3"), "counters are no numbers"),
        (instead(loss_sum=float("inf")), "counters are no numbers"),
        (instead(best_epoch=9), "do not fit its history"),
        (instead(finished="no"), "whether the run is finished"),
        (instead(history=[{"epoch": 1}]), "damaged"),
        (lambda content: content["history"][0].update(loss="low"), "a figure of its history is no number"),
        (lambda content: content["history"][0].update(loss=float("nan")), "a figure of its history is no number"),
        (instead(history=7), "damaged"),
        (instead(mined=[1]), "damaged"),
        (within("mined", sentences=torch.tensor([10**6])), "mined sentences"),
        (lambda content: content["mined"]["sentences"].fill_(10**6), "none of this store"),
        (lambda content: content["mined"]["offsets"].fill_(1), "do not fit their classes"),
        (within("mined", similarities=torch.zeros(3, dtype=torch.int64)), "of another form"),
    ],
)
def test_a_state_that_no_run_leaves_is_damage(saved, sentence_store, encoder, vocabulary, tmp_path, damage, expected):
    content = torch.load(_bytes_of(saved, tmp_path / "whole"), weights_only=True)
    damage(content)
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match=expected) as caught:
        tune(sentence_store, encoder, vocabulary, CONFIG, run=tmp_path)
    assert "remove the folder" in str(caught.value)
    assert len(str(caught.value)) < 500


def _bytes_of(content, path):
    torch.save(content, path)
    return path


def test_the_state_itself_is_taken_up(saved, sentence_store, encoder, vocabulary, tmp_path):
    torch.save(saved, tmp_path / "checkpoint.pt")
    steps = []
    result = tune(sentence_store, encoder, vocabulary, CONFIG, run=tmp_path, progress=steps.append)
    assert steps == []
    assert torch.equal(result.prompts.contexts["global_contexts"], saved["contexts"]["global_contexts"])


def test_settings_of_the_optimizer_come_from_the_recipe_alone(saved, sentence_store, encoder, vocabulary, tmp_path):
    """A checkpoint after one epoch whose optimizer says otherwise ends as one that says the truth."""
    results = []
    for name, changes in (("true", {}), ("false", {"momentum": 0.0, "weight_decay": 9.0, "maximize": True})):
        run = tmp_path / name

        def stop(progress):
            if progress.step == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            tune(sentence_store, encoder, vocabulary, CONFIG, run=run, progress=stop)
        content = torch.load(run / "checkpoint.pt", weights_only=True)
        content["optimizer"]["param_groups"][0].update(changes)
        torch.save(content, run / "checkpoint.pt")
        results.append(tune(sentence_store, encoder, vocabulary, CONFIG, run=run).prompts.global_vectors)
    assert torch.equal(*results)


def test_what_is_no_regular_file_or_too_large_is_not_read(sentence_store, encoder, vocabulary, tmp_path):
    os.mkfifo(tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match=r"is damaged .it is no regular file"):
        tune(sentence_store, encoder, vocabulary, CONFIG, run=tmp_path)
    (tmp_path / "checkpoint.pt").unlink()
    (tmp_path / "checkpoint.pt").touch()
    os.truncate(tmp_path / "checkpoint.pt", 1 << 40)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"is damaged .1,099,511,627,776 bytes, [\d,]+ are allowed"):
        tune(sentence_store, encoder, vocabulary, CONFIG, run=tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


def test_constants_that_cannot_be_believed_are_found_anew(sentence_store, encoder, vocabulary, tmp_path):
    config, grid = replace(CONFIG, negatives=NegativeConfig("none")), ConstantsGrid((0.05, 0.1), (50.0,), steps=1)
    task = TuningTask.prepare(sentence_store, encoder, vocabulary, config)
    found = find_constants(task, config, grid, folder=tmp_path)
    path = tmp_path / "constants.json"
    whole = json.loads(path.read_text())

    def tries_after(content):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        heard = []
        assert find_constants(task, config, grid, folder=tmp_path, progress=lambda *told: heard.append(told)) == found
        return len(heard)

    assert tries_after(whole) == 0
    for content in (
        "[" * 100_000,
        "[]",
        '{"identity": ' + "1" * 6000 + "}",
        whole | {"best": whole["best"] | {"learning_rate": "fast"}},
        whole | {"best": whole["best"] | {"learning_rate": 0.7}},  # which was not tried
        whole | {"trials": [trial | {"merged": "good"} for trial in whole["trials"]]},
        whole | {"trials": 3},
    ):
        assert tries_after(content) == 2
