import torch
import torch.nn.functional as F

from tai_benchmarks.photo_clip.projection import (
    PhotographFeatures,
    classifier_rows,
    feature_bank,
    project,
    summarise,
)


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_summaries_are_means_of_maps_and_of_their_windows():
    part = seeded(3, 36, 4).half()
    found = summarise([part[:2], part[2:]])
    maps = part.float().reshape(3, 6, 6, 4)
    torch.testing.assert_close(found.coarse, maps.mean(dim=(1, 2)))
    # Four windows of 3 x 3, then one of 5 x 5: a step of 2 leaves no place for a second.
    assert found.windows.shape == (3, 5, 4)
    torch.testing.assert_close(found.windows[:, 1], maps[:, :3, 3:].mean(dim=(1, 2)).half())
    torch.testing.assert_close(found.windows[:, 4], maps[:, :5, :5].mean(dim=(1, 2)).half())


def test_the_bank_has_photographs_windows_and_pseudo_features_in_the_activations_range():
    features = PhotographFeatures(seeded(5, 8).abs(), seeded(5, 7, 8).abs().half())
    seen, pseudo = feature_bank(features, seeded(3, 8, seed=1), torch.Generator().manual_seed(2))
    assert torch.equal(seen[:5], features.coarse)
    assert len(seen) == 5 + 5 * 6
    assert pseudo.shape == (16_000, 8)
    assert float(pseudo.min()) == 0
    assert float(pseudo.max()) <= 6
    again, _ = feature_bank(features, seeded(3, 8, seed=1), torch.Generator().manual_seed(2))
    assert torch.equal(seen, again)


def test_both_kinds_of_classifiers_deviate_alike():
    bank = seeded(400, 6) @ torch.diag(torch.tensor([1.0, 2, 3, 1, 2, 3]))
    rows = classifier_rows(seeded(5, 6, seed=1), bank[:50], torch.rand(50, 4), bank)
    deviations = (bank @ rows.T).std(dim=0)
    torch.testing.assert_close(deviations[:5].mean(), torch.tensor(1.0))
    torch.testing.assert_close(deviations[5:].mean(), torch.tensor(1.0))
    assert rows.shape == (9, 6)


def test_of_white_features_the_projection_keeps_the_directions_in_which_classifiers_vary_most():
    generator = torch.Generator().manual_seed(3)
    bank = torch.linalg.qr(torch.randn(2000, 4, generator=generator) - 0.0)[0] * 2000**0.5 + 5
    rows = torch.diag(torch.tensor([3.0, 1.0, 0.1, 2.0]))
    projection = project(rows, bank, 2, 1.0)
    kept = F.normalize(projection.weight, dim=1).abs()
    torch.testing.assert_close(kept, torch.eye(4)[[0, 3]], atol=0.05, rtol=0)
    # Power 1 keeps the ratio of the two, power 0 makes them alike.
    ratio = projection.weight.norm(dim=1)
    assert abs(float(ratio[1] / ratio[0]) - 2 / 3) < 0.03
    flat = project(rows, bank, 2, 0.0).weight.norm(dim=1)
    assert abs(float(flat[1] / flat[0]) - 1) < 0.03


def test_the_bias_is_the_mean_subtracted_and_rows_are_of_unit_length():
    bank = seeded(300, 5) + 1
    projection = project(seeded(6, 5, seed=1), bank, 3, 0.5)
    expected = F.normalize(bank @ projection.weight.T + projection.bias, dim=1)
    torch.testing.assert_close(projection(bank), expected, atol=1e-5, rtol=0)
    lengths = ((bank - projection.mean) @ projection.weight.T).norm(dim=1)
    torch.testing.assert_close(lengths.mean(), torch.tensor(1.0))
