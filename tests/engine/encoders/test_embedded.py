"""The model that comes with the engine, by its names."""

import pytest

from tai_engine.cli.options import EncoderChoice
from tai_engine.encoders import cached_weights, load_encoder
from tai_engine.encoders.embedded import EMBEDDED_MODELS, constants_of, embedded_folder, embedded_name
from tai_engine.errors import UserError
from tai_engine.store import FeatureStore
from tai_engine.tuning import TuningConfig


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("demo", "openai", device="cpu", precision="fp32", fast=False)


def test_names():
    assert [embedded_name(name) for name in ("photos", "demo", "RN50", "Photos")] == ["photos", "photos", None, None]
    assert embedded_folder("RN50") is None
    assert constants_of("RN50") is None
    assert cached_weights("demo", None) == embedded_folder("photos") / "open_clip_model.safetensors"


@pytest.mark.parametrize("name", EMBEDDED_MODELS)
def test_constants_are_those_of_the_published_recipe_or_known_settings_of_tuning(name):
    constants = constants_of(name)
    config = TuningConfig(**constants.tuning)
    assert config.class_specific
    assert config.image_temperature == constants.image_temperature
    assert len(constants.initial_words.split()) <= config.n_contexts


def test_features_say_the_name_and_not_where_the_package_lies(encoder):
    constants = constants_of("photos")
    assert (encoder.provenance["model"], encoder.provenance["pretrained"]) == ("photos", "")
    assert encoder.image_size == constants.image_size
    assert encoder.logit_scale == pytest.approx(constants.image_temperature, rel=1e-4)


def test_the_ready_store_opens_its_encoder_by_that_name(encoder):
    store = FeatureStore.open(embedded_folder("photos") / "coco_photographs.zarr")
    found = EncoderChoice(None, "", "cpu", "fp32").open(store)
    assert store.spec.provenance["model"] == "photos"
    assert found.space_key == encoder.space_key == store.spec.space_key
    assert found.recipe["image_size"] == store.spec.recipe["image_size"] == 320


def test_a_name_that_is_nearly_right_is_told():
    with pytest.raises(UserError, match=r"Unknown model 'photo'; did you mean .*'photos'"):
        load_encoder("photo", None, device="cpu")
