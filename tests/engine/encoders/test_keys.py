import copy
import hashlib
import json
import pickle
import struct
from dataclasses import fields
from pathlib import Path

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from tai_engine.encoders import keys, load_encoder
from tiny_models import build_tiny_model, tiny_config, write_model


def load(name, **options):
    return load_encoder(name, device="cpu", **options)


def folder_of(name):
    return Path(name.removeprefix("local-dir:"))


def copied(name, target, change_weights=None, change_config=None):
    """The model in another folder with its weights or configuration changed."""
    target.mkdir()
    state = load_file(folder_of(name) / "open_clip_model.safetensors")
    config = json.loads((folder_of(name) / "open_clip_config.json").read_text())
    save_file(change_weights(state) if change_weights else state, target / "open_clip_model.safetensors")
    if change_config:
        change_config(config)
    (target / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{target}"


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_one_space_for_all_sizes_and_recipes(tiny_encoder, kind):
    plain = tiny_encoder(kind)
    for options in ({"image_size": 96}, {"dense": "none"}, {"precision": "bf16"}):
        other = tiny_encoder(kind, **options)
        assert other.space_key == plain.space_key
        assert (other.recipe_key == plain.recipe_key) == ("precision" in options)
        assert other.sentence_recipe_key == plain.sentence_recipe_key


@pytest.mark.parametrize("kind", ["resnet", "vit", "timm"])
def test_weights_rounded_to_half_precision_are_the_same_space(model_folder, tmp_path, kind):
    def halved(state):
        return {key: t.half() if t.is_floating_point() else t for key, t in state.items()}

    name = model_folder(kind)
    assert load(copied(name, tmp_path / "half", halved)).space_key == load(name).space_key


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_configuration_with_another_size_is_the_same_space(model_folder, tmp_path, kind):
    def larger(config):
        config["model_cfg"]["vision_cfg"]["image_size"] = 96

    plain = load(model_folder(kind))
    other = load(copied(model_folder(kind), tmp_path / "larger", change_config=larger))
    asked = load(model_folder(kind), image_size=96)
    assert other.image_size == 96
    assert other.space_key == plain.space_key
    assert other.recipe_key == asked.recipe_key != plain.recipe_key
    pixels = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    first, second = (e.encode_pixels(pixels, ["a", "b"]) for e in (other, asked))
    assert torch.equal(first.coarse, second.coarse)
    assert torch.equal(first.fine, second.fine)


def test_other_weights_are_another_space(model_folder, tmp_path):
    def one_number(state):
        state["visual.proj"][0, 0] += 0.01
        return state

    keys_seen = {load(model_folder("vit")).space_key, load(model_folder("vit", seed=1)).space_key}
    keys_seen.add(load(copied(model_folder("vit"), tmp_path / "changed", one_number)).space_key)
    assert len(keys_seen) == 3


@pytest.mark.parametrize(
    "option",
    [{"quick_gelu": True}, {"text_cfg": {"heads": 4}}, {"text_cfg": {"tokenizer_kwargs": {"clean": "canonicalize"}}}],
)
def test_another_architecture_or_tokenizer_is_another_space(model_folder, tmp_path, option):
    def change(config):
        for key, value in option.items():
            if isinstance(value, dict):
                config["model_cfg"][key].update(value)
            else:
                config["model_cfg"][key] = value

    name = model_folder("vit")
    assert load(copied(name, tmp_path / "x", change_config=change)).space_key != load(name).space_key


def test_a_configuration_that_spells_its_defaults_is_the_same_architecture():
    config = tiny_config("vit")
    spelled = copy.deepcopy(config) | {"quick_gelu": False}
    for part, kind in (("vision_cfg", open_clip.CLIPVisionCfg), ("text_cfg", open_clip.CLIPTextCfg)):
        spelled[part] = {f.name: f.default for f in fields(kind)} | spelled[part]
    assert keys.architecture(spelled) == keys.architecture(config)


@pytest.mark.parametrize(
    ("kind", "start"),
    [("resnet", "rn14-d24-quickgelu:"), ("vit", "vit3-p16-d24:"), ("timm", "resnet10t-d24:")],
)
def test_keys_can_be_read(tiny_encoder, kind, start):
    encoder = tiny_encoder(kind)
    assert encoder.space_key.startswith(start)
    dense = {"resnet": "taidpt", "vit": "sclip", "timm": "head"}[kind]
    assert encoder.recipe_key.startswith(f"img64-{dense}:")
    assert encoder.sentence_recipe_key.startswith("text77-causal:")


def test_everything_that_changes_pixels_or_vectors_changes_the_recipe(tmp_path):
    config = tiny_config("resnet")
    model = build_tiny_model(config)
    names = [
        write_model(tmp_path / str(i), config, model, **options)
        for i, options in enumerate(
            ({}, {"interpolation": "bilinear"}, {"resize_mode": "squash"}, {"mean": [0.5] * 3}, {"std": [0.5] * 3})
        )
    ]
    encoders = [load(name) for name in names]
    options = ({"image_size": 96}, {"dense": "none"}, {"coarse": "clip"}, {"decoding": {"exif": False}})
    encoders += [load(names[0], **option) for option in options]
    assert len({e.recipe_key for e in encoders}) == len(encoders)
    assert len({e.space_key for e in encoders}) == 1
    assert load(names[0]).recipe_key == encoders[0].recipe_key
    assert encoders[0].recipe["coarse"] == "no-position"
    json.dumps([e.recipe for e in encoders])


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4))
def test_a_recipe_key_depends_on_content_not_on_order(extra):
    recipe = {"image_size": 224, "dense": "taidpt", "extra": extra}
    reordered = {"extra": dict(reversed(extra.items())), "dense": "taidpt", "image_size": 224}
    assert keys.recipe_key(recipe) == keys.recipe_key(reordered)
    assert keys.recipe_key(recipe) != keys.recipe_key(recipe | {"extra": extra | {"more": 1}})


