import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image

from tai_benchmarks.demo_clip.cut_tokens import CutTokenizer, CutVocabulary, cut_vocabulary
from tai_benchmarks.demo_clip.data import IGNORED, SceneBatches, Stage, batch_loader, read_training_sheets
from tai_engine.demo.scenes import Scene, SceneObject
from tai_engine.demo.sprites import Sprite, SpriteSheet, embedded_sprite_sheet, write_sprite_sheet
from tai_engine.errors import UserError
from tai_engine.vocabulary import load_vocabulary

STAGE = Stage(1.0, 64, 0.5, 10.0, 0.1, (0.3, 0.6), 0.1, mix_styles=False)


@pytest.fixture(scope="module")
def vocabulary() -> CutVocabulary:
    return cut_vocabulary()


def blocks(style: str = "blocks") -> SpriteSheet:
    colours = {"cat": (255, 0, 0, 255), "dog": (0, 255, 0, 255), "cup": (0, 0, 255, 255)}
    sprites = tuple(Sprite(name, name, Image.new("RGBA", (40, 30), colour)) for name, colour in colours.items())
    return SpriteSheet(style, "made here", "CC0-1.0", sprites)


def batches(vocabulary: CutVocabulary, **options: object) -> SceneBatches:
    settings = {"batch_size": 3, "stage": STAGE, "seed": 1, **options}
    return SceneBatches([blocks()], vocabulary, **settings)


def test_training_refuses_the_test_style_by_name(tmp_path: Path) -> None:
    write_sprite_sheet(blocks(), tmp_path / "blocks.json", cell=32)
    write_sprite_sheet(blocks("Fluent-Emoji-Flat"), tmp_path / "other.json", cell=32)

    with pytest.raises(UserError, match=r"other\.json holds the test style, which training must never see"):
        read_training_sheets(tmp_path)


def test_training_refuses_the_test_style_by_its_pixels(tmp_path: Path) -> None:
    embedded = embedded_sprite_sheet()
    largest = max(max(sprite.image.size) for sprite in embedded.sprites)
    hidden = tuple(s for s in embedded.sprites if max(s.image.size) == largest)[:1]
    renamed = SpriteSheet("harmless", "made here", "CC0-1.0", (*blocks().sprites, *hidden))
    # one pixel of edge on each side: the drawing keeps its size, and so its pixels
    write_sprite_sheet(renamed, tmp_path / "harmless.json", cell=largest + 2)

    with pytest.raises(UserError, match=r"harmless\.json holds the test style"):
        read_training_sheets(tmp_path)


def test_training_reads_other_styles(tmp_path: Path) -> None:
    write_sprite_sheet(blocks(), tmp_path / "blocks.json", cell=32)

    assert [sheet.style for sheet in read_training_sheets(tmp_path)] == ["blocks"]


