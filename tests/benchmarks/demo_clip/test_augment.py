import numpy as np
import pytest
from PIL import Image, ImageDraw

from tai_benchmarks.demo_clip.augment import StyleAugmentation, degrade, fill_holes
from tai_engine.demo.sprites import Sprite


def ring(line: tuple[int, int, int, int] = (0, 0, 0, 255)) -> Image.Image:
    image = Image.new("RGBA", (40, 40))
    ImageDraw.Draw(image).ellipse((2, 2, 37, 37), outline=line, width=4)
    return image


def test_fill_holes_by_hand() -> None:
    alpha = np.array(
        [
            [0, 255, 255, 255, 0],
            [0, 255, 0, 255, 0],
            [0, 255, 255, 255, 0],
            [0, 0, 255, 0, 0],
        ]
    )
    wanted = alpha > 0
    wanted[1, 2] = True

    assert (fill_holes(alpha) == wanted).all()


def test_an_open_shape_has_no_hole() -> None:
    alpha = np.array([[255, 255, 255], [255, 0, 0], [255, 255, 255]])

    assert (fill_holes(alpha) == (alpha > 0)).all()


def test_line_drawings_are_often_filled() -> None:
    augmentation = StyleAugmentation(reuse=0.0)
    sprite = Sprite("cup", "ring", ring(), monochrome=True)
    centres = [
        augmentation(np.random.default_rng(seed), sprite.image, sprite)
        .getchannel("A")
        .resize((40, 40))
        .getpixel((20, 20))
        for seed in range(40)
    ]

    # seven in ten are filled, a few of which have a part cut out again
    assert 15 <= sum(alpha > 128 for alpha in centres) <= 36


def test_changed_drawings_stay_rgba_and_differ() -> None:
    augmentation = StyleAugmentation(reuse=0.0)
    sprite = Sprite("cup", "ring", ring((200, 30, 30, 255)))
    changed = [augmentation(np.random.default_rng(seed), sprite.image, sprite) for seed in range(60)]

    assert {image.mode for image in changed} == {"RGBA"}
    assert len({image.tobytes() for image in changed}) == 60
    assert all(40 <= side <= 44 for image in changed for side in image.size)  # an outline adds up to two pixels a side


def test_share_of_zero_only_shifts_colours() -> None:
    augmentation = StyleAugmentation(share=0.0)
    sprite = Sprite("cup", "ring", ring((200, 30, 30, 255)))
    for seed in range(20):
        changed = augmentation(np.random.default_rng(seed), sprite.image, sprite)
        assert changed.getchannel("A").tobytes() == sprite.image.getchannel("A").tobytes()


def test_kept_results_are_shown_again_in_the_wanted_size() -> None:
    augmentation = StyleAugmentation(reuse=1.0)
    sprite = Sprite("cup", "ring", ring((200, 30, 30, 255)))
    first = augmentation(np.random.default_rng(1), sprite.image, sprite)

    assert augmentation(np.random.default_rng(2), first, sprite) is first
    assert augmentation(np.random.default_rng(3), sprite.image.resize((20, 20)), sprite).size == (20, 20)


@pytest.mark.parametrize("seed", range(12))
def test_degraded_scenes_keep_size_and_mode(seed: int) -> None:
    image = Image.effect_noise((50, 50), 60).convert("RGB")
    changed = degrade(np.random.default_rng(seed), image)

    assert (changed.size, changed.mode) == ((50, 50), "RGB")
