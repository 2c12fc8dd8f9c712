import os
from collections.abc import Iterator

import pytest
import torch

from sentence_stores import NAMES, example_sentences, write_store
from tai_engine.encoders import Encoder, load_encoder
from tai_engine.store import FeatureStore
from tai_engine.vocabulary import Vocabulary
from tiny_models import write_tiny_model


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here outlives a power cut."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads wait for each other longer than these tiny problems take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return load_encoder(write_tiny_model(tmp_path_factory.mktemp("tuning") / "model", "vit"), None, device="cpu")


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary.from_names(NAMES, "animals and things")


@pytest.fixture(scope="session")
def sentence_store(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder, vocabulary: Vocabulary) -> FeatureStore:
    """90 sentences in six groups, two of them failed; not to be changed."""
    path = tmp_path_factory.mktemp("tuning") / "sentences.zarr"
    return write_store(path, encoder, vocabulary, example_sentences(90), failed=(3, 40))
