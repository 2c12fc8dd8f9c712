import copy
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from tai_engine.encoders import devices, load_encoder
from tai_engine.encoders.dense import ImageVectors, image_recipe, modified_resnet_vectors
from tai_engine.encoders.fast import gate
from tai_engine.encoders.fast import resnet as fast_resnet
from tai_engine.encoders.fast.gate import LEAST_COSINE, fast_tower, gate_pictures, lowest_cosine, rewritten
from tai_engine.encoders.fast.resnet import FoldedResNet, Place, WinogradConvolution, fold_batch_norm, winograd_pays
from tai_engine.encoders.positions import resize_image_tower
from tiny_models import build_tiny_model, tiny_config

CPU = torch.device("cpu")


def pictures(count, seed=3):
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)) for _ in range(count)]


def names(count):
    return [f"picture {i}" for i in range(count)]


def noise(count, size=64, seed=1):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def close_vectors(found: ImageVectors, expected: ImageVectors, tolerance=1e-5):
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.shape == other.shape
            assert float((one.double() - other.double()).norm() / other.double().norm()) < tolerance


@pytest.fixture(scope="module")
def resnet():
    return build_tiny_model(tiny_config("resnet")).visual.requires_grad_(False)


# The ResNet


def test_a_batch_norm_folds_by_hand():
    conv, norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.0)
    with torch.no_grad():
        conv.weight.fill_(2.0)
        norm.weight.fill_(3.0)
        norm.bias.fill_(5.0)
        norm.running_mean.fill_(1.0)
        norm.running_var.fill_(4.0)
        weight, bias = fold_batch_norm(conv, norm)  # (2x - 1) * 3 / 2 + 5
    assert (weight.item(), bias.item()) == (3.0, 3.5)
    assert weight.dtype == torch.float64


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("wants_fine", "without_position"), [(True, True), (False, True), (True, False)])
def test_the_folded_tower_gives_the_exact_vectors(resnet, monkeypatch, packed, wants_fine, without_position):
    if packed and not fast_resnet.can_pack(torch.float32, CPU):
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(fast_resnet, "can_pack", lambda *_: packed)
    with torch.no_grad():
        folded = FoldedResNet(resnet, 64, torch.float32, CPU, wants_fine, without_position)
        found = folded(noise(3))
        expected = modified_resnet_vectors(
            build_tiny_model(tiny_config("resnet")).visual.double(), noise(3).double(), wants_fine, without_position
        )
    close_vectors(found, expected)


def test_the_folded_tower_with_winograd_convolutions(resnet, monkeypatch):
    monkeypatch.setattr(fast_resnet, "_FEWEST_WINOGRAD_CHANNELS", 8)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    folded = FoldedResNet(resnet, 96, torch.float32, CPU)
    assert [type(block._conv2) for block in folded._blocks] == [WinogradConvolution] * 4
    visual = load_at_96(resnet)
    with torch.no_grad():
        close_vectors(
            FoldedResNet(visual, 96, torch.float32, CPU)(noise(3, 96)), modified_resnet_vectors(visual, noise(3, 96))
        )


def load_at_96(visual):
    larger = copy.deepcopy(visual)
    resize_image_tower(larger, 96)
    return larger


def test_where_fewer_multiplications_pay(monkeypatch):
    capability = "AVX2"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    wide = nn.Conv2d(128, 128, 3, padding=1, bias=False)
    place = Place(torch.float32, CPU, 14)
    assert winograd_pays(wide, place)
    assert not winograd_pays(nn.Conv2d(64, 128, 3, padding=1), place)
    assert not winograd_pays(nn.Conv2d(128, 128, 3, padding=1, stride=2), place)
    assert not winograd_pays(nn.Conv2d(128, 128, 1), place)
    assert not winograd_pays(nn.Conv2d(128, 128, 3), place)
    assert not winograd_pays(nn.Conv2d(256, 128, 3, padding=1, groups=2), place)
    assert not winograd_pays(wide, place._replace(dtype=torch.bfloat16))
    assert not winograd_pays(wide, place._replace(device=torch.device("cuda")))
    capability = "AVX512"
    assert not winograd_pays(wide, place)


# Other towers


@pytest.mark.parametrize("kind", ["vit", "vit-layer-scale", "vit-average-pool", "vit-custom-block", "coca", "timm"])
@pytest.mark.parametrize("dense", ["auto", "none"])
def test_other_towers_give_the_exact_vectors(kind, dense):
    visual = build_tiny_model(tiny_config(kind)).visual
    exact = image_recipe(visual, 64, dense)
    with torch.no_grad():
        close_vectors(rewritten(exact, visual, 64, "fp32", CPU)(noise(2)), exact.compute(noise(2)))


