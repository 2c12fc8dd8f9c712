"""Packed bags: checks, blocks, padding."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tai_kernels.scoring.bags import blocks, check_bags, dense_bags, pad, unpad

counts_of_items = st.lists(st.integers(0, 12), min_size=1, max_size=20)


def offsets_of(counts):
    return torch.tensor([0, *counts]).cumsum(0)


@given(counts_of_items, st.integers(1, 15))
def test_blocks_cover_every_item_once_and_stay_small(counts, rows):
    bags = check_bags(offsets_of(counts), sum(counts))
    ranges = list(blocks(bags, rows))
    assert [i for start, stop in ranges for i in range(start, stop)] == list(range(len(counts)))
    for start, stop in ranges:
        assert sum(counts[start:stop]) <= rows or stop == start + 1


@given(counts_of_items)
def test_unpad_undoes_pad_and_padding_is_masked(counts):
    values = torch.arange(sum(counts) * 2, dtype=torch.float32).view(-1, 2) + 1
    padded, mask = pad(values, offsets_of(counts))
    assert torch.equal(unpad(padded, offsets_of(counts)), values)
    if mask is None:
        assert len(set(counts)) == 1
    else:
        assert mask.sum(dim=1).tolist() == [max(n, 1) for n in counts]
        assert bool((padded[~mask] == 0).all())


def test_equal_counts_are_a_view():
    values = torch.randn(6, 2)
    padded, mask = pad(values, offsets_of([3, 3]))
    assert mask is None
    assert padded.data_ptr() == values.data_ptr()
    assert check_bags(offsets_of([3, 3]), 6).rows_per_item == 3
    assert check_bags(offsets_of([3, 2]), 5).rows_per_item == 0
    assert dense_bags(2, 3).offsets.tolist() == [0, 3, 6]


@pytest.mark.parametrize(
    ("offsets", "rows"),
    [
        (torch.tensor([0, 4, 3]), 3),
        (torch.tensor([1, 3]), 3),
        (torch.tensor([0, 2]), 3),
        (torch.tensor([0, 3], dtype=torch.int32), 3),
        (torch.zeros(0, dtype=torch.int64), 0),
        (torch.zeros(1, 2, dtype=torch.int64), 0),
    ],
)
def test_wrong_offsets_are_refused(offsets, rows):
    with pytest.raises(ValueError, match="offsets"):
        check_bags(offsets, rows)
