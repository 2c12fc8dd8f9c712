"""The model that ships with the package, as plain open_clip loads it."""

import json

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP

from tai_engine.demo import MODEL_FOLDER
from tai_engine.demo.scenes import SceneGenerator
from tai_engine.demo.sprites import embedded_sprite_sheet
from tai_engine.evaluation.measures import mean_average_precision
from tai_engine.vocabulary import load_vocabulary


@pytest.fixture(scope="module")
def model() -> CLIP:
    return open_clip.create_model(f"local-dir:{MODEL_FOLDER}", precision="fp32").eval()


def test_folder_is_small_and_has_a_card() -> None:
    sizes = {path.name: path.stat().st_size for path in MODEL_FOLDER.iterdir()}

    assert set(sizes) == {"README.md", "open_clip_config.json", "open_clip_model.safetensors"}
    assert sum(sizes.values()) <= 20_000_000


def test_card_says_what_it_knows_and_from_whom() -> None:
    card = (MODEL_FOLDER / "README.md").read_text(encoding="utf-8")

    for told in ("emoji", "CC BY 4.0", "Apache-2.0", "python -m tai_benchmarks.demo_clip.evaluate", "Fluent"):
        assert told in card
    assert not any(word in card for word in ("TRAINING_FACTS", "RESULTS", "CLOSE_TO", "MINUTES"))


def test_config_is_a_standard_clip() -> None:
    config = json.loads((MODEL_FOLDER / "open_clip_config.json").read_text())

    assert config["model_cfg"]["text_cfg"]["context_length"] == 77
    assert config["model_cfg"]["text_cfg"]["vocab_size"] == 49408
    assert config["preprocess_cfg"]["mean"] == [0.48145466, 0.4578275, 0.40821073]


def test_used_tokens_have_rows_and_unknown_ones_are_zero(model: CLIP) -> None:
    tokens = open_clip.get_tokenizer(f"local-dir:{MODEL_FOLDER}")(["a photo of a dog.", "\u6f22"])
    table = model.token_embedding.weight

    assert table.shape[0] == 49408
    assert 800 < table.any(dim=1).sum() < 2000
    assert table[tokens[0, :8]].any(dim=1).all()
    assert not table[tokens[1, 1]].any()


def test_all_weights_are_finite_and_the_scale_is_sensible(model: CLIP) -> None:
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert 8 <= model.logit_scale.exp().item() <= 41


def test_it_tags_unseen_drawings(model: CLIP) -> None:
    # 150 scenes leave an uncertainty of some points; the accuracy that the card claims is measured on 2,000
    _, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{MODEL_FOLDER}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{MODEL_FOLDER}")
    names = load_vocabulary("coco80").names
    scenes = list(SceneGenerator([embedded_sprite_sheet()], seed=20_000).scenes(150))
    truth_NC = np.array([[name in scene.class_names for name in names] for scene in scenes])
    with torch.inference_mode():
        image_ND = model.encode_image(torch.stack([preprocess(scene.image) for scene in scenes]), normalize=True)
        text_CD = model.encode_text(tokenizer([f"a photo of a {name}." for name in names]), normalize=True)

    assert 100 * mean_average_precision((image_ND @ text_CD.T).numpy(), truth_NC).mean >= 50
