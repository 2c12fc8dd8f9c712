"""JPEGs decoded at a smaller scale give features that are nearly those of the whole pictures."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tai_engine.cli.cache import DRAFT
from tai_engine.decoding.decode import DecodeOptions, decode_image, decode_picture
from tai_engine.encoders import load_encoder
from tai_engine.encoders.embedded import embedded_folder

PHOTOGRAPHS = sorted((embedded_folder("photos") / "photographs").glob("*.jpg"))


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("photos", "")


def jpegs_of(short_side, count):
    """Photographs of that size, one side longer than the other; sides of all remainders by eight."""
    draw = np.random.default_rng(1)
    for path in PHOTOGRAPHS[:count]:
        photograph = Image.open(path).convert("RGB").resize([short_side * 4 // 3] * 2, Image.Resampling.LANCZOS)
        size = [photograph.width, short_side + int(draw.integers(8))]
        draw.shuffle(size)
        pixels = np.asarray(photograph.crop((0, 0, *size)))
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=88)
        yield file.getvalue()


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.slow
def test_drafts_keep_the_features(encoder, scale):
    # The worst case of each scale: as few pixels are left as the option allows.
    options, names = DecodeOptions(draft=DRAFT), [f"{n}" for n in range(12)]
    short_side = int(np.ceil(DRAFT * encoder.image_size)) * scale
    jpegs = list(jpegs_of(short_side, len(names)))
    drafts = [decode_picture(data, options, encoder.image_size) for data in jpegs]
    assert all(round(draft.size[0] / draft.image.width) == scale for draft in drafts)
    whole = encoder.encode_images([decode_image(data) for data in jpegs], names)
    to_pixels = encoder.preprocess.pixels
    pixels = [torch.from_numpy(to_pixels(draft.image, draft.size, draft.box)) for draft in drafts]
    drafted = encoder.encode_pixels(torch.stack(pixels), names)
    # One location of the last map sees less to even out than the mean of all.
    for kind, mean, lowest in (("coarse", 0.999, 0.997), ("fine", 0.997, 0.985)):
        cosines = (getattr(whole, kind) * getattr(drafted, kind)).sum(1)
        assert cosines.mean() >= mean
        assert cosines.quantile(0.01) >= lowest
