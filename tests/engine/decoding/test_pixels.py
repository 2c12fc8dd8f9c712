"""Resize and crop are open_clip's, to the bit, and need no deep learning library."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tai_engine.decoding.pixels import INTERPOLATIONS, RESIZE_MODES, SquarePixels
from tai_engine.errors import UserError


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def of_open_clip(pixels, image):
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from torchvision.transforms import PILToTensor

    config = PreprocessCfg(
        size=pixels.size,
        resize_mode=pixels.resize_mode,
        interpolation=pixels.interpolation,
        fill_color=pixels.fill_color,
    )
    for step in image_transform_v2(config, is_train=False).transforms[:-2]:  # the last two make floats
        image = step(image)
    return PILToTensor()(image).numpy()


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_pixels_are_open_clips_to_the_bit(mode, interpolation):
    for size in (31, 32):
        pixels = pickle.loads(pickle.dumps(SquarePixels(size, mode, interpolation, fill_color=7)))
        for width, height in [(32, 32), (31, 31), (1, 1), (5, 64), (63, 5), (100, 67), (67, 100), (33, 32), (2, 90)]:
            image = noise(width, height)
            got = pixels(image)
            assert (got.shape, got.dtype, got.flags.c_contiguous) == (pixels.shape, np.uint8, True)
            np.testing.assert_array_equal(got, of_open_clip(pixels, image))


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.integers(1, 70),
    mode=st.sampled_from(RESIZE_MODES),
)
def test_any_size_is_open_clips_to_the_bit(width, height, size, mode):
    pixels, image = SquarePixels(size, mode), noise(width, height)
    if mode == "longest" and min(width, height) * size / max(width, height) <= 0.5:
        assert pixels(image).shape == (3, size, size)  # open_clip asks Pillow for a side of no pixels, which it refuses
        return
    np.testing.assert_array_equal(pixels(image), of_open_clip(pixels, image))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_other_modes_of_pillow_become_rgb(mode):
    pixels, image = SquarePixels(16), noise(40, 30).convert(mode)
    np.testing.assert_array_equal(pixels(image), of_open_clip(pixels, image))


def test_a_grey_picture_is_filled_up_with_grey():
    got = SquarePixels(4, "longest", fill_color=9)(Image.new("L", (8, 4), 200))
    assert got[0].tolist() == [[9] * 4, [200] * 4, [200] * 4, [9] * 4]
    assert (got[0] == got[1]).all()


def test_unknown_choices_are_refused():
    with pytest.raises(UserError, match="Unknown resize_mode in the model's preprocessing 'short'; did you mean"):
        SquarePixels(8, "short")
    with pytest.raises(UserError, match="Unknown interpolation in the model's preprocessing 'lanczos'"):
        SquarePixels(8, interpolation="lanczos")


def test_it_loads_no_deep_learning_library():
    code = "import sys, tai_engine.decoding.worker; print({'torch', 'open_clip', 'zarr'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
