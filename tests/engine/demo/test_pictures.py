from pathlib import Path

import numpy as np
from PIL import Image

from tai_engine.demo.pictures import TRUTH_NAME, draw_pictures
from tai_engine.demo.scenes import SceneGenerator
from tai_engine.demo.sprites import embedded_sprite_sheet
from tai_engine.evaluation.truth import load_truth
from tai_engine.sources import open_source
from tai_engine.vocabulary import load_vocabulary


def test_pictures_and_their_truth_fit_together_and_repeat(tmp_path: Path):
    first = draw_pictures(tmp_path / "a", 3, seed=5)
    assert draw_pictures(tmp_path / "b", 3, seed=5) == first
    assert draw_pictures(tmp_path / "c", 3, seed=6) != first
    for name, _ in first:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert [item.id for item in open_source(str(tmp_path / "a"))] == [name for name, _ in first]
    names = load_vocabulary("coco80").names
    truth = load_truth(tmp_path / "a" / TRUTH_NAME, names)
    assert truth.ids == tuple(name for name, _ in first)
    for row, (_, labels) in zip(truth.labels, first, strict=True):
        assert {names[c] for c in (row == 1).nonzero()[0]} == labels
        assert 1 <= len(labels) <= 4


def test_pictures_that_are_right_are_not_written_again(tmp_path: Path):
    drawn = draw_pictures(tmp_path, 2)
    first, second = (tmp_path / name for name, _ in drawn)
    before = first.stat()
    second.write_bytes(b"another picture")
    draw_pictures(tmp_path, 2)
    assert (first.stat().st_mtime_ns, first.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    with Image.open(second) as picture:
        assert picture.size == (256, 256)


def test_pictures_without_loss_are_the_scenes_themselves(tmp_path: Path):
    sheet = embedded_sprite_sheet()
    (drawn,) = draw_pictures(tmp_path, 1, seed=3, image_size=64, sheets=[sheet], lossless=True)
    (scene,) = SceneGenerator([sheet], image_size=64, seed=3).scenes(1)
    assert drawn == ("scene-00000.png", frozenset(scene.class_names))
    with Image.open(tmp_path / drawn[0]) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(scene.image))
