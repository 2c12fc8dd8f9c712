import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tai_engine.encoders import devices, load_encoder
from tai_engine.encoders.dense import image_recipe, modified_resnet_vectors
from tai_engine.encoders.fast import int16
from tai_engine.encoders.fast.gate import FastTower, fast_tower, gate_pictures, lowest_cosine
from tai_engine.encoders.fast.int16 import Int16ResNet, why_not
from tai_kernels.encoding import int16_layers
from tiny_models import build_tiny_model, tiny_config

CPU = torch.device("cpu")
NO_LAYERS = int16_layers.why_not()
needs_layers = pytest.mark.skipif(bool(NO_LAYERS), reason=str(NO_LAYERS))


def noise(count, size=64, seed=1):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def pictures(count, seed=3):
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)) for _ in range(count)]


def names(count):
    return [f"picture {i}" for i in range(count)]


@pytest.fixture(scope="module")
def visual():
    return build_tiny_model(tiny_config("resnet-int16")).visual.requires_grad_(False)


@needs_layers
@pytest.mark.parametrize(("wants_fine", "without_position"), [(True, True), (False, True), (True, False)])
def test_the_vectors_are_near_the_exact_ones(visual, wants_fine, without_position):
    with torch.no_grad():
        found = Int16ResNet(visual, 64, wants_fine, without_position)(noise(6))
        expected = modified_resnet_vectors(visual, noise(6), wants_fine, without_position)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.shape == other.shape
            assert one.dtype == torch.float32
            assert float((one - other).norm() / other.norm()) < 2e-3
            assert float(F.cosine_similarity(one, other, dim=-1).min()) > 0.99999


@needs_layers
def test_it_is_what_the_gate_lets_pass(visual):
    exact = image_recipe(visual, 64)
    tower = fast_tower(exact, visual, 64, "int16", CPU)
    assert isinstance(tower, FastTower)
    assert tower.precision == "int16"
    with torch.no_grad():
        cosine = lowest_cosine(exact.compute, tower.compute, gate_pictures(64))
    assert 0.99999 < cosine < 1  # and it is another arithmetic


@needs_layers
def test_a_picture_does_not_depend_on_its_batch(visual):
    tower = Int16ResNet(visual, 64)
    with torch.no_grad():
        whole, alone, none = tower(noise(7)), tower(noise(7)[5:6]), tower(noise(7)[:0])
    assert torch.equal(whole.fine[5:6], alone.fine)  # integers all the way
    torch.testing.assert_close(whole.coarse[5:6], alone.coarse, atol=1e-5, rtol=1e-5)
    assert [len(rows) for rows in none] == [0, 0, 0]


@needs_layers
@pytest.mark.parametrize("size", [32, 96])
def test_other_sizes(size):
    config = tiny_config("resnet-int16")
    config["vision_cfg"]["image_size"] = size
    visual = build_tiny_model(config).visual
    with torch.no_grad():
        found, expected = Int16ResNet(visual, size)(noise(2, size)), modified_resnet_vectors(visual, noise(2, size))
    assert found.fine.shape == (2, (size // 32) ** 2, 24)
    assert float((found.fine - expected.fine).norm() / expected.fine.norm()) < 2e-3


def test_what_cannot_be_computed_so(visual, monkeypatch):
    monkeypatch.setattr(int16_layers, "why_not", lambda: None)
    assert why_not(visual, 64) is None
    assert why_not(visual, 80) == "80 pixels cannot be halved 5 times"
    narrow = build_tiny_model(tiny_config("resnet")).visual
    assert why_not(narrow, 64) == "a layer of 4 channels is faster in fp32"
    with pytest.raises(ValueError, match="a layer of 4 channels"):
        Int16ResNet(narrow, 64)
    config = tiny_config("resnet-int16")
    config["vision_cfg"]["width"] = 36
    assert why_not(build_tiny_model(config).visual, 64) == "a layer's channels are not a multiple of 8"
    monkeypatch.setattr(int16_layers, "why_not", lambda: "no C++ compiler was found (c++)")
    assert why_not(visual, 64) == "no C++ compiler was found (c++)"


# The encoder


@pytest.fixture
def avx2(monkeypatch):
    monkeypatch.setattr(devices, "has_fast_bf16", lambda _device: False)
    monkeypatch.setattr(devices, "has_fast_int16", lambda device: device.type == "cpu")


@needs_layers
def test_the_default_on_a_cpu_with_avx2_alone(avx2, model_folder, tiny_encoder):
    encoder = load_encoder(model_folder("resnet-int16"), device="cpu")
    found = encoder.encode_images(pictures(5), names(5))
    expected = tiny_encoder("resnet-int16").encode_images(pictures(5), names(5))
    assert (encoder.precision, encoder.image_precision) == ("fp32", "int16")
    assert (encoder.provenance["image_precision"], encoder.provenance["image_tower"]) == ("int16", "fast")
    assert encoder.recipe_key == tiny_encoder("resnet-int16").recipe_key
    for one, other in ((found.coarse, expected.coarse), (found.fine, expected.fine)):
        assert 0 < float((one - other).abs().max()) < 2e-3
    asked = load_encoder(model_folder("resnet-int16"), device="cpu", precision="fp32")
    torch.testing.assert_close(asked.encode_images(pictures(5), names(5)).fine, expected.fine, atol=1e-5, rtol=0)
    assert asked.provenance["image_precision"] == "fp32"


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_other_towers_are_computed_in_fp32(avx2, model_folder, tiny_encoder, caplog, kind):
    encoder = load_encoder(model_folder(kind), device="cpu")
    with caplog.at_level(logging.WARNING):
        found = encoder.encode_images(pictures(2), names(2))
    assert (encoder.image_precision, encoder.provenance["image_tower"]) == ("fp32", "fast")
    assert not caplog.records
    expected = tiny_encoder(kind).encode_images(pictures(2), names(2))
    torch.testing.assert_close(found.coarse, expected.coarse, atol=1e-5, rtol=0)


def broken(self, pixels):
    raise RuntimeError("no memory\nand more")


def wrong(self, pixels):
    vectors = wrong.real(self, pixels)
    return vectors._replace(coarse=vectors.coarse.flip(-1))


wrong.real = Int16ResNet.__call__


@needs_layers
@pytest.mark.parametrize(
    ("call", "message"),
    [(broken, "in int16, which failed here (no memory)"), (wrong, "in int16: its features have a cosine of ")],
)
def test_what_goes_wrong_is_computed_in_fp32(avx2, model_folder, monkeypatch, caplog, call, message):
    monkeypatch.setattr(int16.Int16ResNet, "__call__", call)
    encoder = load_encoder(model_folder("resnet-int16"), device="cpu")
    with caplog.at_level(logging.INFO):
        encoder.prepare_images()
    assert message in caplog.text
    assert (encoder.image_precision, encoder.provenance["image_tower"]) == ("fp32", "fast")


@needs_layers
def test_the_same_pictures_give_the_same_bits(avx2, model_folder):
    first, second = (load_encoder(model_folder("resnet-int16"), device="cpu", batch_size=4) for _ in range(2))
    images = pictures(7)
    whole, again = (encoder.encode_images(images, names(7)) for encoder in (first, second))
    last = second.encode_images(images[4:], names(7)[4:])
    assert torch.equal(whole.coarse, again.coarse)
    assert torch.equal(whole.fine, again.fine)
    assert torch.equal(whole.coarse[4:], last.coarse)
    assert torch.equal(whole[4:].fine, last.fine)
