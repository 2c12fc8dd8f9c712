"""The files of the model of photographs fit each other and keep their promises."""

import gzip
import json
import tomllib
from importlib.resources import files

import pytest
from PIL import Image

from tai_engine.encoders import load_encoder
from tai_engine.prompts.prompt_set import zero_shot_prompts
from tai_engine.store import FeatureStore
from tai_engine.vocabulary import load_vocabulary

FOLDER = files("tai_engine") / "demo" / "photo_clip"


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(f"local-dir:{FOLDER}", device="cpu", precision="fp32", fast=False)


def test_the_model_has_a_map_and_the_scale_of_its_constants(encoder):
    constants = tomllib.loads((FOLDER / "constants.toml").read_text())
    assert (encoder.dim, encoder.rows_per_image, encoder.image_size) == (256, 100, constants["image_size"])
    assert encoder.logit_scale == pytest.approx(constants["image_temperature"], rel=1e-4)
    assert (FOLDER / "open_clip_model.safetensors").stat().st_size < 40e6


@pytest.mark.parametrize(("name", "word"), [("pizza.jpg", "pizza"), ("plane.jpg", "airplane"), ("dog.jpg", "dog")])
def test_it_knows_photographs_that_ship(encoder, name, word):
    vocabulary = load_vocabulary("coco80")
    prompts = zero_shot_prompts(encoder, vocabulary)
    with Image.open(FOLDER / "photographs" / name) as picture:
        batch = encoder.encode_images([picture.convert("RGB")], ["a"])
    best = int((batch.coarse @ prompts.global_vectors.T).argmax())
    assert vocabulary.names[best] == word


def test_the_ready_store_is_of_this_model_and_has_a_label_line_for_every_picture(encoder):
    store = FeatureStore.open(str(FOLDER / "coco_photographs.zarr"))
    lines = [json.loads(line) for line in (FOLDER / "coco_photographs.jsonl").read_text().splitlines()]
    known = set(load_vocabulary("coco80").names)
    assert len(store) == len(lines) == 152
    assert store.spec.space_key == encoder.space_key
    assert all(set(line["labels"]) <= known for line in lines)


def test_no_caption_is_of_a_photograph_of_the_ready_store():
    with gzip.open(FOLDER / "coco_captions.jsonl.gz", "rt", encoding="utf-8") as file:
        captions = [json.loads(line) for line in file]
    labelled = (FOLDER / "coco_photographs.jsonl").read_text().splitlines()
    measured = {int(json.loads(line)["file_name"].removesuffix(".jpg")) for line in labelled}
    assert len(captions) == 20_213
    assert measured.isdisjoint(caption["image_id"] for caption in captions)
    assert all(caption["caption"].strip() for caption in captions)


def test_the_photographs_are_small():
    photographs = [path for path in (FOLDER / "photographs").iterdir() if path.name.endswith(".jpg")]
    assert len(photographs) == 25
    assert sum(path.stat().st_size for path in photographs) < 1.5e6
