"""Which encoder goes with a store."""

from types import SimpleNamespace

import huggingface_hub
import pytest

from tai_engine.cli.options import EncoderChoice
from tai_engine.encoders import load_encoder
from tai_engine.errors import UserError


def store(space_key="somewhere", **provenance):
    return SimpleNamespace(path="s.zarr", spec=SimpleNamespace(provenance=provenance, space_key=space_key))


def choice(model=None, pretrained=""):
    return EncoderChoice(model, pretrained, "cpu", "fp32")


def test_a_store_fetches_nothing_from_the_repository_that_it_names(monkeypatch):
    def asked(*_arguments, **_options):
        pytest.fail("the network was asked")

    for name in ("get_hf_file_metadata", "hf_hub_download"):
        monkeypatch.setattr(huggingface_hub, name, asked)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_arguments, **_options: None)
    for name in ("hf-hub:org/repo", "hf-hub:../../etc"):
        with pytest.raises(UserError, match=rf"'{name}' made it, which is not on this machine; if you trust"):
            choice().open(store(model=name))


def test_the_model_of_a_store_must_give_its_space(tiny_model):
    space = load_encoder(tiny_model, None, device="cpu").space_key
    assert choice().open(store(space, model=tiny_model)).space_key == space
    assert choice(tiny_model).open(store("another", model="whatever")).space_key == space
    with pytest.raises(UserError, match=r"is of the embedding space 'another', but .* now gives"):
        choice().open(store("another", model=tiny_model))


def test_options_and_stores_that_name_no_model():
    with pytest.raises(UserError, match="--pretrained names the weights of --model: add that one"):
        choice(pretrained="openai").open(store(model="RN50"))
    with pytest.raises(UserError, match="does not say which model made it"):
        choice().open(store())
    with pytest.raises(UserError, match="Unknown model"):
        choice().open(store(model=["RN50"]))
