from __future__ import annotations

import math

import open_clip
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from golden_set import TOLERANCE, golden_dual_vectors, golden_set
from tai_engine.features import offsets_from_counts
from tai_engine.prompts.dual_scores import DualScores, dual_scores
from tai_engine.prompts.learner import DualPromptLearner
from tai_engine.prompts.tokens import tokenize_prompts
from tai_engine.prompts.tower import PromptTower
from tiny_models import build_tiny_model, tiny_config


def unit(*shape: int, seed: int = 0) -> Tensor:
    return normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def test_scores_by_hand():
    # Two rows with cosines (1, 0) to the positive and (0, 1) to the negative prompt; sharpness ln 3 weighs them 3 : 1.
    rows = torch.eye(2)
    scores = dual_scores(
        torch.tensor([[0.6, 0.8]]),
        rows,
        torch.tensor([0, 2]),
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([[0.0, 1.0]]),
        temperature=math.log(2.0),
        spatial_temperature=math.log(math.log(3.0)),
    )
    assert scores.coarse.item() == pytest.approx(2 * (0.6 - 0.8))
    assert scores.fine.item() == pytest.approx(2 * (0.75 * 1 - 0.25 * 1))


def plain_dual_scores(coarse: Tensor, bags: list[Tensor], positive: Tensor, negative: Tensor, t: float, s: float):
    fine = []
    for bag in bags:
        similarities = bag @ positive.T
        weights = (math.exp(s) * similarities).softmax(dim=0)
        both = [(weights * (bag @ prompts.T)).sum(dim=0) for prompts in (positive, negative)]
        fine.append(math.exp(t) * both[0] - math.exp(t) * both[1])
    return DualScores(math.exp(t) * (coarse @ positive.T - coarse @ negative.T), torch.stack(fine))


@pytest.mark.parametrize("counts", [[4], [1, 3, 7], [5, 5]])
def test_packed_bags_equal_one_bag_at_a_time(counts: list[int]):
    coarse, bags = unit(len(counts), 8), [unit(n, 8, seed=n + i) for i, n in enumerate(counts)]
    positive, negative = unit(3, 8, seed=50), unit(3, 8, seed=51)
    offsets = offsets_from_counts(torch.tensor(counts))
    # exp(7) ~ 1097: exponents far beyond what fp32 could take without the shift.
    for spatial in (-1.0, 3.0, 7.0):
        found = dual_scores(coarse, torch.cat(bags), offsets, positive, negative, 3.0, spatial)
        expected = plain_dual_scores(coarse, bags, positive, negative, 3.0, spatial)
        torch.testing.assert_close(found.coarse, expected.coarse)
        torch.testing.assert_close(found.fine, expected.fine)


def test_items_without_rows_and_without_items():
    positive, negative = unit(3, 8, seed=1), unit(3, 8, seed=2)
    rows = unit(2, 8)
    scores = dual_scores(unit(3, 8), rows, torch.tensor([0, 0, 2, 2]), positive, negative, 3.0, 3.0)
    assert scores.fine[[0, 2]].abs().max() == 0
    assert scores.fine[1].abs().min() > 0
    nothing = dual_scores(unit(0, 8), unit(0, 8), torch.tensor([0]), positive, negative, 3.0, 3.0)
    assert nothing.coarse.shape == nothing.fine.shape == (0, 3)


def test_gradients_are_those_of_differences():
    rows, coarse = unit(5, 4), unit(2, 4, seed=1)
    offsets = torch.tensor([0, 2, 5])
    inputs = [unit(3, 4, seed=2), unit(3, 4, seed=3), torch.tensor(1.0).double(), torch.tensor(0.5).double()]
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: tuple(dual_scores(coarse, rows, offsets, *x)), inputs)


def test_learner_starts_as_published_and_everything_learns():
    model = build_tiny_model(tiny_config("vit"))
    tower = PromptTower(
        model, tokenize_prompts(open_clip.SimpleTokenizer(), ["dog", "cat"]), n_contexts=4, class_specific=True
    )
    learner = DualPromptLearner(tower)
    assert {name: tuple(p.shape) for name, p in learner.named_parameters()} == {
        "positive_contexts": (2, 4, 32),
        "negative_contexts": (2, 4, 32),
        "temperature": (),
        "spatial_temperature": (),
    }
    assert learner.temperature.item() == learner.spatial_temperature.item() == 3.0
    assert not torch.equal(learner.positive_contexts, learner.negative_contexts)
    vectors = learner.class_vectors()
    torch.testing.assert_close(vectors.global_vectors, normalize(tower(learner.positive_contexts), dim=1))
    assert vectors.local_vectors is vectors.global_vectors
    coarse, rows, offsets = unit(2, 24).float(), unit(6, 24, seed=1).float(), torch.tensor([0, 3, 6])
    scores = dual_scores(coarse, rows, offsets, vectors.global_vectors, *vectors[2:])
    (scores.coarse.square().sum() + scores.fine.square().sum()).backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in learner.parameters())


@pytest.mark.golden
def test_golden_dual_logits(golden_model: str):
    golden = golden_set()
    positive, negative = golden_dual_vectors(golden_model)
    patches = golden["image_patches"]
    scores = dual_scores(
        normalize(golden["image_global_no_pos"], dim=1),
        normalize(patches.flatten(0, 1), dim=1),
        torch.arange(len(patches) + 1) * patches.shape[1],
        positive,
        negative,
        golden["dual_temperature"],
        golden["dual_spatial_T"],
    )
    assert (scores.coarse - golden["dual_logits_global"]).abs().max() <= TOLERANCE
    assert (scores.fine - golden["dual_logits_local"]).abs().max() <= TOLERANCE
