import itertools
from dataclasses import replace
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch, offsets_from_counts
from tai_engine.prompts.prompt_set import PromptSet, ScoringConstants
from tai_engine.tagging import scoring
from tai_engine.tagging.scoring import ScoringConfig, default_scoring, in_effect, score, score_tags
from tai_engine.tagging.tag_job import tag_batch
from tai_engine.tagging.tag_selection import Selection
from tai_kernels.scoring import library, ops, selection


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


def many_classes(classes: int, method: str = "tuned", metadata: dict[str, str] | None = None) -> PromptSet:
    angles = torch.arange(classes) * 0.1
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    return PromptSet(tuple(map(str, range(classes))), rows, rows, "s", 100.0, method, metadata or {})


def test_scores_are_normalised_over_the_classes_of_each_item():
    prompts = many_classes(20)
    raw = score(batch(), prompts, ScoringConfig(which="coarse")).scores
    centred = score(batch(), prompts, ScoringConfig(which="coarse", normalise="centre")).scores
    assert torch.allclose(centred, raw - raw.mean(dim=1, keepdim=True))
    softmax = score(batch(), prompts, ScoringConfig(which="coarse", scale=2.0, normalise="softmax")).scores
    assert torch.allclose(softmax, (5 * raw).softmax(dim=1), atol=1e-6)  # whatever k is


def test_few_classes_are_not_normalised():
    for how in ("centre", "standard", "softmax"):
        config = ScoringConfig(which="coarse", normalise=how)
        assert torch.equal(
            score(batch(), many_classes(19), config).scores,
            score(batch(), many_classes(19), ScoringConfig(which="coarse")).scores,
        )
        assert in_effect(config, many_classes(19)).normalise == "none"
        assert in_effect(config, many_classes(20)) == config


def test_the_normalisation_of_a_prompt_set():
    assert default_scoring(many_classes(20, "zero-shot")).normalise == "standard"
    assert default_scoring(many_classes(20)).normalise == "none"
    softmax = many_classes(20, metadata={"normalise": "softmax"})
    assert default_scoring(softmax).normalise == "softmax"
    constants = replace(softmax, constants=ScoringConstants(scale=2.0, image_temperature=12.5))
    assert default_scoring(constants).normalise == "softmax"
    with pytest.raises(UserError, match="Unknown normalisation 'z'"):
        default_scoring(many_classes(20, metadata={"normalise": "z"}))


def dense_tags(
    features: FeatureBatch, prompts: PromptSet, config: ScoringConfig, k: int | None, threshold: float | None
) -> list[list[tuple[int, float]]]:
    """Tags by way of all scores and a plain sort."""
    found = []
    for row in score(features, prompts, config).scores.tolist():
        ranked = sorted(enumerate(row), key=lambda pair: (-pair[1], pair[0]))[:k]
        found.append([pair for pair in ranked if threshold is None or pair[1] >= threshold])
    return found


def sparse_tags(
    features: FeatureBatch, prompts: PromptSet, config: ScoringConfig, k: int | None, threshold: float | None
) -> list[list[tuple[int, float]]]:
    tags = score_tags(features, prompts, config, top_k=k, threshold=threshold)
    pairs = list(zip(tags.class_indices.tolist(), tags.scores.tolist(), strict=True))
    return [pairs[a:b] for a, b in itertools.pairwise(tags.offsets.tolist())]


# Each item and class lies along one of four axes, so that all cosines are 0 or 1 and most scores are equal.
AXES = torch.eye(4)


@given(
    items=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), max_size=5),
    classes=st.lists(st.integers(0, 3), min_size=1, max_size=25),
    which=st.sampled_from(["coarse", "fine", "merged"]),
    how=st.sampled_from(["none", "centre", "standard", "softmax"]),
    k=st.none() | st.integers(1, 30),
    threshold=st.none() | st.sampled_from([-1.0, 0.0, 0.5, 2.0, 4.0]),
    slice_bytes=st.sampled_from([1, 100, 1 << 20]),
)
def test_kept_tags_are_those_of_a_plain_sort_with_ties(items, classes, which, how, k, threshold, slice_bytes):
    ids = tuple(map(str, range(len(items))))
    coarse = AXES[[axes[0] for axes in items]]
    fine = AXES[[axis for axes in items for axis in axes]]
    features = FeatureBatch(ids, coarse, fine, offsets_from_counts(torch.tensor([len(axes) for axes in items])), "s")
    vectors = AXES[classes]
    prompts = PromptSet(tuple(map(str, range(len(classes)))), vectors, vectors, "s", 100.0, "tuned")
    config = ScoringConfig(which=which, pooling="max", normalise=how)
    with mock.patch.object(scoring, "SLICE_BYTES", slice_bytes), mock.patch.object(library, "SLICE_BYTES", slice_bytes):
        assert sparse_tags(features, prompts, config, k, threshold) == dense_tags(
            features, prompts, config, k, threshold
        )


