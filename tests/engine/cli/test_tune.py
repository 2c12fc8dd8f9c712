"""``tai tune``, from a file of sentences to tags."""

import functools
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tai_engine import tuning
from tai_engine.cli.main import main
from tai_engine.cli.tune import with_model_settings
from tai_engine.encoders.embedded import constants_of
from tai_engine.prompts.prompt_set import PromptSet, ScoringConstants
from tai_engine.tuning import ConstantsGrid, Tuner

VOCABULARY = "dog: puppy\ncat\nzebra\n"
SETTINGS = ["--epochs", "2", "--batch-size", "16", "--contexts", "4", "--lr", "0.05", "--held-out", "0.2"]


def refused(outcome, message):
    said = " ".join(outcome.stderr.split())
    assert outcome.status == 2, said
    assert outcome.stdout == ""
    assert re.search(message, said), said


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words") / "animals.txt"
    path.write_text(VOCABULARY)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_model: str, vocabulary: Path) -> Path:
    """60 sentences about three animals; not to be changed."""
    folder = tmp_path_factory.mktemp("sentences")
    animals = ("dogs", "a cat", "a zebra", "puppies and a cat")
    lines = [f"Number {n}: {animals[n % 4]} in the {('garden', 'street')[n % 2]}." for n in range(60)]
    (folder / "sentences.txt").write_text("\n".join(lines))
    arguments = ["cache", "texts", folder / "sentences.txt", folder / "s.zarr", "--vocabulary", vocabulary]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tai", *map(str, arguments), "--no-templates", "--model", tiny_model])
        with pytest.raises(SystemExit) as leaving:
            main()
    assert not leaving.value.code
    return folder / "s.zarr"


