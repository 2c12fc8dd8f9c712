"""Words that a text tower has hardly read are told by the list beside its weights."""

import pytest
import torch

from tai_engine.encoders import load_encoder
from tai_engine.encoders.embedded import embedded_folder
from tai_engine.encoders.known_words import KNOWN_WORDS, names_with_others, read_known_words, words_of_name
from tai_engine.errors import UserError
from tai_engine.vocabulary import load_vocabulary


@pytest.fixture(scope="module")
def photos():
    return load_encoder("photos", "", device="cpu", precision="fp32", fast=False)


def test_the_embedded_model_tells_what_it_hardly_read(photos):
    names = ["dog", "astronaut", "hatsune_miku", "traffic light", "ramen noodles", "croissant", "bow (decorative)"]
    assert photos.unread_words(names) == ("astronaut", "hatsune_miku", "ramen noodles")
    # Their byte pairs occur in other words, but they were in no name and in captions of three photographs at most.
    assert photos.unread_words(["temple", "chef", "a Laundry", "moon", "axolotl"]) == (
        "temple", "chef", "a Laundry", "moon",
    )  # fmt: skip
    assert photos.unread_words([]) == ()
    assert photos.unread_words([">_<", "0"]) == ("0",)  # a name without a word is not judged


@pytest.mark.parametrize("name", ["coco80", "voc20", "lvis1203"])
def test_the_embedded_model_knows_the_words_of_published_vocabularies(photos, name):
    assert photos.unread_words(load_vocabulary(name).prompt_names) == ()


def test_its_card_names_the_everyday_words_that_it_does_not_know(photos):
    unread = photos.unread_words(load_vocabulary("everyday").prompt_names)
    card = (embedded_folder("photos") / "README.md").read_text(encoding="utf-8")
    assert f"({', '.join(unread)})" in " ".join(card.split())


def test_every_known_word_is_made_of_trained_byte_pairs(photos):
    words = sorted(read_known_words(embedded_folder("photos")))
    is_trained_V = (photos.model.token_embedding.weight != 0).any(dim=1)
    tokens_NL = photos.tokenize(words)
    inner = ~torch.isin(tokens_NL, photos.tokenize([""]))
    assert len(words) == 5864
    assert bool(is_trained_V[tokens_NL[inner]].all())


def test_a_model_without_a_list_is_never_doubted(tiny_encoder, tmp_path):
    assert tiny_encoder("vit").unread_words(["astronaut", "hatsune miku"]) == ()
    assert read_known_words(None) is None
    assert read_known_words(tmp_path) is None


def test_words_of_names():
    assert words_of_name("Bow_(decorative ribbons)") == ["bow", "decorative", "ribbons"]
    assert words_of_name("T-shirt, No. 5") == ["t", "shirt", "no", "5"]
    assert names_with_others(["Old Dog", "dogs", "...", "dog"], {"dog", "old"}) == ("dogs",)


def test_a_list_that_cannot_be_read_is_said(tmp_path):
    path = tmp_path / KNOWN_WORDS
    path.write_bytes("dog\ncafé\n".encode())
    assert read_known_words(tmp_path) == {"dog", "café"}
    path.write_bytes(b"dog\n\xff\n")
    with pytest.raises(UserError, match=r"known_words.txt' is not UTF-8: mend or remove it\."):
        read_known_words(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"cannot be read \(it is a folder\): mend or remove it\."):
        read_known_words(tmp_path)