def test_the_value_path_of_a_vit():
    visual = build_tiny_model(tiny_config("vit")).visual
    exact = image_recipe(visual, 64, "value")
    with torch.no_grad():
        close_vectors(rewritten(exact, visual, 64, "fp32", CPU)(noise(2)), exact.compute(noise(2)))


@pytest.mark.parametrize("kind", ["resnet", "vit", "timm"])
def test_a_tower_in_bf16_leaves_the_exact_one_as_it_is(kind):
    visual = build_tiny_model(tiny_config(kind)).visual
    before = {name: tensor.clone() for name, tensor in visual.state_dict().items()}
    exact = image_recipe(visual, 64)
    tower = fast_tower(exact, visual, 64, "bf16", CPU)
    assert tower is not None
    assert tower.precision == "bf16"
    with torch.no_grad():
        found, expected = tower.compute(noise(2)), exact.compute(noise(2))
    assert found.coarse.dtype == torch.bfloat16
    assert float(F.cosine_similarity(found.coarse.double(), expected.coarse.double()).min()) > LEAST_COSINE
    after = visual.state_dict()
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype for name, tensor in before.items()
    )


# The gate


def vectors(*rows):
    coarse, fine, clip = (None if row is None else torch.tensor(row) for row in rows)
    return lambda _pixels: ImageVectors(coarse, fine, clip)


def test_the_lowest_cosine_by_hand():
    exact = vectors([[1.0, 0.0], [0.0, 2.0]], [[[1.0, 0.0]], [[3.0, 4.0]]], None)
    pixels = torch.zeros(2, 3, 4, 4)
    assert lowest_cosine(exact, vectors([[5.0, 0.0], [0.0, 1.0]], [[[1.0, 0.0]], [[3.0, 4.0]]], None), pixels) == 1.0
    turned = vectors([[1.0, 0.0], [0.0, 2.0]], [[[1.0, 0.0]], [[4.0, 3.0]]], None)
    assert lowest_cosine(exact, turned, pixels) == pytest.approx(24 / 25)
    overflowed = vectors([[1.0, 0.0], [0.0, float("nan")]], [[[1.0, 0.0]], [[3.0, 4.0]]], None)
    assert np.isnan(lowest_cosine(exact, overflowed, pixels))


def test_the_pictures_of_the_gate_have_structure():
    first, second = gate_pictures(96), gate_pictures(96)
    assert torch.equal(first, second)
    assert first.shape == (3, 3, 96, 96)
    assert float(first.std()) == pytest.approx(1.0)
    # Neighbours are alike, as in photographs, and no two pictures are.
    assert float((first[..., 1:] - first[..., :-1]).std()) < 0.7
    assert float((first[0] - first[1]).std()) > 0.5
    assert gate_pictures(33).shape == (3, 3, 33, 33)


def without_shift(conv, norm):
    weight, bias = fold_batch_norm(conv, norm)
    return weight, torch.zeros_like(bias) - 1.0


def refused(_conv, _norm):
    raise RuntimeError("no such operator\nand more")


def overflowing(conv, norm):
    weight, bias = fold_batch_norm(conv, norm)
    return weight * float("inf"), bias


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (without_shift, "its features have a cosine of 0."),
        (overflowing, "its features have a cosine of"),
        (refused, "which failed here (no such operator)"),
    ],
)
def test_a_broken_tower_is_not_used(model_folder, tiny_encoder, monkeypatch, caplog, broken, message):
    monkeypatch.setattr(fast_resnet, "fold_batch_norm", broken)
    encoder = load_encoder(model_folder("resnet"), device="cpu", precision="fp32")
    assert encoder.provenance["image_tower"] == "fast"
    with caplog.at_level(logging.WARNING):
        found = encoder.encode_images(pictures(3), names(3))
    assert message in caplog.text
    assert encoder.provenance["image_tower"] == "exact"
    expected = tiny_encoder("resnet").encode_images(pictures(3), names(3))
    assert torch.equal(found.coarse, expected.coarse)
    assert torch.equal(found.fine, expected.fine)
    assert torch.equal(found.coarse_clip, expected.coarse_clip)


