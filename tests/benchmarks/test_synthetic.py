import numpy as np
import pytest
import torch

from tai_benchmarks import synthetic
from tai_benchmarks.synthetic import LVIS_FILE, make_features, quantise
from tai_engine.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forget_the_file():
    synthetic.lvis_vectors.cache_clear()
    yield
    synthetic.lvis_vectors.cache_clear()


def test_features_look_like_clip():
    raw = make_features(70, 9, 64, 30, CPU)
    assert (raw.coarse.shape, raw.fine.shape) == ((70, 64), (70, 9, 64))
    assert raw.class_global.shape == raw.class_local.shape == (30, 64)
    assert raw.class_source == "random"
    lengths = raw.fine.norm(dim=-1)
    assert float(lengths.min()) > 1
    assert float(lengths.std()) > 0.5  # not of unit length: normalising is work
    assert not torch.equal(raw.class_global, raw.class_local)
    rows_TD = torch.nn.functional.normalize(raw.fine.flatten(0, 1), dim=1)
    classes_CD = torch.nn.functional.normalize(raw.class_local, dim=1)
    similarities_NLC = (rows_TD @ classes_CD.T).view(70, 9, 30)
    assert float(similarities_NLC.std()) > 0.1
    assert float(similarities_NLC.mean()) > 0.02  # the common direction
    # Items differ in what they show, and rows of one item differ as well.
    best_N = similarities_NLC.amax(1).argmax(1)
    assert len(best_N.unique()) > 5
    assert float(similarities_NLC.std(dim=1).mean()) > 0.05


def test_the_same_seed_gives_the_same_numbers():
    first, again, other = (make_features(3, 4, 16, 5, CPU, seed=s) for s in (1, 1, 2))
    assert torch.equal(first.fine, again.fine)
    assert torch.equal(first.class_local, again.class_local)
    assert not torch.equal(first.fine, other.fine)


def test_real_class_vectors_are_taken_where_they_fit(tmp_path, monkeypatch):
    monkeypatch.setenv("TAI_DATA", str(tmp_path))
    vectors_CD = np.random.default_rng(0).normal(size=(1203, 32)).astype(np.float16)
    np.save(tmp_path / LVIS_FILE, vectors_CD)
    raw = make_features(2, 3, 32, 1203, CPU)
    assert raw.class_source == "lvis"
    torch.testing.assert_close(raw.class_local, torch.from_numpy(vectors_CD.astype(np.float32)), atol=0, rtol=0)
    assert make_features(2, 3, 16, 1203, CPU).class_source == "random"  # another embedding size
    assert make_features(2, 3, 32, 20, CPU).class_source == "random"
    synthetic.lvis_vectors.cache_clear()
    np.save(tmp_path / LVIS_FILE, vectors_CD[:7])
    with pytest.raises(UserError, match=r"has shape \(7, 32\), expected \(1203, D\)"):
        make_features(2, 3, 32, 1203, CPU)


def test_quantised_by_hand():
    rows_TD = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])
    quantised_TD, scales_T = quantise(rows_TD)
    assert quantised_TD.dtype == torch.int8
    assert quantised_TD.tolist() == [[64, -127, 32], [0, 0, 0]]  # 63.5 and 31.75 rounded, halves to even
    assert float(scales_T[0]) == pytest.approx(2 / 127)


def test_quantised_rows_are_within_half_a_step():
    rows_TD = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    quantised_TD, scales_T = quantise(rows_TD)
    error_TD = (quantised_TD.float() * scales_T[:, None] - rows_TD).abs()
    assert bool((error_TD <= 0.5001 * scales_T[:, None]).all())
    assert float(error_TD.max()) > 0