def test_from_sentences_to_tags(tai, store, vocabulary, tmp_path, filled_store):
    out = tmp_path / "prompts.safetensors"
    outcome = tai("tune", store, "--vocabulary", vocabulary, "--out", out, *SETTINGS, "--negatives", "hard", "--json")
    assert outcome.status == 0
    (summary,) = outcome.json()
    assert summary["training_sentences"] + summary["held_out_sentences"] == 60
    assert (summary["epochs"], summary["kept_epoch"], summary["classes"]) == (2, 2, 3)
    assert summary["steps"] == 2 * (summary["training_sentences"] // 16)
    assert 0 < summary["held_out_map"] <= 1
    assert (summary["learning_rate"], summary["text_temperature"], summary["image_temperature"]) == (0.05, 50, 40)
    prompts = PromptSet.load(out)
    assert prompts.class_names == ("dog", "cat", "zebra")
    assert prompts.metadata["vocabulary"] == "animals"
    run = tmp_path / "prompts.safetensors.run"
    assert summary["run"] == str(run)
    assert (run / "curve.png").is_file()
    assert "zebra ←" in (run / "mined.txt").read_text(encoding="utf-8")
    # Pictures of the same space are tagged with them.
    assert tai("tag", filled_store, "--prompts", out, "--out", tmp_path / "tags.jsonl").status == 0
    text = (tmp_path / "tags.jsonl").read_text()
    assert all(text.count(f'"{name}"') >= 5 for name in prompts.class_names)


def test_a_job_reaches_the_task_and_the_tuner(tai, store, vocabulary, tmp_path, monkeypatch):
    """The options of a job are proved elsewhere; here, that tuning gets the job."""
    seen, prepare, tune = [], tuning.TuningTask.prepare, tuning.tune

    def preparing(*arguments, **options):
        seen.append((arguments, options))
        return prepare(*arguments, **{**options, "cuda_graphs": False})

    def tuning_it(*arguments):
        seen.append(arguments)
        return tune(*arguments)

    monkeypatch.setattr(tuning.TuningTask, "prepare", preparing)
    monkeypatch.setattr(tuning, "tune", tuning_it)
    out, run = tmp_path / "p.safetensors", tmp_path / "r"
    options = ["--run", run, "--init", "a photo", "--cuda-graphs", "--noise", "0.5", "--negatives", "random"]
    assert tai("tune", store, "--vocabulary", vocabulary, "--out", out, *SETTINGS, *options).status == 0
    ((features, encoder, words, config, init), graphs), (task, used, folder, _) = seen
    assert (str(features.path), words.names) == (str(store), ("dog", "cat", "zebra"))
    assert (encoder.precision, init, graphs) == ("fp32", "a photo", {"cuda_graphs": True})
    assert (config.epochs, config.batch_size, config.n_contexts, config.learning_rate) == (2, 16, 4, 0.05)
    assert (config.held_out, config.noise, config.negatives.strategy) == (0.2, 0.5, "random")
    assert used is config
    assert (task.identity["init"], folder) == ("words: a photo", run)
    assert PromptSet.load(out).metadata["init"] == "words: a photo"


def test_a_table_for_people_and_a_second_start(tai, store, vocabulary, tmp_path, monkeypatch):
    monkeypatch.setattr("tai_engine.cli.output.results.width", 200)
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    given = ["tune", store, "--vocabulary", vocabulary, *SETTINGS]
    outcome = tai(*given, "--out", first, "--run", tmp_path / "r", "--init", "a photo of")
    assert outcome.status == 0
    for words in ("held-out loss", "3 classes tuned on", "contexts of epoch 2", "temperature 40", "Lowest AP %"):
        assert words in outcome.stdout
    assert (tmp_path / "r" / "metrics.jsonl").is_file()
    assert tai(*given, "--out", second, "--init", first, "--class-specific").status == 0
    assert PromptSet.load(second).contexts["global_contexts"].shape == (3, 4, 32)


def test_constants_are_found_and_said(tai, store, vocabulary, tmp_path, monkeypatch):
    small = functools.partial(ConstantsGrid, (1e-3, 0.05), (10.0,), 2)
    monkeypatch.setattr("tai_engine.tuning.constants.ConstantsGrid", small)
    out = tmp_path / "p.safetensors"
    settings = ["--epochs", "1", "--batch-size", "16", "--contexts", "4", "--held-out", "0.2"]
    outcome = tai("tune", store, "--vocabulary", vocabulary, "--out", out, *settings, "--find-constants", "--json")
    assert outcome.status == 0
    (summary,) = outcome.json()
    assert summary["learning_rate"] in (1e-3, 0.05)
    assert (summary["text_temperature"], summary["image_temperature"]) == (10, 8)
    assert f"Chosen: learning rate {summary['learning_rate']:g} and temperature 10" in " ".join(outcome.stderr.split())
    assert PromptSet.load(out).constants == ScoringConstants(4.0, 8.0)
    kept = json.loads((tmp_path / "p.safetensors.run" / "constants.json").read_text())
    assert [trial["learning_rate"] for trial in kept["trials"]] == [1e-3, 0.05]


def test_the_temperature_that_is_told_is_that_of_the_prompts(tai, filled_store, vocabulary, tmp_path):
    """Dual prompts learn theirs: e³ at the start, where the recipe's would be 40."""
    labels, out = tmp_path / "labels.csv", tmp_path / "p.safetensors"
    labels.write_text("id,labels\n0.png,dog\n1.png,cat\n2.png,zebra;dog\n")
    given = ["tune", filled_store, "--vocabulary", vocabulary, "--out", out, "--labels", labels, "--system", "dualcoop"]
    outcome = tai(*given, "--epochs", "1", "--batch-size", "2", "--contexts", "2", "--json")
    assert outcome.status == 0
    (summary,) = outcome.json()
    assert summary["image_temperature"] == PromptSet.load(out).constants.image_temperature
    assert summary["image_temperature"] == pytest.approx(math.exp(3), rel=1e-3)


def test_an_interrupted_run_is_gone_on_with(tai, store, vocabulary, tmp_path, monkeypatch):
    given = ["tune", store, "--vocabulary", vocabulary, *SETTINGS, "--json"]
    assert tai(*given, "--out", tmp_path / "whole.safetensors").status == 0

    def interrupt(self, epoch):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Tuner, "_finish_epoch", interrupt)
        assert tai(*given, "--out", tmp_path / "p.safetensors").status == 130
    assert not (tmp_path / "p.safetensors").exists()
    assert tai(*given, "--out", tmp_path / "p.safetensors").status == 0
    whole, resumed = (PromptSet.load(tmp_path / f"{name}.safetensors") for name in ("whole", "p"))
    assert torch.equal(whole.global_vectors, resumed.global_vectors)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--negatives", "hardest"], "Unknown strategy for negatives 'hardest'; did you mean 'hard'"),
        (["--negative-share", "0.5"], "none are: add --negatives hard"),
        (
            ["--negatives", "hard", "--negative-share", "2"],
            r"share of negatives is 2\.0; it has to lie between 0 and 1",
        ),
        (["--epochs", "0"], "epochs of tuning is 0"),
        (["--loss", "hinge"], "Unknown loss 'hinge'"),
        (["--find-constants", "--lr", "0.1"], "leave these out, or that"),
        (["--init", "absent.safetensors"], r"There is no prompt set at 'absent\.safetensors'"),
        (["--contexts", "99"], "shorten the name or use fewer contexts"),
        (["--contexts", str(10**12)], "shorten the name or use fewer contexts"),
        (["--position", "behind"], "Unknown position of the class name 'behind'"),
        (["--cuda-graphs", "--device", "cpu"], "need a CUDA GPU, but the text tower is on cpu"),
        (["--lr", "1e38"], "not finite at step .* take a lower learning rate"),
    ],
)
def test_mistakes_are_said_in_a_sentence(options, message, tai, store, vocabulary, tmp_path):
    out = tmp_path / "p.safetensors"
    refused(tai("tune", store, "--vocabulary", vocabulary, "--out", out, *options), message)
    assert not out.exists()


