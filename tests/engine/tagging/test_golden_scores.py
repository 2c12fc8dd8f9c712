"""Scores of the published code, from its own features and class vectors, through the engine's door."""

import re

import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from golden_set import TOLERANCE, golden_set
from tai_engine.encoders import load_encoder
from tai_engine.features import FeatureBatch, offsets_from_counts
from tai_engine.prompts.prompt_set import PromptSet, zero_shot_prompts
from tai_engine.tagging.scoring import ScoringConfig, score
from tai_engine.vocabulary import Vocabulary

pytestmark = pytest.mark.golden


def prompt_set() -> PromptSet:
    golden = golden_set()
    global_vectors, local_vectors = (normalize(golden[f"class_{kind}"], dim=1) for kind in ("global", "local"))
    names = tuple(f"class {c}" for c in range(len(global_vectors)))
    return PromptSet(names, global_vectors, local_vectors, "golden", 100.0, "tuned")


def image_batch() -> FeatureBatch:
    golden = golden_set()
    patches = golden["image_patches"]
    return FeatureBatch(
        ids=tuple(map(str, range(len(patches)))),
        coarse=normalize(golden["image_global_no_pos"], dim=1),
        fine=normalize(patches.flatten(0, 1), dim=1),
        offsets=offsets_from_counts(torch.full((len(patches),), patches.shape[1])),
        space_key="golden",
        coarse_clip=normalize(golden["image_global_clip"], dim=1),
    )


def sentence_batch() -> FeatureBatch:
    """Only the tokens up to the end of each sentence: the padding that the published code masks is not there."""
    golden = golden_set()
    counts = golden["sentence_tokens"].argmax(dim=1) + 1  # the end token has the highest id
    rows = torch.cat([f[:n] for f, n in zip(golden["sentence_token_features"], counts.tolist(), strict=True)])
    return FeatureBatch(
        ids=tuple(map(str, range(len(counts)))),
        coarse=normalize(golden["sentence_global"], dim=1),
        fine=normalize(rows, dim=1),
        offsets=offsets_from_counts(counts),
        space_key="golden",
    )


@pytest.mark.parametrize("kind", ["image", "sentence"])
def test_coarse_fine_and_merged_scores(kind: str):
    golden = golden_set()
    batch = image_batch() if kind == "image" else sentence_batch()
    temperature = golden.tau_image if kind == "image" else golden.tau_text
    settings = {"scale": golden.k, "temperature": temperature}
    coarse = score(batch, prompt_set(), ScoringConfig(which="coarse", **settings)).scores
    fine = score(batch, prompt_set(), ScoringConfig(which="fine", **settings)).scores
    merged = score(batch, prompt_set(), ScoringConfig(which="merged", **settings)).scores
    assert torch.allclose(coarse, golden[f"{kind}_logits_global"], rtol=0, atol=TOLERANCE)
    assert torch.allclose(fine, golden[f"{kind}_logits_local"], rtol=0, atol=TOLERANCE)
    expected = (golden[f"{kind}_logits_global"] + golden[f"{kind}_logits_local"]) / 2
    assert torch.allclose(merged, expected, rtol=0, atol=TOLERANCE)


def test_from_pixels_to_scores(golden_model: str):
    golden = golden_set()
    encoder = load_encoder(golden_model, "", device="cpu", precision="fp32", image_size=golden.image_size, fast=False)
    batch = encoder.encode_normalised(golden["images"], [str(n) for n in range(len(golden["images"]))])
    prompts = prompt_set()
    same_space = PromptSet(
        prompts.class_names, prompts.global_vectors, prompts.local_vectors, encoder.space_key, 100.0, "tuned"
    )
    settings = {"scale": golden.k, "temperature": golden.tau_image}
    for which, key in (("coarse", "image_logits_global"), ("fine", "image_logits_local")):
        scores = score(batch, same_space, ScoringConfig(which=which, **settings)).scores
        assert torch.allclose(scores, golden[key], rtol=0, atol=TOLERANCE)


def test_zero_shot_tokens_are_those_of_the_template(golden_model: str):
    golden = golden_set()
    encoder = load_encoder(golden_model, "", device="cpu", precision="fp32", image_size=golden.image_size, fast=False)
    tokenizer = open_clip.get_tokenizer("RN50")
    texts = [tokenizer.decode(tokens[: tokens.argmax()].tolist()) for tokens in golden["zs_tokens"]]
    names = [re.fullmatch(r"(?:<start_of_text>)?a photo of a (.+?) ?\. ?", text)[1] for text in texts]
    assert torch.equal(encoder.tokenize([f"a photo of a {name}." for name in names]), golden["zs_tokens"])
    prompts = zero_shot_prompts(encoder, Vocabulary.from_names(names))
    batch = encoder.encode_tokens(golden["zs_tokens"], names)
    assert torch.allclose(prompts.global_vectors, batch.coarse, rtol=0, atol=1e-6)
    # Plain zero-shot CLIP on the same images: its own image vector, its own logit scale.
    images = encoder.encode_normalised(golden["images"], [str(n) for n in range(len(golden["images"]))])
    scores = score(images, prompts, ScoringConfig(which="coarse", scale=encoder.logit_scale, clip_coarse=True)).scores
    by_hand = encoder.logit_scale * normalize(golden["image_global_clip"], dim=1) @ prompts.global_vectors.T
    assert torch.allclose(scores, by_hand, rtol=0, atol=TOLERANCE * encoder.logit_scale)