def test_folder_without_sheets(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no sprite sheets"):
        read_training_sheets(tmp_path)


def test_cut_vocabulary_keeps_the_order_and_the_ends(vocabulary: CutVocabulary) -> None:
    assert list(vocabulary.ids) == sorted(set(vocabulary.ids))
    assert vocabulary.ids[vocabulary.start] == 49406
    assert vocabulary.ids[vocabulary.end] == 49407
    assert vocabulary.ids[0] == 0
    assert len(vocabulary.ids) < 2000


def test_cut_tokens_stand_for_the_clip_tokens(vocabulary: CutVocabulary) -> None:
    text = "a photo of a teddy bear."
    tokenizer = CutTokenizer(vocabulary)

    padded = tokenizer.pad([tokenizer.words(text), tokenizer.words("dog")])

    length = len(SimpleTokenizer().encode(text)) + 2
    assert padded.shape == (2, length)
    assert [vocabulary.ids[index] for index in padded[0].tolist()] == SimpleTokenizer()(text)[0, :length].tolist()
    assert padded[1].argmax() == 2
    assert padded[1, 3:].tolist() == [0] * (length - 3)
    assert tokenizer.words("\u6f22") == (0,) * len(SimpleTokenizer().encode("\u6f22"))


def test_long_sentences_are_cut_at_the_context_length(vocabulary: CutVocabulary) -> None:
    padded = CutTokenizer(vocabulary).pad([[5] * 100])

    assert padded.shape == (1, 77)
    assert padded[0, -1] == vocabulary.end


def test_a_batch_depends_on_seed_and_number_alone(vocabulary: CutVocabulary) -> None:
    one, two = batches(vocabulary).batch(4), batches(vocabulary, first=4).batch(4)

    for name in ("images", "present", "locations", "captions", "caption_classes", "prompts"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    assert not torch.equal(one.images, batches(vocabulary).batch(5).images)
    assert not torch.equal(one.images, batches(vocabulary, seed=2).batch(4).images)


def test_replicas_share_the_series(vocabulary: CutVocabulary) -> None:
    series = iter(batches(vocabulary, first=1, stride=2))

    for number in (1, 3):
        assert torch.equal(next(series).captions, batches(vocabulary).batch(number).captions)


def test_loader_gives_the_series_in_order(vocabulary: CutVocabulary) -> None:
    loader = iter(batch_loader(batches(vocabulary, first=2), workers=0))

    for number in (2, 3):
        assert torch.equal(next(loader).captions, batches(vocabulary).batch(number).captions)


def test_batch_truth_agrees_with_its_parts(vocabulary: CutVocabulary) -> None:
    batch = batches(vocabulary, batch_size=20).batch(0)
    names = load_vocabulary("coco80").names
    drawn = [names.index(name) for name in ("cat", "cup", "dog")]

    assert batch.images.shape == (20, 64, 64, 3)
    assert batch.present[:, [c for c in range(80) if c not in drawn]].sum() == 0
    assert (batch.present.sum(dim=1) >= 1).all()
    assert set(batch.locations.unique().tolist()) <= {0.0, 1.0, IGNORED}
    # every class that is present shows clearly somewhere unless something covers it, and no other class shows at all
    assert (batch.locations.max(dim=1).values <= batch.present).all()
    for row, classes in enumerate(batch.caption_classes.tolist()):
        assert {c for c in classes if c >= 0} == set(batch.present[row].nonzero().flatten().tolist())


def test_locations_by_hand(vocabulary: CutVocabulary) -> None:
    owner = np.zeros((64, 64), dtype=np.uint8)
    owner[0:32, 0:32] = 1  # all of the first cell
    owner[0:32, 32:34] = 1  # 6 % of the second cell: hardly
    owner[40:41, 40:41] = 2  # a dot, but all of it lies in the last cell
    things = (SceneObject("cat", (0, 0, 34, 32)), SceneObject("dog", (40, 40, 41, 41)))
    location_LC = np.zeros((4, 80), dtype=np.float32)

    batches(vocabulary)._mark_locations(location_LC, Scene(Image.new("RGB", (64, 64)), things, owner), side=2)

    names = load_vocabulary("coco80").names
    assert location_LC[:, names.index("cat")].tolist() == [1.0, IGNORED, 0.0, 0.0]
    assert location_LC[:, names.index("dog")].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert location_LC.sum() == 1.0


def test_sentences_only(vocabulary: CutVocabulary) -> None:
    batch = batches(vocabulary, sentences_only=True, batch_size=6).batch(0)

    assert batch.images.shape == (6, 0, 0, 3)
    assert (batch.present.sum(dim=1) >= 1).all()
    assert len(batch.captions) == 6


def test_prompts_hold_every_class_name_or_synonym(vocabulary: CutVocabulary) -> None:
    series = batches(vocabulary)
    batch = series.batch(0)

    assert len(batch.prompts) == 80
    for row, entry in zip(batch.prompts.tolist(), load_vocabulary("coco80").classes, strict=True):
        text = f" {' '.join(map(str, row))} "
        words = (" ".join(map(str, series.tokenizer.words(word))) for word in entry.words)
        assert any(f" {word} " in text for word in words), entry.name


def test_stage_decides_the_size(vocabulary: CutVocabulary) -> None:
    assert batches(vocabulary, stage=replace(STAGE, image_size=96)).batch(0).images.shape == (3, 96, 96, 3)


def test_sheet_index_is_json(tmp_path: Path) -> None:
    write_sprite_sheet(blocks(), tmp_path / "blocks.json", cell=32)

    assert json.loads((tmp_path / "blocks.json").read_text())["licence"] == "CC0-1.0"
