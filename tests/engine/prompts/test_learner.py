"""The learned contexts: how they start, what they become, and the published code's training steps."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from golden_set import TOLERANCE, golden_set, golden_state_dict
from tai_engine.errors import UserError
from tai_engine.features import offsets_from_counts
from tai_engine.prompts.learner import DualPromptLearner, LearnerStart, PromptLearner
from tai_engine.prompts.losses import ranking_loss
from tai_engine.prompts.tokens import PromptTokens, tokenize_prompts, word_ids
from tai_engine.prompts.tower import PromptTower
from tai_kernels.scoring import ops, reference
from tiny_models import build_tiny_model, tiny_config

NAMES = ["dog", "potted plant", "zebra"]


@cache
def tiny() -> tuple[Any, PromptTokens]:
    return build_tiny_model(tiny_config("vit")), tokenize_prompts(open_clip.SimpleTokenizer(), NAMES)


def tower(**options: Any) -> PromptTower:
    model, tokens = tiny()
    return PromptTower(model, tokens, **{"n_contexts": 6} | options)


def test_contexts_are_drawn_from_the_seed():
    first, again, other = (PromptLearner(tower(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.global_contexts, again.global_contexts)
    assert torch.equal(first.local_contexts, again.local_contexts)
    assert not torch.equal(first.global_contexts, other.global_contexts)
    assert not torch.equal(first.global_contexts, first.local_contexts)
    generator = torch.Generator().manual_seed(1)
    assert torch.equal(first.global_contexts.detach(), torch.randn(6, 32, generator=generator) * 0.02)


def test_contexts_have_the_published_deviation():
    learner = PromptLearner(tower(class_specific=True, n_contexts=16))
    assert learner.global_contexts.shape == (3, 16, 32)
    for contexts in (learner.global_contexts, learner.local_contexts):  # 1,536 numbers: 2 % is one standard error
        assert float(contexts.detach().std()) == pytest.approx(0.02, rel=0.08)
        assert abs(float(contexts.detach().mean())) < 0.002


def test_class_vectors_are_the_towers_normalised_outputs():
    learner = PromptLearner(tower())
    vectors = learner.class_vectors()
    for found, contexts in zip(vectors, (learner.global_contexts, learner.local_contexts), strict=True):
        torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
        torch.testing.assert_close(found, normalize(learner.tower(contexts), dim=1))
    assert not torch.allclose(vectors.global_vectors, vectors.local_vectors)
    called = learner()
    assert torch.equal(called.global_vectors, vectors.global_vectors)


def test_each_set_learns_from_its_own_vectors_and_nothing_else_learns():
    learner = PromptLearner(tower())
    assert [name for name, _ in learner.named_parameters()] == ["global_contexts", "local_contexts"]
    assert set(learner.state_dict()) == {"global_contexts", "local_contexts"}
    learner.class_vectors().global_vectors[0, 0].backward()
    assert learner.global_contexts.grad is not None
    assert learner.global_contexts.grad.abs().max() > 0
    assert learner.local_contexts.grad is None


@pytest.mark.parametrize(("position", "start"), [("end", 4), ("front", 0), ("middle", 2)])
@pytest.mark.parametrize("class_specific", [False, True])
def test_words_take_the_contexts_nearest_the_name(position: str, start: int, class_specific: bool):
    prompts = tower(position=position, class_specific=class_specific)
    words = prompts.embed_words(word_ids(open_clip.SimpleTokenizer(), tiny()[1], "a photo"))
    learner = PromptLearner(prompts, words=words)
    random = PromptLearner(prompts)
    for name in ("global_contexts", "local_contexts"):
        contexts, drawn = getattr(learner, name).detach(), getattr(random, name).detach()
        for own in contexts if class_specific else contexts[None]:
            assert torch.equal(own[start : start + 2], words)
        others = [i for i in range(6) if not start <= i < start + 2]
        assert torch.equal(contexts[..., others, :], drawn[..., others, :])


def test_initial_words_give_the_prompt_that_they_spell():
    model, _ = tiny()
    tokenizer = open_clip.SimpleTokenizer()
    prompts = tower(n_contexts=4)
    words = prompts.embed_words(word_ids(tokenizer, tiny()[1], "a photo of a"))
    found = PromptLearner(prompts, words=words).class_vectors()
    with torch.no_grad():
        expected = model.encode_text(tokenizer([f"a photo of a {name}." for name in NAMES]), normalize=True)
    torch.testing.assert_close(found.global_vectors, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.local_vectors, expected, atol=1e-5, rtol=1e-5)


def test_more_words_than_contexts_are_refused():
    prompts = tower(n_contexts=2)
    words = prompts.embed_words(word_ids(open_clip.SimpleTokenizer(), tiny()[1], "a photo of a"))
    with pytest.raises(UserError, match="take 4 tokens but there are only 2 contexts"):
        PromptLearner(prompts, words=words)


def test_contexts_go_from_one_learner_to_another():
    first, second = PromptLearner(tower(), seed=1), PromptLearner(tower(), seed=2)
    saved = first.contexts()
    second.load_contexts(saved)
    assert torch.equal(second.global_contexts, first.global_contexts)
    assert torch.equal(second.local_contexts, first.local_contexts)
    with torch.no_grad():
        first.global_contexts.zero_()
    assert saved["global_contexts"].abs().max() > 0  # a copy
    each = PromptLearner(tower(class_specific=True))
    each.load_contexts(saved)
    assert torch.equal(each.local_contexts.detach(), saved["local_contexts"].expand(3, 6, 32))


def test_a_start_gives_learners_that_differ_by_the_seed_alone():
    words = torch.ones(2, 32)
    drawn, plain = LearnerStart(tower(), words).learner(3), PromptLearner(tower(), seed=3, words=words)
    assert all(torch.equal(drawn.contexts()[name], contexts) for name, contexts in plain.contexts().items())
    saved = PromptLearner(tower(), seed=1).contexts()
    for seed in (1, 2):
        given = LearnerStart(tower(), contexts=saved).learner(seed)
        assert all(torch.equal(given.contexts()[name], contexts) for name, contexts in saved.items())
    assert isinstance(LearnerStart(tower(), is_dual=True).learner(1), DualPromptLearner)
    with pytest.raises(UserError, match="CUDA graphs need a CUDA GPU"):
        LearnerStart(tower(), cuda_graphs=True).learner(1)


def test_contexts_that_do_not_fit_are_refused_and_nothing_changes():
    learner = PromptLearner(tower())
    before = learner.contexts()
    saved = learner.contexts()
    with pytest.raises(UserError, match="hold no local_contexts"):
        learner.load_contexts({"global_contexts": saved["global_contexts"] + 1})
    with pytest.raises(UserError, match=r"\(5, 32\) but \(6, 32\)"):
        learner.load_contexts({"global_contexts": saved["global_contexts"] + 1, "local_contexts": torch.zeros(5, 32)})
    with pytest.raises(UserError, match=r"\(3, 6, 32\) but \(6, 32\)"):  # class-specific ones cannot be shared
        learner.load_contexts(PromptLearner(tower(class_specific=True)).contexts())
    for name, contexts in learner.contexts().items():
        assert torch.equal(contexts, before[name])


# The published code's numbers


@cache
def golden_text_model() -> Any:
    """Only the text tower matters here, so the picture tower is as small as can be."""
    state, settings = golden_state_dict()
    width = state["ln_final.weight"].shape[0]
    model = open_clip.CLIP(
        embed_dim=state["text_projection"].shape[1],
        quick_gelu=settings["quick_gelu"] == "true",
        vision_cfg={"layers": 1, "width": 64, "patch_size": 32, "image_size": 32},
        text_cfg={
            "context_length": state["positional_embedding"].shape[0],
            "vocab_size": state["token_embedding.weight"].shape[0],
            "width": width,
            "heads": max(1, width // 64),
            "layers": len({key.split(".")[2] for key in state if key.startswith("transformer.resblocks.")}),
        },
    )
    left_out = model.load_state_dict({k: v for k, v in state.items() if not k.startswith("visual.")}, strict=False)
    assert all(key.startswith("visual.") for key in left_out.missing_keys)
    assert not left_out.unexpected_keys
    return model.eval()


def golden_learner(dtype: torch.dtype = torch.float32) -> PromptLearner:
    golden = golden_set()
    rows, ends = golden["prompt_tokens"], golden["prompt_tokens"].argmax(dim=1).tolist()
    tokens = PromptTokens(
        start=(int(rows[0, 0]),),
        names=tuple(tuple(row[1 + golden.n_ctx : end - 1].tolist()) for row, end in zip(rows, ends, strict=True)),
        ends=tuple(tuple(row[end - 1 : end + 1].tolist()) for row, end in zip(rows, ends, strict=True)),
        placeholder=int(rows[0, 1]),
        padding=int(rows[0, -1]),
        context_length=rows.shape[1],
        labels=tuple(f"class {c}" for c in range(len(rows))),
    )
    model = copy.deepcopy(golden_text_model()).to(dtype)
    prompts = PromptTower(model, tokens, n_contexts=golden.n_ctx, class_specific=golden.class_specific_contexts)
    learner = PromptLearner(prompts)
    learner.load_contexts({"global_contexts": golden["ctx_global"], "local_contexts": golden["ctx_local"]})
    return learner


def golden_loss(learner: PromptLearner) -> Tensor:
    """Ranking of coarse plus ranking of fine scores on all golden sentences, their features packed."""
    golden = golden_set()
    counts = golden["sentence_tokens"].argmax(dim=1) + 1
    rows = torch.cat([f[:n] for f, n in zip(golden["sentence_token_features"], counts.tolist(), strict=True)])
    vectors = learner.class_vectors()
    in_fp64 = vectors.global_vectors.dtype == torch.float64
    scores = (reference if in_fp64 else ops).score(
        normalize(golden["sentence_global"].to(vectors.global_vectors), dim=1),
        normalize(rows.to(vectors.global_vectors), dim=1),
        offsets_from_counts(counts),
        *vectors,
        pooling="softmax",
        temperature=golden.tau_text,
        scale=golden.k,
    )
    return ranking_loss(scores.coarse, golden["labels"]) + ranking_loss(scores.fine, golden["labels"])


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["global", "local"])
def test_golden_gradients(kind: str):
    golden, learner = golden_set(), golden_learner()
    golden_loss(learner).backward()
    gradient, expected = getattr(learner, f"{kind}_contexts").grad, golden[f"grad_ctx_{kind}"]
    assert relative_error(gradient, expected) <= 1e-4
    assert (gradient - expected).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max()))


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["global", "local"])
def test_golden_gradients_without_our_rounding(kind: str):
    """In fp32 two right computations may differ by more than the tolerance where the gradient is large: here only the
    published code's own rounding is left, which is less, unless the gradient is far larger than 20."""
    golden, learner = golden_set(), golden_learner(torch.float64).double()
    golden_loss(learner).backward()
    expected = golden[f"grad_ctx_{kind}"].double()
    difference = getattr(learner, f"{kind}_contexts").grad - expected
    assert difference.abs().max() <= max(TOLERANCE, 5e-6 * float(expected.abs().max()))


@pytest.mark.golden
def test_golden_training_steps():
    golden, learner = golden_set(), golden_learner()
    optimiser = torch.optim.SGD(learner.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    history = []
    for _ in golden["ranking_loss_history"]:
        optimiser.zero_grad()
        loss = golden_loss(learner)
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    torch.testing.assert_close(
        torch.tensor(history, dtype=torch.float64), golden["ranking_loss_history"], rtol=1e-3, atol=0
    )
    for kind in ("global", "local"):
        moved = golden[f"ctx_{kind}_after5"] - golden[f"ctx_{kind}"]
        found = getattr(learner, f"{kind}_contexts").detach()
        assert relative_error(found, golden[f"ctx_{kind}_after5"]) <= 1e-3
        assert relative_error(found - golden[f"ctx_{kind}"], moved) <= 1e-2  # not hidden by what stayed as it was
