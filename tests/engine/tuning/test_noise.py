import pytest
import torch
from torch.nn.functional import normalize

from tai_engine.features import FeatureBatch
from tai_engine.tuning.noise import disturbed


def batch(dim: int = 512) -> FeatureBatch:
    rows = normalize(torch.randn(60, dim, generator=torch.Generator().manual_seed(5)), dim=1).half()
    ids = tuple(map(str, range(20)))
    return FeatureBatch(ids, rows[:20], rows[20:], torch.arange(0, 41, 2), "space")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_no_noise_is_the_batch_itself():
    given = batch()
    assert disturbed(given, 0.0, generator()) is given


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