@pytest.mark.parametrize("which", ["coarse", "fine", "merged"])
@pytest.mark.parametrize(("k", "threshold"), [(None, None), (7, None), (None, 0.3), (7, 0.5)])
def test_kept_tags_of_a_large_vocabulary_are_those_of_all_scores(which, k, threshold):
    generator = torch.Generator().manual_seed(5)
    rows = normalize(torch.randn(30 * 5, 16, generator=generator), dim=1)
    features = FeatureBatch(
        tuple(map(str, range(30))), rows[::5], rows, torch.arange(31) * 5, "s", check_fine=False
    ).to(dtype=torch.float16)
    vectors = normalize(torch.randn(1203, 16, generator=generator), dim=1)
    prompts = PromptSet(tuple(map(str, range(1203))), vectors, vectors.flip(0), "s", 100.0, "tuned")
    config = ScoringConfig(which=which)
    expected = dense_tags(features, prompts, config, k, threshold)
    assert sparse_tags(features, prompts, config, k, threshold) == expected
    assert any(expected)


def test_kept_tags_hold_no_matrix_of_all_scores(monkeypatch):
    """4,585 words and 600 items: 11 MB of scores, of which 1 MB at a time is held."""
    vectors = normalize(torch.randn(4585, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    prompts = PromptSet(tuple(map(str, range(4585))), vectors, vectors, "s", 100.0, "tuned")
    features = FeatureBatch(
        tuple(map(str, range(600))), vectors[:600], vectors[:600], torch.arange(601), "s", check_fine=False
    )
    monkeypatch.setattr(library, "SLICE_BYTES", 1 << 20)
    monkeypatch.setattr(scoring, "SLICE_BYTES", 1 << 20)
    held = []

    def noted(real, scores, *rest):
        held.append(scores)
        return real(scores, *rest)

    for name in ("top_k", "above"):
        real = getattr(selection, name)
        monkeypatch.setattr(
            selection, name, lambda scores, *rest, real=real: (held.append(scores), real(scores, *rest))[1]
        )
    for how in ("none", "standard"):
        for which in ("coarse", "merged"):
            for options in ({"top_k": 3}, {"threshold": 3.0}):
                score_tags(features, prompts, ScoringConfig(which=which, normalise=how), **options)
    assert sum(len(scores) for scores in held) == 8 * 600
    assert max(scores.nbytes for scores in held) <= 1 << 20


def test_scores_are_computed_on_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert scoring.default_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert scoring.default_device() == torch.device("cuda")
    # Tensors of the meta device stand for those of a GPU: the operands of every kernel must lie there.
    monkeypatch.setattr(scoring, "default_device", lambda: torch.device("meta"))
    used = []

    def scored(coarse, fine, offsets, *classes, **settings):
        used.append({t.device.type for t in (coarse, fine, *classes)})
        assert offsets.device.type == "cpu"
        return ops.Scores(*[torch.zeros(2, 2)] * 3)

    def kept(*operands, k, **settings):
        scored(*operands)
        return torch.zeros(2, k), torch.zeros(2, k, dtype=torch.int64)

    monkeypatch.setattr(ops, "score", scored)
    monkeypatch.setattr(ops, "score_top_k", kept)
    score(batch(), prompt_set())
    score_tags(batch(), prompt_set(), top_k=1)
    tag_batch(batch(), prompt_set(), selection=Selection(top_k=1))
    assert used == [{"meta"}] * 3
    score(batch(), prompt_set(), device="cpu")
    score(batch().to("meta"), prompt_set())  # where the features are, for they are on no CPU
    assert used[3:] == [{"cpu"}, {"meta"}]


@pytest.mark.gpu
@pytest.mark.parametrize("which", ["coarse", "fine", "merged"])
def test_a_gpu_scores_and_keeps_what_a_cpu_does(which):
    generator = torch.Generator().manual_seed(9)
    rows = normalize(torch.randn(40 * 7, 64, generator=generator), dim=1)
    features = FeatureBatch(tuple(map(str, range(40))), rows[::7], rows, torch.arange(41) * 7, "s", check_fine=False)
    vectors = normalize(torch.randn(80, 64, generator=generator), dim=1)
    prompts = PromptSet(tuple(map(str, range(80))), vectors, vectors.flip(0), "s", 100.0, "tuned")
    for how in ("none", "standard"):
        config = ScoringConfig(which=which, normalise=how)
        expected = score(features, prompts, config, device="cpu").scores
        assert torch.allclose(score(features, prompts, config).scores, expected, atol=1e-4)
        tags = score_tags(features, prompts, config, top_k=5)
        assert torch.allclose(tags.scores.view(40, 5), expected.topk(5).values, atol=1e-4)


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
