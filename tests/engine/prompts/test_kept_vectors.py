"""Class vectors that were kept are those that would be made, and nobody else's."""

import json
import threading
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save
from torch.nn.functional import normalize

from tai_engine.disk_cache import DiskCache
from tai_engine.prompts import kept_vectors
from tai_engine.prompts.kept_vectors import TextOrigin, default_cache, files_of, kept_zero_shot
from tai_engine.prompts.prompt_set import zero_shot_prompts
from tai_engine.vocabulary import Vocabulary, VocabularyClass

ORIGIN = TextOrigin("letters:1", (("model.safetensors", 10, 20, 30),), "cpu", "auto")
WORDS = Vocabulary.from_names(["cat", "banana_split"], "two")
TEMPLATES = ["a {}.", "the {}!"]


class CountingEncoder:
    """Every text becomes the unit vector of (its length, its number of a's, 1)."""

    logit_scale = 99.99999

    def __init__(self, space_key="letters:1"):
        self.space_key = space_key
        self.opened = 0

    def open(self):
        self.opened += 1
        return self

    def unread_words(self, names):
        return tuple(name for name in names if "split" in name)

    def encode_class_texts(self, texts):
        return normalize(torch.tensor([[len(t), t.count("a"), 1.0] for t in texts]), dim=1)


@pytest.fixture
def cache(tmp_path):
    return DiskCache(tmp_path / "vectors", 1_000_000)


def ask(cache, encoder, origin=ORIGIN, words=WORDS, templates=TEMPLATES):
    found = kept_zero_shot(cache, origin, encoder.open, words, templates)
    assert found.unread == tuple(name for name in words.prompt_names if "split" in name)
    return found.prompts


def test_the_second_time_the_encoder_stays_closed(cache):
    encoder = CountingEncoder()
    made, kept = ask(cache, encoder), ask(cache, encoder)
    assert encoder.opened == 1
    expected = zero_shot_prompts(encoder, WORDS, TEMPLATES)
    for prompts in (made, kept):
        assert torch.equal(prompts.global_vectors, expected.global_vectors)
        assert torch.equal(prompts.local_vectors, expected.local_vectors)
        assert prompts.class_names == ("cat", "banana_split")
        assert (prompts.logit_scale, prompts.space_key, prompts.method) == (99.99999, "letters:1", "zero-shot")
        assert prompts.metadata == expected.metadata


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": replace(ORIGIN, space_key="letters:2")},
        {"origin": replace(ORIGIN, files=(("model.safetensors", 10, 21, 30),))},
        {"origin": replace(ORIGIN, files=())},
        {"origin": replace(ORIGIN, device="cuda")},
        {"origin": replace(ORIGIN, precision="bf16")},
        {"words": Vocabulary.from_names(["banana_split", "cat"])},
        {"words": Vocabulary.from_names(["cat"])},
        {"templates": TEMPLATES[::-1]},
        {"templates": TEMPLATES[:1]},
    ],
)
def test_whatever_decides_the_vectors_is_looked_at(cache, changes):
    encoder = CountingEncoder()
    ask(cache, encoder)
    ask(cache, encoder, **changes)
    assert encoder.opened == 2


def test_words_that_prompts_do_not_have_are_those_of_the_moment(cache):
    encoder = CountingEncoder()
    ask(cache, encoder)
    other = Vocabulary("renamed", (VocabularyClass("cat", ("kitten",)), VocabularyClass("banana split")))
    found = ask(cache, encoder, words=other)
    assert encoder.opened == 1  # the same prompts
    assert found.class_names == ("cat", "banana split")
    assert found.metadata["vocabulary"] == "renamed"
    assert found.metadata["vocabulary_fingerprint"] == other.fingerprint


def damaged_entries(good):
    tensors = load(good)
    yield good[:-1]
    yield b""
    yield b"\xff" * 100
    yield save({**tensors, "vectors": tensors["vectors"] * 2})
    yield save({**tensors, "vectors": tensors["vectors"][:1].contiguous()})
    yield save({**tensors, "vectors": tensors["vectors"].half()})
    yield save({**tensors, "vectors": torch.full_like(tensors["vectors"], float("nan"))})
    yield save({**tensors, "logit_scale": torch.tensor([-1.0])})
    yield save({**tensors, "logit_scale": torch.tensor([1.0, 2.0])})
    yield save({**tensors, "key": torch.zeros(32, dtype=torch.uint8)})
    yield save({**tensors, "unread": tensors["unread"][:1].contiguous()})
    yield save({name: tensor for name, tensor in tensors.items() if name != "vectors"})


def test_what_does_not_read_as_these_vectors_is_made_anew(cache, monkeypatch):
    entries = {}
    monkeypatch.setattr(cache, "put", entries.__setitem__)
    monkeypatch.setattr(cache, "get", entries.get)
    encoder = CountingEncoder()
    expected = ask(cache, encoder)
    ((key, good),) = entries.items()
    cases = list(damaged_entries(good))
    for number, bad in enumerate(cases, 1):
        entries[key] = bad
        assert torch.equal(ask(cache, encoder).global_vectors, expected.global_vectors)
        assert encoder.opened == 1 + number
        assert entries[key] == good


def test_an_encoder_of_another_space_leaves_nothing(cache):
    other = CountingEncoder("letters:other")
    ask(cache, other)
    ask(cache, other)
    assert other.opened == 2


def test_two_writers_at_once(cache):
    encoders = [CountingEncoder() for _ in range(8)]
    threads = [threading.Thread(target=ask, args=(cache, encoder)) for encoder in encoders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    late = CountingEncoder()
    assert torch.equal(ask(cache, late).global_vectors, zero_shot_prompts(late, WORDS, TEMPLATES).global_vectors)
    assert late.opened == 0


def test_an_entry_that_would_push_out_the_others_is_not_kept(cache, monkeypatch):
    monkeypatch.setattr(kept_vectors, "MOST_BYTES", 4 * 2 * 3 * 4)
    encoder = CountingEncoder()
    ask(cache, encoder)
    ask(cache, encoder)
    assert encoder.opened == 2


def test_the_switch_and_the_place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TAI_KEEP_VECTORS", "0")
    assert default_cache() is None
    encoder = CountingEncoder()
    ask(None, encoder)
    ask(None, encoder)
    assert encoder.opened == 2
    monkeypatch.delenv("TAI_KEEP_VECTORS")
    ask(default_cache(), encoder)
    assert encoder.opened == 3
    ask(default_cache(), encoder)
    assert encoder.opened == 3


def test_files_of_a_folder_change_with_each_of_them(tmp_path):
    weights = tmp_path / "w.bin"
    weights.write_bytes(b"1234")
    (tmp_path / "sub").mkdir()
    before = files_of(tmp_path)
    assert [entry[:2] for entry in before] == [("w.bin", 4)]
    other = tmp_path / "other"
    other.write_bytes(b"1235")
    other.replace(weights)
    assert files_of(tmp_path) != before  # another file, even if its size and time were the same
    assert files_of(tmp_path / "missing") == ()
    assert json.loads(json.dumps(before))
