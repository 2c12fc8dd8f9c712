"""CUDA graphs of the text tower: refused where they cannot be, and equal to the plain way on a GPU."""

from functools import cache

import open_clip
import pytest
import torch

from tai_engine.errors import UserError
from tai_engine.prompts.learner import GLOBAL, LOCAL, PromptLearner
from tai_engine.prompts.tokens import tokenize_prompts
from tai_engine.prompts.tower import PromptTower
from tiny_models import build_tiny_model, tiny_config


@cache
def parts():
    names = ["dog", "potted plant", "zebra", "wine glass"]
    return build_tiny_model(tiny_config("vit")), tokenize_prompts(open_clip.SimpleTokenizer(), names)


def tower(device="cpu", **options):
    model, tokens = parts()
    return PromptTower(model.to(device), tokens, n_contexts=6, **options)


def test_a_cpu_has_none():
    with pytest.raises(UserError, match="need a CUDA GPU, but the text tower is on cpu; leave --cuda-graphs out"):
        PromptLearner(tower()).record_graphs()


def test_prompts_in_several_pieces_are_refused(monkeypatch):
    in_pieces = tower(memory_bytes=1)
    assert in_pieces.n_chunks == 4
    learner = PromptLearner(in_pieces)
    monkeypatch.setattr(in_pieces, "device", torch.device("cuda"))
    with pytest.raises(UserError, match="all 4 prompts in one piece, but they come in 4"):
        learner.record_graphs()


def test_each_set_of_contexts_has_a_recording_of_its_own(monkeypatch):
    learner = PromptLearner(tower())
    expected = learner.class_vectors()
    examples = []

    def make(function, arguments):
        examples.append(arguments[0])
        out = torch.empty(4, function(arguments[0]).shape[1])
        return lambda contexts: out.copy_(function(contexts).detach())  # like a replay, it writes where it wrote before

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make)
    monkeypatch.setattr(learner.tower, "device", torch.device("cuda"))
    learner.record_graphs()
    found = learner.class_vectors()
    assert [e.requires_grad and e.is_leaf for e in examples] == [True, True]
    for ours, plain in zip(found, expected, strict=True):
        assert torch.equal(ours, plain)
    assert not torch.equal(found.global_vectors, found.local_vectors)


@pytest.mark.gpu
def test_replays_give_the_same_vectors_and_gradients():
    plain, recorded = PromptLearner(tower("cuda")), PromptLearner(tower("cuda"))
    recorded.record_graphs()
    for _ in range(3):
        for learner in (plain, recorded):
            learner.zero_grad()
            vectors = learner.class_vectors()
            (
                vectors.global_vectors.sum() + vectors.local_vectors.square().sum() + vectors.local_vectors[0, 0]
            ).backward()
        for name in (GLOBAL, LOCAL):
            ours, theirs = getattr(recorded, name), getattr(plain, name)
            assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-7)
            with torch.no_grad():
                ours += 0.1 * ours.grad
                theirs += 0.1 * theirs.grad
