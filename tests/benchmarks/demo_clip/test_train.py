import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image

from tai_benchmarks.demo_clip import train
from tai_benchmarks.demo_clip.cut_tokens import CutVocabulary, cut_vocabulary
from tai_benchmarks.demo_clip.data import Stage
from tai_benchmarks.demo_clip.evaluate import evaluate_style, load_model, prompt_features
from tai_benchmarks.demo_clip.export import export_model
from tai_benchmarks.demo_clip.model import encode_images, encode_sentences, mix_styles
from tai_benchmarks.demo_clip.train import Trainer, TrainingOptions, load_checkpoint, save_checkpoint
from tai_engine.demo.sprites import Sprite, SpriteSheet, write_sprite_sheet
from tai_engine.errors import UserError

SMALL = Stage(1.0, 64, 0.5, 10.0, 0.1, (0.4, 0.6), 0.1, mix_styles=True)
OPTIONS = TrainingOptions(minutes=10, batch_size=6, captions=3, warm_up_steps=1, sentence_steps=0)


@pytest.fixture(scope="module")
def vocabulary() -> CutVocabulary:
    return cut_vocabulary()


@pytest.fixture(autouse=True)
def small_scenes_on_a_steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes of 64 pixels, and a clock that every look moves by a second, so that runs can be compared."""
    monkeypatch.setattr(train, "STAGES", (SMALL,))
    ticks = itertools.count(1)
    monkeypatch.setattr(train.time, "monotonic", lambda: float(next(ticks)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine two threads that wait for each other take many times as long as one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def blocks() -> SpriteSheet:
    colours = {"cat": (255, 0, 0, 255), "dog": (0, 255, 0, 255), "cup": (0, 0, 255, 255)}
    sprites = tuple(Sprite(name, name, Image.new("RGBA", (40, 30), colour)) for name, colour in colours.items())
    return SpriteSheet("blocks", "made here", "CC0-1.0", sprites)


def trainer(vocabulary: CutVocabulary, options: TrainingOptions = OPTIONS) -> Trainer:
    return Trainer([blocks()], vocabulary, options)


def test_steps_lower_the_loss(vocabulary: CutVocabulary) -> None:
    run = trainer(vocabulary)
    batch = run.batches().batch(0)
    parts = [run.train_step(batch) for _ in range(8)]

    assert set(parts[0]) == {"loss", "coarse", "local", "pooled", "sentence", "token", "contrast"}
    assert parts[0]["loss"] == pytest.approx(sum(value for name, value in parts[0].items() if name != "loss"), rel=1e-5)
    assert parts[-1]["loss"] < 0.6 * parts[0]["loss"]
    assert parts[-1]["local"] < parts[0]["local"]
    assert run.step == run.batches_drawn == 8


def test_first_steps_are_sentences_only(vocabulary: CutVocabulary) -> None:
    run = trainer(vocabulary, TrainingOptions(minutes=10, batch_size=6, sentence_steps=1))
    before = run.model.visual.conv1.weight.clone()
    first = run.train_step(run.batches().batch(0))

    assert set(first) == {"loss", "sentence", "token"}
    assert torch.equal(run.model.visual.conv1.weight, before)
    assert not run.sentences_only
    assert "coarse" in run.train_step(run.batches().batch(1))


def test_unknown_words_keep_a_row_of_zeros(vocabulary: CutVocabulary) -> None:
    run = trainer(vocabulary)
    for number in range(2):
        run.train_step(run.batches().batch(number))

    table = run.model.token_embedding.weight
    assert not table[0].any()
    assert table[1:].any(dim=1).all()


def test_a_resumed_run_is_the_same_run(vocabulary: CutVocabulary, tmp_path: Path) -> None:
    straight = trainer(vocabulary)
    for number in range(2):
        straight.train_step(straight.batches().batch(number))
    save_checkpoint(straight, tmp_path / "checkpoint.pt")
    resumed = trainer(vocabulary)
    resumed.load_state(load_checkpoint(tmp_path / "checkpoint.pt"))

    assert (resumed.step, resumed.batches_drawn, resumed.seconds) == (2, 2, straight.seconds)
    straight._last_end = None  # a resumed run does not count the time it was away
    for run in (straight, resumed):
        run.train_step(run.batches().batch(2))
    for name, value in straight.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
        assert torch.equal(resumed.average[name], straight.average[name]), name
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_checkpoint_of_other_words(vocabulary: CutVocabulary) -> None:
    state = trainer(vocabulary).state()
    fewer = CutVocabulary(vocabulary.ids[:10] + vocabulary.ids[-2:])

    with pytest.raises(UserError, match="trained with other words"):
        trainer(fewer).load_state(state)


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint .*checkpoint\.pt to resume"):
        load_checkpoint(tmp_path / "checkpoint.pt")


def test_learning_rate_warms_up_and_ends_low(vocabulary: CutVocabulary) -> None:
    run = trainer(vocabulary, TrainingOptions(minutes=10, warm_up_steps=4, learning_rate=1.0))

    assert run.learning_rate() == pytest.approx(0.25)
    run.step, run.seconds = 10, 300.0  # half of the time: 0.01 + 0.99 / 2
    assert run.learning_rate() == pytest.approx(0.505)
    run.seconds = 600.0
    assert run.learning_rate() == pytest.approx(0.01)
    assert run.progress == 1.0


def test_whole_command_writes_a_model_that_plain_open_clip_loads(tmp_path: Path) -> None:
    write_sprite_sheet(blocks(), tmp_path / "sprites" / "blocks.json", cell=42)
    command = ["--sprites", str(tmp_path / "sprites"), "--out", str(tmp_path / "run"), "--minutes", "0.05"]
    train.main([*command, "--replicas", "1", "--threads", "1", "--workers", "0"])

    model = open_clip.create_model(f"local-dir:{tmp_path / 'run' / 'clip'}", precision="fp32")
    assert model.token_embedding.weight.shape == (49408, 96)
    assert sorted(path.name for path in (tmp_path / "run" / "clip").iterdir()) == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
    ]


def test_exported_model_gives_the_trained_features(vocabulary: CutVocabulary, tmp_path: Path) -> None:
    run = trainer(vocabulary)
    run.train_step(run.batches().batch(0))
    export_model(run.average, vocabulary, tmp_path)
    model, tokenizer = load_model(tmp_path)
    run.model.load_state_dict(run.average)
    run.model.eval()
    series = run.batches()
    words = series.tokenizer.words("a photo of a teddy bear.")
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        text = encode_sentences(run.model, series.tokenizer.pad([words])).coarse
        exported_text = model.encode_text(tokenizer(["a photo of a teddy bear."]), normalize=True)
        image = encode_images(run.model, images).with_position
        exported_image = model.encode_image(images, normalize=True)

    # weights were rounded to half precision
    assert (text - exported_text).abs().max() < 2e-3
    assert (image - exported_image).abs().max() < 2e-2
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    assert config["model_cfg"]["text_cfg"]["context_length"] == 77
    table = model.token_embedding.weight
    assert table.any(dim=1).sum() == len(vocabulary.ids) - 1


def test_evaluation_counts_the_drawn_classes(vocabulary: CutVocabulary, tmp_path: Path) -> None:
    run = trainer(vocabulary)
    export_model(run.average, vocabulary, tmp_path)
    model, tokenizer = load_model(tmp_path)

    result = evaluate_style(model, prompt_features(model, tokenizer), [blocks()], "blocks", scenes=12, batch_size=5)

    assert (result.style, result.scenes, result.classes) == ("blocks", 12, 3)
    assert list(result.scores) == ["coarse", "coarse, no position", "fine", "merged"]
    assert all(0 < score <= 100 for score in result.scores.values())
    assert {name for name, _ in result.weakest} == {"cat", "dog", "cup"}


def test_mixing_styles_keeps_the_normalised_features() -> None:
    generator = torch.Generator().manual_seed(1)
    x_NCHW = torch.rand(6, 3, 8, 8, generator=generator)
    mixed = mix_styles(x_NCHW, generator)

    def content(y: torch.Tensor) -> torch.Tensor:
        return (y - y.mean(dim=(2, 3), keepdim=True)) / y.std(dim=(2, 3), keepdim=True)

    assert torch.allclose(content(mixed), content(x_NCHW), atol=1e-3)
    changed = (mixed - x_NCHW).abs().amax(dim=(1, 2, 3)) > 1e-4
    assert 0 < changed.sum() < 6
