"""Features against those of the published code."""

import open_clip
import pytest
import torch
import torch.nn.functional as F

from golden_set import TOLERANCE, golden_set, write_golden_model
from tai_engine.encoders import load_encoder
from tai_engine.features import FeatureBatch

pytestmark = pytest.mark.golden
GOLDEN = golden_set()
DECODE = open_clip.SimpleTokenizer().decode


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_encoder(
        write_golden_model(tmp_path_factory.mktemp("golden")), device="cpu", precision="fp32", fast=False
    )


@pytest.fixture(scope="module")
def images(encoder) -> FeatureBatch:
    pixels = GOLDEN["images"]
    return encoder.encode_normalised(pixels, [str(i) for i in range(len(pixels))])


@pytest.fixture(scope="module")
def sentences(encoder) -> FeatureBatch:
    tokens = GOLDEN["sentence_tokens"]
    return encoder.encode_tokens(tokens, [str(i) for i in range(len(tokens))])


def test_the_encoder_takes_its_sizes_from_the_model(encoder):
    assert encoder.image_size == GOLDEN.image_size
    assert encoder.dim == GOLDEN["image_global_clip"].shape[1]
    assert encoder.rows_per_image == GOLDEN["image_patches"].shape[1]
    assert encoder.has_coarse_clip


def test_image_vectors_before_normalisation(encoder):
    encoder.prepare_images()
    vectors = encoder._images.vectors(GOLDEN["images"])
    assert_close(vectors.coarse, GOLDEN["image_global_no_pos"])
    assert_close(vectors.coarse_clip, GOLDEN["image_global_clip"])
    assert_close(vectors.fine, GOLDEN["image_patches"])


def test_image_features(images):
    assert_close(images.coarse, F.normalize(GOLDEN["image_global_no_pos"], dim=-1))
    assert_close(images.coarse_clip, F.normalize(GOLDEN["image_global_clip"], dim=-1))
    assert_close(images.fine.view(len(images), -1, images.dim), F.normalize(GOLDEN["image_patches"], dim=-1))


def test_sentence_vectors_before_normalisation(encoder):
    tokens = GOLDEN["sentence_tokens"]
    lengths = tokens.argmax(dim=1) + 1
    with torch.no_grad():
        coarse, fine = encoder._sentences.tower.compute(tokens, lengths, True)
    assert_close(coarse, GOLDEN["sentence_global"])
    assert_close(fine, torch.cat([GOLDEN["sentence_token_features"][n, :length] for n, length in enumerate(lengths)]))


def test_sentence_features(sentences):
    lengths = GOLDEN["sentence_tokens"].argmax(dim=1) + 1
    expected = [GOLDEN["sentence_token_features"][n, :length] for n, length in enumerate(lengths)]
    assert sentences.counts.tolist() == lengths.tolist()
    assert_close(sentences.coarse, F.normalize(GOLDEN["sentence_global"], dim=-1))
    assert_close(sentences.fine, F.normalize(torch.cat(expected), dim=-1))


def test_zero_shot_tokens_are_those_of_the_tokenizer(encoder):
    """The published "a photo of a name." ids, found again from their own decoded text."""
    texts = [DECODE([i for i in row.tolist() if 0 < i < 49406]) for row in GOLDEN["zs_tokens"]]
    assert all(text.startswith("a photo of a ") for text in texts)
    assert encoder.tokenize(texts).tolist() == GOLDEN["zs_tokens"].tolist()


def test_a_class_text_has_the_coarse_vector_of_the_sentence(encoder):
    tokens = GOLDEN["zs_tokens"]
    texts = [DECODE([i for i in row.tolist() if 0 < i < 49406]) for row in tokens]
    assert_close(encoder.encode_class_texts(texts), encoder.encode_tokens(tokens, [str(i) for i in texts]).coarse)
    with torch.no_grad():
        reference = encoder.model.encode_text(tokens, normalize=True)
    assert_close(encoder.encode_class_texts(texts), reference)
