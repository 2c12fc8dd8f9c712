"""The discriminant of patches against one written out in fp64, and on patches whose classes are known."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from feature_samples import done, random_batch, small_spec, write_group
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.label_free import patch_gaussians
from tai_engine.label_free.patch_gaussians import with_patch_gaussians
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore

CLASSES, DIM = 3, 8


def softmax(rows):
    exponentials = np.exp(rows - rows.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def plain(patches, prompts, sure=512):
    """The published steps with all patches at once."""

    def fit(rows, weights):
        totals = weights.sum(0)
        means = np.where(totals[:, None] > 1e-6, weights.T @ rows / np.maximum(totals, 1e-6)[:, None], prompts)
        covariance = (
            sum(
                weights[n, c] * np.outer(row - means[c], row - means[c])
                for n, row in enumerate(rows)
                for c in range(CLASSES)
            )
            / totals.sum()
        )
        inner = (totals.sum() - 1) * covariance + np.trace(covariance) * np.eye(DIM)
        precision = DIM * np.linalg.pinv(inner)
        weights = means @ precision
        return weights, np.log(1 / CLASSES) - 0.5 * (weights * means).sum(1)

    shares = softmax(60 * patches @ prompts.T)
    entropy = -(shares * np.log(np.maximum(shares, 1e-300))).sum(1)
    kept = []
    for c in range(CLASSES):
        own = np.flatnonzero(shares.argmax(1) == c)
        kept += own[np.argsort(entropy[own], kind="stable")][:sure].tolist()
    weights, offsets = fit(patches[sorted(kept)], shares[sorted(kept)])
    again = softmax(100 * (patches @ weights.T + offsets))
    again = again * (again >= again.mean(0) + again.std(0))
    weights, _ = fit(patches, again)
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def picture_store(path, batch, **spec):
    store = FeatureStore.create(path, small_spec(**spec))
    for group, start in enumerate(range(0, len(batch), 6)):
        part = batch[start : start + 6]
        write_group(store, group, done(*part.ids), [part])
    return store


def prompts(space="space:1"):
    rows = normalize(torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(5)), dim=1)
    return PromptSet(("a", "b", "c"), rows, rows, space, 100.0)


@pytest.mark.parametrize("sure", [2, 512])
def test_equals_the_plain_way(tmp_path, monkeypatch, sure):
    monkeypatch.setattr(patch_gaussians, "_BATCH", 4)
    monkeypatch.setattr(patch_gaussians, "SURE_PATCHES", sure)
    batch = random_batch([str(n) for n in range(10)], [3] * 10, dtype=torch.float32)
    start = prompts()
    found = with_patch_gaussians(start, picture_store(tmp_path / "s", batch, row_dtype="float32"))
    expected = plain(batch.fine.double().numpy(), start.local_vectors.double().numpy(), sure)
    np.testing.assert_allclose(found.local_vectors.numpy(), expected, atol=1e-3)
    assert torch.equal(found.global_vectors, start.global_vectors)
    assert found.metadata["patch_gaussians"] == '{"pictures": 10}'


def test_vectors_move_to_where_the_patches_are(tmp_path):
    # Prompts point somewhere between the axes; patches of class c lie on axis c.
    axes = torch.eye(DIM)[:CLASSES]
    start = normalize(axes + 0.5 * torch.ones(DIM), dim=1)
    generator = torch.Generator().manual_seed(1)
    fine = normalize(axes.repeat(12, 1) + 0.1 * torch.randn(36, DIM, generator=generator), dim=1)
    ids = tuple(str(n) for n in range(12))
    batch = FeatureBatch(ids, fine[::3], fine, torch.arange(13) * 3, "space:1")
    given = PromptSet(("a", "b", "c"), start, start, "space:1", 100.0)
    found = with_patch_gaussians(given, picture_store(tmp_path / "s", batch, row_dtype="float32"))
    before, after = (fine @ rows.T for rows in (given.local_vectors, found.local_vectors))
    margins = [
        float((s.gather(1, torch.arange(36)[:, None] % 3) - s.sort(dim=1).values[:, 1:2]).min())
        for s in (before, after)
    ]
    assert bool((after.argmax(dim=1) == torch.arange(36) % 3).all())
    assert margins[1] > margins[0]


def test_a_sample_of_a_large_collection(tmp_path, monkeypatch):
    monkeypatch.setattr(patch_gaussians, "MOST_PICTURES", 4)
    batch = random_batch([str(n) for n in range(10)], [3] * 10)
    assert with_patch_gaussians(prompts(), picture_store(tmp_path / "s", batch)).metadata["patch_gaussians"] == (
        '{"pictures": 4}'
    )


def test_mistakes(tmp_path):
    batch = random_batch(["0", "1"], [0, 0])
    with pytest.raises(UserError, match="holds coarse features only"):
        with_patch_gaussians(prompts(), picture_store(tmp_path / "c", batch, rows_per_item_max=0))
    with pytest.raises(UserError, match="holds no pictures with features"):
        with_patch_gaussians(prompts(), FeatureStore.create(tmp_path / "e", small_spec()))
    store = picture_store(tmp_path / "s", random_batch(["0"], [3]))
    with pytest.raises(UserError, match="comparable within one space"):
        with_patch_gaussians(prompts("other"), store)
