import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tai_engine.demo.scenes import SceneGenerator, random_background, shift_colours
from tai_engine.demo.sprites import Sprite, SpriteSheet, embedded_sprite_sheet
from tai_engine.errors import UserError


def blocks() -> SpriteSheet:
    sprites = tuple(
        Sprite(name, name, Image.new("RGBA", (40, 30), colour))
        for name, colour in {"cat": (255, 0, 0, 255), "dog": (0, 255, 0, 255)}.items()
    )
    return SpriteSheet("blocks", "made here", "CC0-1.0", sprites)


def test_a_scene_depends_on_seed_and_number_alone() -> None:
    sheets = [embedded_sprite_sheet()]
    forwards = list(SceneGenerator(sheets, seed=5).scenes(4))
    again = SceneGenerator(sheets, seed=5)
    other = SceneGenerator(sheets, seed=6)

    for number in (3, 0, 2, 1):
        scene = again.scene(number)
        assert scene.image.tobytes() == forwards[number].image.tobytes()
        assert scene.objects == forwards[number].objects
        assert (scene.owner == forwards[number].owner).all()
        assert other.scene(number).image.tobytes() != scene.image.tobytes()
    assert [scene.objects for scene in again.scenes(2, start=2)] == [scene.objects for scene in forwards[2:]]


def test_boxes_lie_where_the_sprites_are() -> None:
    # no rotation, colour change or noise from the sprites: pure red and green are seen only where a sprite is
    generator = SceneGenerator([blocks()], seed=1, rotation=0.0, colour=0.0, objects=(1, 1))

    for scene in generator.scenes(20):
        (thing,) = scene.objects
        left, top, right, bottom = thing.box
        pixels = np.asarray(scene.image).astype(int)
        wanted = np.array([255, 0, 0] if thing.class_name == "cat" else [0, 255, 0])
        inside = np.abs(pixels[top:bottom, left:right] - wanted).max(axis=2)
        assert inside.max() <= 12  # the amplitude of the noise
        assert (scene.owner[top:bottom, left:right] == 1).all()
        assert (scene.owner == 1).sum() == (right - left) * (bottom - top)
        # 0.3 to 0.6 of 128 pixels, on the long side
        assert 38 <= right - left <= 77
        assert abs((bottom - top) - 0.75 * (right - left)) <= 1


@settings(max_examples=25, deadline=None)
@given(
    number=st.integers(0, 10**6), size=st.sampled_from([32, 97, 128, 200]), rotation=st.sampled_from([0.0, 20.0, 45.0])
)
def test_truth_of_any_scene(number: int, size: int, rotation: float) -> None:
    generator = SceneGenerator([EMBEDDED], image_size=size, seed=3, rotation=rotation, shear=0.1)

    scene = generator.scene(number)

    assert scene.image.size == (size, size)
    assert scene.image.mode == "RGB"
    assert scene.owner.shape == (size, size)
    assert 1 <= len(scene.objects) <= 4
    assert scene.owner.max() <= len(scene.objects)
    for place, thing in enumerate(scene.objects, start=1):
        left, top, right, bottom = thing.box
        assert 0 <= left < right <= size
        assert 0 <= top < bottom <= size
        rows, columns = np.nonzero(scene.owner == place)
        assert len(rows) > 0
        assert left <= columns.min()
        assert columns.max() < right
        assert top <= rows.min()
        assert rows.max() < bottom
    # nothing covers the last object: its mask touches all sides of its box
    left, top, right, bottom = scene.objects[-1].box
    rows, columns = np.nonzero(scene.owner == len(scene.objects))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, right, bottom)
    assert scene.class_names == tuple(sorted({thing.class_name for thing in scene.objects}))


EMBEDDED = embedded_sprite_sheet()


def test_every_class_is_drawn_about_equally_often() -> None:
    generator = SceneGenerator([blocks()], image_size=32, seed=2)
    names = [thing.class_name for scene in generator.scenes(160) for thing in scene.objects]

    # 1 to 4 objects, so 400 in the mean, with a deviation of 14; a fair share of 400 deviates by 10
    assert abs(len(names) - 400) < 4 * 14
    assert abs(names.count("cat") - len(names) / 2) < 4 * 10


def test_style_weight_of_zero_leaves_the_style_out() -> None:
    blue = tuple(Sprite(s.class_name, s.slug, Image.new("RGBA", (40, 30), (0, 0, 255, 255))) for s in blocks().sprites)
    sheets = [blocks(), SpriteSheet("blue", "made here", "CC0-1.0", blue)]
    generator = SceneGenerator(sheets, seed=1, rotation=0.0, colour=0.0, style_weights=[0.0, 1.0])

    for scene in generator.scenes(5):
        assert np.asarray(scene.image)[scene.owner > 0].mean(axis=0)[2] > 240


def test_no_colour_change_at_strength_zero_and_grey_stays_grey_under_a_hue_turn() -> None:
    drawing = Image.new("RGBA", (4, 4), (100, 100, 100, 77))

    assert shift_colours(np.random.default_rng(0), drawing, 0.0) is drawing
    for seed in range(10):
        changed = shift_colours(np.random.default_rng(seed), drawing, 1.0)
        red, green, blue, alpha = changed.getpixel((1, 1))
        assert max(red, green, blue) - min(red, green, blue) <= 1
        assert alpha == 77


def test_backgrounds_have_the_wanted_size_and_differ() -> None:
    pictures = {random_background(np.random.default_rng(seed), 48).tobytes() for seed in range(20)}

    assert len(pictures) == 20
    assert {len(picture) for picture in pictures} == {48 * 48 * 3}


def test_no_sprites() -> None:
    with pytest.raises(UserError, match="got no sprites"):
        SceneGenerator([])


@pytest.mark.parametrize(("options", "message"), [({"image_size": 8}, "8 pixels"), ({"objects": (0, 2)}, "0 to 2")])
def test_settings_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SceneGenerator([blocks()], **options)
