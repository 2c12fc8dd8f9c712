from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from sentence_stores import tune
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.tuning import TuningConfig
from tai_engine.tuning.objective import disturbed


def batch(dim: int = 512) -> FeatureBatch:
    rows = normalize(torch.randn(60, dim, generator=torch.Generator().manual_seed(5)), dim=1).half()
    ids = tuple(map(str, range(20)))
    return FeatureBatch(ids, rows[:20], rows[20:], torch.arange(0, 41, 2), "space")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("noise", [0.5, 1.0, 3.0])
def test_noise_of_a_length_turns_vectors_by_its_angle(noise):
    given = batch()
    found = disturbed(given, noise, generator())
    assert found.ids == given.ids
    assert torch.equal(found.offsets, given.offsets)
    for before, after in ((given.coarse, found.coarse), (given.fine, found.fine)):
        assert after.dtype == torch.float32
        assert torch.allclose(after.norm(dim=1), torch.ones(len(after)), atol=1e-5)
        # Noise is nearly at right angles to any one vector in so many dimensions.
        cosine = (before.float() * after).sum(dim=1).mean()
        assert float(cosine) == pytest.approx((1 + noise**2) ** -0.5, abs=0.03)


def test_chance_comes_from_the_generator_alone():
    given = batch()
    first, same, other = (disturbed(given, 1.0, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.coarse, same.coarse)
    assert torch.equal(first.fine, same.fine)
    assert not torch.equal(first.coarse, other.coarse)
    assert not torch.equal(first.coarse[:10], first.fine[:10])


def test_a_noisy_run_depends_on_its_seed_and_can_be_stopped(sentence_store, encoder, vocabulary, tmp_path):
    config = TuningConfig(n_contexts=4, epochs=2, batch_size=20, learning_rate=0.1, held_out=0.25, noise=1.0)

    def stop(progress):
        if progress.step == 2:
            raise KeyboardInterrupt

    whole = tune(sentence_store, encoder, vocabulary, config)
    with pytest.raises(KeyboardInterrupt):
        tune(sentence_store, encoder, vocabulary, config, run=tmp_path, progress=stop)
    resumed = tune(sentence_store, encoder, vocabulary, config, run=tmp_path)
    plain = tune(sentence_store, encoder, vocabulary, replace(config, noise=0.0))
    for name, contexts in whole.prompts.contexts.items():
        assert torch.equal(contexts, resumed.prompts.contexts[name])
        assert not torch.equal(contexts, plain.prompts.contexts[name])
    # Held-out figures are of the sentences as they are.
    assert whole.held_out.loss == pytest.approx(whole.history[-1].held_out_loss)


@pytest.mark.parametrize("noise", [-1.0, float("nan"), float("inf")])
def test_noise_has_a_length(noise):
    with pytest.raises(UserError, match=r"noise of tuning is .* it has to be a number from 0"):
        TuningConfig(noise=noise)
