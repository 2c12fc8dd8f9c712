"""Keeping the best scores: by hand, ties, and against a plain sort."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tai_kernels.scoring import selection

# Few distinct numbers, so that ties are common.
matrices = st.tuples(st.integers(0, 4), st.integers(1, 6)).flatmap(
    lambda shape: st.lists(st.integers(-2, 2), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]).map(
        lambda numbers: torch.tensor(numbers, dtype=torch.float32).view(shape)
    )
)


def test_top_k_by_hand():
    scores, classes = selection.top_k(torch.tensor([[0.1, 0.9, 0.9, 0.5, 0.9]]), 2)
    torch.testing.assert_close(scores, torch.tensor([[0.9, 0.9]]))
    assert classes.tolist() == [[1, 2]]


@given(matrices, st.integers(1, 8))
def test_top_k_is_a_stable_sort(scores, k):
    expected = scores.sort(dim=1, descending=True, stable=True)
    got_scores, got_classes = selection.top_k(scores, k)
    kept = min(k, scores.shape[1])
    assert torch.equal(got_scores, expected.values[:, :kept])
    assert torch.equal(got_classes, expected.indices[:, :kept])


def test_above_by_hand():
    scores = torch.tensor([[0.2, 0.7, 0.7], [0.0, 0.0, 0.0], [0.5, 0.6, 0.9]])
    kept, classes, counts = selection.above(scores, torch.tensor([0.2, 0.6, 0.7]))
    assert kept.tolist() == pytest.approx([0.7, 0.7, 0.2, 0.9, 0.6, 0.5])
    assert classes.tolist() == [1, 2, 0, 2, 1, 0]
    assert counts.tolist() == [3, 0, 3]


@given(matrices, st.integers(-3, 3))
def test_above_keeps_what_a_plain_loop_keeps(scores, threshold):
    kept, classes, counts = selection.above(scores, torch.full((scores.shape[1],), float(threshold)))
    expected = []
    for row in scores.tolist():
        found = [(s, c) for c, s in enumerate(row) if s >= threshold]
        expected.append(sorted(found, key=lambda pair: (-pair[0], pair[1])))
    assert counts.tolist() == [len(found) for found in expected]
    assert list(zip(kept.tolist(), classes.tolist(), strict=True)) == [pair for found in expected for pair in found]
