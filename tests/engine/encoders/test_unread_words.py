"""Words that a text tower has never read are told by token embeddings of zero."""

import pytest
import torch

from tai_engine.encoders import load_encoder


@pytest.fixture(scope="module")
def photos():
    return load_encoder("photos", "", device="cpu", precision="fp32", fast=False)


def test_the_embedded_model_tells_what_none_of_its_texts_held(photos):
    names = ["dog", "astronaut", "hatsune_miku", "traffic light", "ramen noodles", "croissant", "bow (decorative)"]
    assert photos.unread_words(names) == ("astronaut", "hatsune_miku", "ramen noodles")
    assert photos.unread_words([]) == ()
    assert photos.unread_words([">_<", "0"]) == ("0",)  # a name without a word is not judged


def test_a_tower_that_was_trained_with_all_its_rows_is_never_doubted(tiny_encoder):
    encoder = tiny_encoder("vit")
    assert encoder.unread_words(["astronaut", "hatsune miku"]) == ()
    table = encoder.model.token_embedding.weight
    row = int(encoder.tokenize(["astronaut"])[0, 1])
    with torch.no_grad():
        kept = table[row].clone()
        table[row] = 0
        try:
            assert encoder.unread_words(["dog", "an astronaut, or two", "astronauts"]) == ("an astronaut, or two",)
        finally:
            table[row] = kept
