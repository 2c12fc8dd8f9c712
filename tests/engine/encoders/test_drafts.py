"""JPEGs decoded at a smaller scale give features that are nearly those of the whole pictures."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tai_engine.cli.cache import DRAFT
from tai_engine.decoding.decode import DecodeOptions, decode_image, decode_picture
from tai_engine.demo import MODEL_FOLDER
from tai_engine.demo.scenes import SceneGenerator
from tai_engine.demo.sprites import embedded_sprite_sheet
from tai_engine.encoders import load_encoder


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(f"local-dir:{MODEL_FOLDER}", "")


def grainy_jpegs(short_side, count):
    """Scenes with the grain of a photo, one side longer than the other; sides of all remainders by eight."""
    draw = np.random.default_rng(1)
    for scene in SceneGenerator([embedded_sprite_sheet()], image_size=short_side * 4 // 3, seed=3).scenes(count):
        size = [scene.image.width, short_side + int(draw.integers(8))]
        draw.shuffle(size)
        pixels = np.asarray(scene.image.crop((0, 0, *size))) + draw.normal(0, 6, (size[1], size[0], 1))
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=88)
        yield file.getvalue()


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.slow
def test_drafts_keep_the_features(encoder, scale):
    # The worst case of each scale: as few pixels are left as the option allows.
    options, names = DecodeOptions(draft=DRAFT), [f"{n}" for n in range(12)]
    short_side = int(np.ceil(DRAFT * encoder.image_size)) * scale
    jpegs = list(grainy_jpegs(short_side, len(names)))
    drafts = [decode_picture(data, options, encoder.image_size) for data in jpegs]
    assert all(round(draft.size[0] / draft.image.width) == scale for draft in drafts)
    whole = encoder.encode_images([decode_image(data) for data in jpegs], names)
    to_pixels = encoder.preprocess.pixels
    pixels = [torch.from_numpy(to_pixels(draft.image, draft.size, draft.box)) for draft in drafts]
    drafted = encoder.encode_pixels(torch.stack(pixels), names)
    for kind in ("coarse", "fine"):
        cosines = (getattr(whole, kind) * getattr(drafted, kind)).sum(1)
        assert cosines.mean() >= 0.999
        assert cosines.quantile(0.01) >= 0.997
