from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch, offsets_from_counts
from tai_engine.prompts.prompt_set import PromptSet, ScoringConstants
from tai_engine.tagging.scoring import ScoringConfig, default_scoring, score


def prompt_set(method: str = "tuned", space_key: str = "s") -> PromptSet:
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    return PromptSet(("east", "north"), rows, rows, space_key, 100.0, method)


def batch(counts: tuple[int, ...] = (2, 1), clip: bool = False) -> FeatureBatch:
    fine = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    return FeatureBatch(
        ids=("a", "b"),
        coarse=torch.tensor([[1.0, 0.0], [0.6, 0.8]]),
        fine=fine[: sum(counts)],
        offsets=offsets_from_counts(torch.tensor(counts)),
        space_key="s",
        coarse_clip=torch.tensor([[0.0, 1.0], [0.8, 0.6]]) if clip else None,
    )


def test_by_hand():
    """Item a has the cosines (1, 0.6) with east, so max is 1 and softmax with tau ln 2 / 0.4 weighs them 2 : 1."""
    tau = float(torch.log(torch.tensor(2.0)) / 0.4)
    config = ScoringConfig(which="fine", temperature=tau, scale=3.0)
    scores = score(batch(), prompt_set(), config).scores
    assert scores[0, 0] == pytest.approx(3 * (2 / 3 * 1 + 1 / 3 * 0.6), rel=1e-6)
    weight = 2 ** (0.8 / 0.4)
    assert scores[0, 1] == pytest.approx(3 * 0.8 * weight / (weight + 1), rel=1e-6)
    assert scores[1].tolist() == pytest.approx([0, 3])
    best = score(batch(), prompt_set(), ScoringConfig(which="fine", pooling="max", scale=3.0)).scores
    assert best.flatten().tolist() == pytest.approx([3, 2.4, 0, 3])


def test_merged_is_the_mix_of_both_and_coarse_ignores_fine_rows():
    parts = {
        w: score(batch(), prompt_set(), ScoringConfig(which=w, mix=0.25)).scores for w in ("coarse", "fine", "merged")
    }
    assert torch.allclose(parts["coarse"], torch.tensor([[4.0, 0.0], [2.4, 3.2]]))
    assert torch.allclose(parts["merged"], 0.25 * parts["coarse"] + 0.75 * parts["fine"], atol=1e-6)


def test_hand_written_prompts_take_clips_own_vector_and_scale():
    config = default_scoring(prompt_set("zero-shot"), "coarse")
    assert (config.scale, config.temperature, config.clip_coarse) == (100.0, 100.0, True)
    assert torch.allclose(score(batch(clip=True), prompt_set(), config).scores, torch.tensor([[0.0, 100], [80, 60]]))
    assert torch.allclose(score(batch(), prompt_set(), config).scores, torch.tensor([[100.0, 0], [60, 80]]))
    assert default_scoring(prompt_set("tuned")) == ScoringConfig(temperature=40.0, scale=4.0, clip_coarse=False)
    own = replace(prompt_set("tuned"), constants=ScoringConstants(scale=2.0, image_temperature=12.5))
    assert default_scoring(own, "fine") == ScoringConfig(which="fine", temperature=12.5, scale=2.0, clip_coarse=False)


def test_an_item_without_fine_rows_is_scored_by_coarse_alone():
    scores = score(batch((2, 0)), prompt_set(), ScoringConfig()).scores
    assert torch.allclose(scores[1], torch.tensor([2.4, 3.2]))


def test_centring_makes_every_items_mean_zero():
    scores = score(batch(), prompt_set(), ScoringConfig(which="coarse", centre=True)).scores
    assert torch.allclose(scores, torch.tensor([[2.0, -2.0], [-0.4, 0.4]]))


def test_other_spaces_and_coarse_only_features_are_refused():
    with pytest.raises(UserError, match=r"'s'.*'other'"):
        score(batch(), prompt_set(space_key="other"))
    with pytest.raises(UserError, match=r"coarse only.*--score coarse"):
        score(batch((0, 0)), prompt_set(), ScoringConfig(which="merged"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("which", "median", "Choose one of 'coarse', 'fine', 'merged'"),
        ("pooling", "mean", "Unknown pooling"),
        ("temperature", 0.0, "above 0"),
        ("temperature", float("nan"), "above 0"),
        ("mix", 1.5, "between 0 and 1"),
    ],
)
def test_settings_are_checked(field: str, value: object, message: str):
    with pytest.raises(UserError, match=message):
        ScoringConfig(**{field: value})


def test_half_precision_rows_are_scored_in_fp32():
    generator = torch.Generator().manual_seed(3)
    rows = normalize(torch.randn(50, 2, generator=generator), dim=1)
    one = FeatureBatch(("x",), rows[:1], rows, torch.tensor([0, 50]), "s")
    full = score(one, prompt_set()).scores
    half = score(one.to(dtype=torch.float16), prompt_set()).scores
    assert half.dtype == torch.float32
    assert torch.allclose(full, half, atol=5e-3)