def test_known_keys_stay_what_they_are():
    """Stores in the world carry these: a change of the rules for keys must be meant."""
    module = torch.nn.Linear(2, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, -0.5]]))
        module.bias.fill_(0.1)
    digest = keys.weights_digest(module)
    by_hand = hashlib.sha256(b"bias(1,)" + struct.pack("<e", 0.1) + b"weight(1, 2)" + struct.pack("<2e", 1.0, -0.5))
    assert digest == by_hand.hexdigest()
    assert keys.space_key(tiny_config("resnet"), digest) == "rn14-d24-quickgelu:2e6e9ceaaf4ca2ec"
    assert keys.recipe_key({"image_size": 64, "dense": "taidpt"}) == "img64-taidpt:7a7b4bb3db4f"


def test_counters_do_not_take_part():
    module = torch.nn.BatchNorm2d(3)
    before = keys.weights_digest(module)
    module.num_batches_tracked += 5
    assert keys.weights_digest(module) == before
    module.running_var += 1
    assert keys.weights_digest(module) != before


def test_provenance_says_what_was_used(tiny_encoder):
    encoder = tiny_encoder("resnet", precision="bf16")
    assert encoder.provenance["precision"] == "bf16"
    assert encoder.provenance["device"] == "cpu"
    assert encoder.provenance["torch"] == torch.__version__
    assert encoder.provenance["weights_file"] == "open_clip_model.safetensors"
    assert len(encoder.provenance["weights_fp16_sha256"]) == 64
    assert encoder.provenance["model"].startswith("local-dir:")
    # open_clip begins with the scale 1 / 0.07
    assert tiny_encoder("resnet").logit_scale == pytest.approx(1 / 0.07, rel=1e-6)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_preprocessing_is_open_clips_and_can_be_pickled(mode):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from tai_engine.encoders.preprocessing import Preprocess

    options = {"resize_mode": mode, "mean": 0.4, "std": (0.2, 0.3, 0.4), "interpolation": "bilinear", "fill_color": 7}
    preprocess = pickle.loads(pickle.dumps(Preprocess(options, 48)))
    reference = image_transform_v2(PreprocessCfg(size=48, **options), is_train=False)
    image = Image.effect_mandelbrot((101, 67), (-2, -1, 1, 1), 60).convert("RGB")
    pixels = preprocess(image)
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (3, 48, 48)
    torch.testing.assert_close(preprocess.normalise(pixels[None])[0], reference(image), atol=1e-6, rtol=0)