def test_a_broken_tower_in_half_precision_falls_back_to_fp32(model_folder, tiny_encoder, monkeypatch, caplog):
    monkeypatch.setattr(fast_resnet, "fold_batch_norm", without_shift)
    encoder = load_encoder(model_folder("resnet"), device="cpu", precision="bf16")
    with caplog.at_level(logging.WARNING):
        found = encoder.encode_images(pictures(2), names(2))
    assert (encoder.precision, encoder.image_precision) == ("bf16", "fp32")
    assert encoder.provenance["image_precision"] == "fp32"
    assert torch.equal(found.coarse, tiny_encoder("resnet").encode_images(pictures(2), names(2)).coarse)


# The encoder


@pytest.mark.parametrize("kind", ["resnet", "vit", "timm"])
def test_fast_is_the_default_and_near_the_exact_way(model_folder, tiny_encoder, caplog, kind):
    with caplog.at_level(logging.WARNING):
        encoder = load_encoder(model_folder(kind), device="cpu", precision="fp32")
        found = encoder.encode_images(pictures(5), names(5))
    assert not [record for record in caplog.records if record.name == gate.__name__]
    expected = tiny_encoder(kind).encode_images(pictures(5), names(5))
    assert encoder.provenance["image_tower"] == "fast"
    assert tiny_encoder(kind).provenance["image_tower"] == "exact"
    assert (encoder.space_key, encoder.recipe_key) == (tiny_encoder(kind).space_key, tiny_encoder(kind).recipe_key)
    torch.testing.assert_close(found.coarse, expected.coarse, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.fine, expected.fine, atol=1e-5, rtol=0)
    assert (found.coarse_clip is None) == (expected.coarse_clip is None)


def test_the_fast_tower_is_made_once_and_by_pictures_alone(model_folder, monkeypatch):
    made = []
    real = gate.rewritten
    monkeypatch.setattr(gate, "rewritten", lambda *given: made.append(given) or real(*given))
    encoder = load_encoder(model_folder("resnet"), device="cpu", batch_size=2)
    encoder.encode_sentences(["a dog", "a cat"], names(2))
    assert not made
    encoder.prepare_images()
    assert len(made) == 1
    encoder.encode_images(pictures(5), names(5))
    assert len(made) == 1
    exact = load_encoder(model_folder("resnet"), device="cpu", fast=False)
    exact.encode_images(pictures(1), names(1))
    assert len(made) == 1


def test_bf16_for_pictures_alone_where_the_cpu_has_it(model_folder, tiny_encoder, monkeypatch):
    monkeypatch.setattr(devices, "has_fast_bf16", lambda _device: True)
    encoder = load_encoder(model_folder("resnet"), device="cpu")
    assert (encoder.precision, encoder.image_precision) == ("fp32", "bf16")
    found, expected = (e.encode_images(pictures(2), names(2)) for e in (encoder, tiny_encoder("resnet")))
    assert encoder.provenance["image_precision"] == "bf16"
    assert 0 < float((found.fine - expected.fine).abs().max()) < 0.05
    assert ((found.fine * expected.fine).sum(-1) >= LEAST_COSINE).all()
    sentences, same = (e.encode_sentences(["a dog"], ["a"]) for e in (encoder, tiny_encoder("resnet")))
    assert torch.equal(sentences.coarse, same.coarse)


@pytest.mark.parametrize("is_fast", [True, False])
@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_the_same_pictures_give_the_same_bits(model_folder, kind, is_fast):
    """Slices of a collection encoded again, by another encoder, the last and partial one too."""
    first, second = (load_encoder(model_folder(kind), device="cpu", batch_size=4, fast=is_fast) for _ in range(2))
    images = pictures(7)
    whole = first.encode_images(images, names(7))
    again = second.encode_images(images, names(7))
    last = second.encode_images(images[4:], names(7)[4:])
    assert torch.equal(whole.coarse, again.coarse)
    assert torch.equal(whole.fine, again.fine)
    assert torch.equal(whole.coarse[4:], last.coarse)
    assert torch.equal(whole[4:].fine, last.fine)
    # Who else is in the batch makes no difference.
    others = second.encode_images([images[0], *pictures(3, seed=9)], names(4))
    assert torch.equal(whole.coarse[0], others.coarse[0])
    assert torch.equal(whole[:1].fine, others[:1].fine)


def test_batches_come_in_few_shapes(model_folder):
    encoder = load_encoder(model_folder("vit"), device="cpu", batch_size=6, fast=False)
    seen = []
    encoder.model.visual.conv1.register_forward_pre_hook(lambda _module, given: seen.append(len(given[0])))
    for count in (1, 2, 3, 4, 5, 6, 7, 11):
        assert encoder.encode_images(pictures(count), names(count)).coarse.shape == (count, 24)
    assert seen == [1, 2, 4, 4, 6, 6, 6, 1, 6, 6]
