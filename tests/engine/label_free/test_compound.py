"""Compound prompts against texts that are written out by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import normalize

from tai_engine.errors import UserError
from tai_engine.label_free import compound
from tai_engine.label_free.compound import with_compound_prompts
from tai_engine.prompts.prompt_set import PromptSet, zero_shot_prompts
from tai_engine.vocabulary import Vocabulary

AXES = {"dog": 0, "cat": 1, "cow": 2, "a": 3}


def encode(texts):
    """Each word adds its axis: what a text names can be read off its vector."""
    rows = torch.zeros(len(texts), 4)
    for n, text in enumerate(texts):
        for word in text.rstrip(".").split():
            if word != "and":
                rows[n, AXES[word]] += 1
    return normalize(rows, dim=1)


ENCODER = SimpleNamespace(space_key="space", logit_scale=100.0, encode_class_texts=encode)
VOCABULARY = Vocabulary.from_names(["dog", "cat", "cow"], "animals")


def test_half_of_a_vector_is_the_mean_over_all_pairs():
    prompts = with_compound_prompts(zero_shot_prompts(ENCODER, VOCABULARY, ["a {}."]), ENCODER, VOCABULARY, "a {}.")
    alone = torch.tensor([1.0, 0, 0, 1]) / 2**0.5
    pairs = torch.tensor([[1.0, 1, 0, 2], [1, 0, 1, 2]]) / 6**0.5  # "a dog and a cat" without its "and"
    expected = normalize(alone + normalize(pairs.mean(0), dim=0), dim=0)
    torch.testing.assert_close(prompts.global_vectors[0], expected)
    assert torch.equal(prompts.local_vectors, prompts.global_vectors)
    assert prompts.method == "zero-shot"
    assert prompts.metadata["compound"] == '{"partners": 2}'


def test_partners_are_bounded_distinct_and_never_the_class_itself(monkeypatch):
    names = [f"n{number}" for number in range(11)]
    asked = []

    def note(texts):
        asked.append(list(texts))
        return torch.eye(3)[:1].expand(len(texts), 3)

    monkeypatch.setattr(compound, "PARTNERS", 4)
    encoder = SimpleNamespace(space_key="space", logit_scale=1.0, encode_class_texts=note)
    words = Vocabulary.from_names(names, "numbers")
    with_compound_prompts(zero_shot_prompts(encoder, words, ["{}"]), encoder, words, "{}")
    pairs = [text.split(" and a ") for texts in asked for text in texts if " and a " in text]
    assert len(pairs) == 44
    assert len({tuple(pair) for pair in pairs}) == 44
    assert all(first != second for first, second in pairs)


def test_one_class_has_no_company():
    one = Vocabulary.from_names(["dog"], "one")
    with pytest.raises(UserError, match="name two classes together, but the vocabulary has one: leave --compound out"):
        with_compound_prompts(PromptSet(("dog",), *[torch.eye(4)[:1]] * 2, "space", 1.0), ENCODER, one)