def test_stores_that_do_not_fit(tai, store, filled_store, tmp_path, other_model):
    out, words = tmp_path / "p.safetensors", tmp_path / "animals.txt"
    words.write_text(VOCABULARY + "lion\n")
    given = ["--vocabulary", words, "--out", out]
    refused(tai("tune", store, *given), r"labels of the vocabulary 'animals' .* is now \(")
    refused(tai("tune", filled_store, *given), "holds images: give their labels with --labels")
    refused(tai("tune", tmp_path / "absent.zarr", *given), "There is no store at")
    words.write_text(VOCABULARY)
    refused(tai("tune", store, *given, "--model", other_model), "is of the embedding space .* but the text tower is of")
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--init", "word " * 200], "The initial words take 200 tokens|hold nothing|initial words"),
        (["--init", "p" * 5000 + ".safetensors"], "There is no prompt set at"),
        (["--init", "/"], "There is no prompt set at '/'"),
        (["--model", "local-dir:" + "f" * 5000], "There is no folder"),
        (["--model", "RN50", "--pretrained", "p" * 5000], "Unknown pretrained tag of RN50"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_names_that_no_file_system_takes(options, message, tai, store, vocabulary, tmp_path):
    refused(tai("tune", store, "--vocabulary", vocabulary, "--out", tmp_path / "p.safetensors", *options), message)


def test_settings_come_from_the_user_then_with_the_model_then_from_the_paper(capsys):
    def settled(config, *, model="photos", said=(), init=None):
        return with_model_settings(config, init, said, model)

    published, constants = tuning.TuningConfig(), constants_of("photos")
    assert settled(published) == (tuning.TuningConfig(**constants.tuning), constants.initial_words)
    told = " ".join(capsys.readouterr().err.split())
    assert "Settings that come with the model 'photos' (class_specific, n_contexts," in told
    own = replace(published, epochs=7)
    config, start = settled(own, said={"epochs"}, init="words")
    assert (config.epochs, config.learning_rate, start) == (7, constants.tuning["learning_rate"], "words")
    assert settled(published, model="RN50") == (published, None)
    assert settled(published, model="demo")[0].n_contexts == constants.tuning["n_contexts"]
    pictures = replace(published, system="coop")
    assert settled(pictures) == (pictures, None)


def test_an_unknown_recipe(tai, store, vocabulary, tmp_path):
    arguments = ("--vocabulary", vocabulary, "--out", tmp_path / "p.safetensors", "--recipe", "mine")
    refused(tai("tune", store, *arguments), "Unknown recipe 'mine'")


@pytest.fixture
def few_captions(tmp_path, monkeypatch):
    """Captions that stand for the built-in ones."""
    path = tmp_path / "captions.jsonl"
    animals = ("dogs", "a cat", "puppies and a cat")
    rows = [{"image_id": n, "caption": f"Number {n}: {animals[n % 3]} in the garden."} for n in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("tai_engine.sentences.built_in._CAPTIONS", path)
    return path


def test_without_sentences_of_ones_own(tai, tiny_model, vocabulary, tmp_path, few_captions, store):
    out = tmp_path / "p.safetensors"
    given = ["tune", "--vocabulary", vocabulary, "--out", out, "--model", tiny_model, *SETTINGS, "--epochs", "1"]
    outcome = tai(*given, "--sentences", "builtin")
    said = " ".join(outcome.stderr.split())
    assert outcome.status == 0, said
    assert f"30 of 30 sentences name a class; {30 + 3 * 89} were encoded, 0 were in" in said
    assert "No sentence names 1 of 3 classes ('zebra'): add synonyms as people write them, or sentences" in said
    first = PromptSet.load(out)
    assert first.metadata["sentences"] == "builtin"
    # What was encoded stays, for other seeds.
    outcome = tai(*given, "--sentences", "builtin", "--seed", "2", "--run", tmp_path / "r")
    assert f"0 were encoded, {30 + 3 * 89} were in" in " ".join(outcome.stderr.split())
    place = tmp_path / "p.safetensors.sentences.zarr"
    assert tai("tune", place, *given[1:], "--run", tmp_path / "again").status == 0
    again = PromptSet.load(out)
    assert torch.equal(again.global_vectors, first.global_vectors)
    assert again.metadata["sentences"] == "builtin"
    # Prompts that start from such prompts have learned from the captions too; others have not.
    other = tmp_path / "q.safetensors"
    rest = ["--vocabulary", vocabulary, "--out", other, *SETTINGS, "--epochs", "1"]
    assert tai("tune", store, *rest, "--init", out).status == 0
    assert PromptSet.load(other).metadata["sentences"] == "builtin"
    assert tai("tune", store, *rest, "--run", tmp_path / "plain").status == 0
    assert "sentences" not in PromptSet.load(other).metadata


def test_sentences_of_a_file(tai, tiny_model, vocabulary, tmp_path):
    text, out = tmp_path / "s.txt", tmp_path / "p.safetensors"
    text.write_text("\n".join(f"{n} dogs, a cat and a zebra" for n in range(9)))
    given = ["--vocabulary", vocabulary, "--out", out, "--model", tiny_model, *SETTINGS, "--epochs", "1"]
    assert tai("tune", "--sentences", text, *given).status == 0
    assert "sentences" not in PromptSet.load(out).metadata
    refused(tai("tune", "--sentences", tmp_path / "missing.txt", *given), "missing.txt")


def test_captions_that_name_no_class(tai, tiny_model, tmp_path, few_captions):
    words = tmp_path / "plants.txt"
    words.write_text("fern\nmoss\n")
    given = ["--vocabulary", words, "--out", tmp_path / "p.safetensors", "--model", tiny_model]
    message = r"names a class of the vocabulary 'plants' \('fern', 'moss'\): .* synonyms, or sentences about them"
    refused(tai("tune", "--sentences", "builtin", *given), message)


def test_a_store_or_sentences(tai, store, vocabulary, tmp_path):
    given = ["--vocabulary", vocabulary, "--out", tmp_path / "p.safetensors"]
    refused(tai("tune", *given), "needs sentences: name a store .* --sentences with a file or 'builtin', and not both")
    refused(tai("tune", store, "--sentences", "builtin", *given), "and not both")
