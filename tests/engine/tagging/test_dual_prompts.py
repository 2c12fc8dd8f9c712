"""Dual prompts as every other prompt set: saved, loaded, scored and tagged; logits are the published code's."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from feature_samples import random_batch
from golden_set import TOLERANCE, golden_dual_vectors, golden_set
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.prompts.prompt_set import PromptSet, ScoringConstants
from tai_engine.tagging import scoring
from tai_engine.tagging.scoring import ScoringConfig, score, score_tags
from tai_engine.tagging.tag_job import vectors_digest

SCALE, SHARPNESS = 20.0, 30.0


def dual_prompts(classes=3, dim=8, seed=3, space="space:1"):
    generator = torch.Generator().manual_seed(seed)
    positive, negative = (normalize(torch.randn(classes, dim, generator=generator), dim=1) for _ in range(2))
    names = tuple(f"class {c}" for c in range(classes))
    constants = ScoringConstants(SCALE, SHARPNESS)
    return PromptSet(names, positive, positive, space, 100.0, "tuned", constants=constants, negative_vectors=negative)


def by_hand(batch, prompts):
    """One picture and class after the other, in fp64."""
    positive, negative = prompts.global_vectors.double(), prompts.negative_vectors.double()
    coarse = SCALE * batch.coarse.double() @ (positive - negative).T
    fine = torch.zeros_like(coarse)
    for n in range(len(batch)):
        rows = batch.fine[batch.offsets[n] : batch.offsets[n + 1]].double()
        weights = (SHARPNESS * rows @ positive.T).softmax(dim=0)
        fine[n] = SCALE * (weights * (rows @ (positive - negative).T)).sum(0) if len(rows) else coarse[n]
    return coarse, fine


def test_scores_by_hand_whatever_the_slices(monkeypatch):
    batch = random_batch(["a", "b", "c", "d"], [3, 1, 0, 5], dtype=torch.float32)
    prompts = dual_prompts()
    coarse, fine = by_hand(batch, prompts)
    for bytes_at_a_time in (1, 1 << 20):
        monkeypatch.setattr(scoring, "SLICE_BYTES", bytes_at_a_time)
        for which, expected in (("coarse", coarse), ("fine", fine), ("merged", (coarse + fine) / 2)):
            config = replace(scoring.default_scoring(prompts), which=which)
            assert (config.scale, config.temperature) == (SCALE, SHARPNESS)
            torch.testing.assert_close(score(batch, prompts, config).scores.double(), expected, atol=1e-4, rtol=0)


def test_tags_are_the_best_scores():
    batch = random_batch(["a", "b"], [3, 4], dtype=torch.float32)
    prompts = dual_prompts()
    kept = score_tags(batch, prompts, top_k=1)
    scores = score(batch, prompts).scores
    assert kept.class_indices.tolist() == scores.argmax(dim=1).tolist()
    torch.testing.assert_close(kept.scores, scores.amax(dim=1))
    assert len(score(batch[:0], prompts).scores) == 0


def test_saved_and_loaded(tmp_path):
    prompts = dual_prompts()
    contexts = {"positive_contexts": torch.ones(3, 2, 4), "negative_contexts": torch.zeros(3, 2, 4)}
    replace(prompts, contexts=contexts).save(tmp_path / "p.safetensors")
    found = PromptSet.load(tmp_path / "p.safetensors")
    assert torch.equal(found.negative_vectors, prompts.negative_vectors)
    assert found.constants == prompts.constants
    assert set(found.contexts) == set(contexts)
    # Prompts that differ in what is absent are others to tags and calibrations.
    other = replace(prompts, negative_vectors=prompts.negative_vectors.flip(0))
    assert vectors_digest(found) == vectors_digest(prompts) != vectors_digest(other)


def test_what_does_not_fit_is_refused():
    prompts = dual_prompts()
    with pytest.raises(ValueError, match=r"negative_vectors are torch.float32 .2, 8., expected float32 .3, D."):
        replace(prompts, negative_vectors=prompts.negative_vectors[:2])
    with pytest.raises(ValueError, match="without the constants"):
        replace(prompts, constants=None)
    with pytest.raises(ValueError, match=r"expected \('positive_contexts', 'negative_contexts'\) or none"):
        replace(prompts, contexts={"global_contexts": torch.ones(1, 4), "local_contexts": torch.ones(1, 4)})
    with pytest.raises(UserError, match="leave --pooling max out"):
        score(random_batch(["a"], [2]), prompts, ScoringConfig(pooling="max"))


@pytest.mark.golden
def test_golden_logits(golden_model):
    golden = golden_set()
    positive, negative = golden_dual_vectors(golden_model)
    patches = golden["image_patches"]
    batch = FeatureBatch(
        ids=tuple(str(n) for n in range(len(patches))),
        coarse=normalize(golden["image_global_no_pos"], dim=1),
        fine=normalize(patches.flatten(0, 1), dim=1),
        offsets=torch.arange(len(patches) + 1) * patches.shape[1],
        space_key="golden",
    )
    constants = ScoringConstants(float(golden["dual_temperature"].exp()), float(golden["dual_spatial_T"].exp()))
    names = tuple(f"class {c}" for c in range(len(positive)))
    rows = positive.detach(), positive.detach()
    prompts = PromptSet(names, *rows, "golden", 100.0, "tuned", constants=constants, negative_vectors=negative.detach())
    for which in ("global", "local"):
        config = replace(scoring.default_scoring(prompts), which="coarse" if which == "global" else "fine")
        assert (score(batch, prompts, config).scores - golden[f"dual_logits_{which}"]).abs().max() <= TOLERANCE
