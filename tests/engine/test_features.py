import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tai_engine.errors import UserError, unknown_choice
from tai_engine.features import FeatureBatch, offsets_from_counts


def unit_rows(count: int, dim: int = 4, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=1)


def make_batch(counts: list[int], space_key: str = "space", clip: bool = False, seed: int = 0) -> FeatureBatch:
    n = len(counts)
    return FeatureBatch(
        ids=tuple(f"{seed}/{i}" for i in range(n)),
        coarse=unit_rows(n, seed=seed),
        fine=unit_rows(sum(counts), seed=seed + 1),
        offsets=offsets_from_counts(torch.tensor(counts, dtype=torch.int64)),
        space_key=space_key,
        coarse_clip=unit_rows(n, seed=seed + 2) if clip else None,
    )


def assert_same(a: FeatureBatch, b: FeatureBatch) -> None:
    assert a.ids == b.ids
    assert a.space_key == b.space_key
    assert torch.equal(a.coarse, b.coarse)
    assert torch.equal(a.fine, b.fine)
    assert torch.equal(a.offsets, b.offsets)
    assert (a.coarse_clip is None) == (b.coarse_clip is None)
    if a.coarse_clip is not None and b.coarse_clip is not None:
        assert torch.equal(a.coarse_clip, b.coarse_clip)


def test_slice_shares_memory_and_owns_the_right_rows():
    batch = make_batch([2, 0, 3, 1])
    part = batch[1:3]
    assert part.ids == ("0/1", "0/2")
    assert part.offsets.tolist() == [0, 0, 3]
    assert torch.equal(part.fine, batch.fine[2:5])
    assert part.fine.data_ptr() == batch.fine[2:].data_ptr()


def test_select_reorders_rows_with_their_items():
    batch = make_batch([2, 0, 3, 1], clip=True)
    chosen = batch.select([3, 0, 1])
    assert chosen.ids == ("0/3", "0/0", "0/1")
    assert chosen.offsets.tolist() == [0, 1, 3, 3]
    assert torch.equal(chosen.fine, torch.cat([batch.fine[5:6], batch.fine[0:2]]))
    assert torch.equal(chosen.coarse_clip, batch.coarse_clip[[3, 0, 1]])


def test_empty_and_coarse_only_batches():
    empty = make_batch([])
    assert len(empty) == 0
    assert empty.fine.shape == (0, 4)
    coarse_only = make_batch([0, 0])
    assert coarse_only.counts.tolist() == [0, 0]
    assert_same(FeatureBatch.concatenate([empty, coarse_only]), coarse_only)


@given(st.lists(st.integers(0, 5), max_size=8), st.data())
def test_concatenating_the_slices_gives_the_batch_back(counts: list[int], data: st.DataObject):
    batch = make_batch(counts, clip=True)
    cut = data.draw(st.integers(0, len(counts)))
    assert_same(FeatureBatch.concatenate([batch[:cut], batch[cut:]]), batch)
    assert_same(batch.select(range(len(counts))), batch)


def test_batches_of_two_spaces_are_not_mixed_and_the_error_names_both():
    with pytest.raises(UserError, match=r"rn50:aaa.*vitb32:bbb"):
        FeatureBatch.concatenate([make_batch([1], "rn50:aaa"), make_batch([1], "vitb32:bbb", seed=5)])


def test_half_precision_rows_keep_their_dtype():
    half = make_batch([2, 1]).to(dtype=torch.float16)
    assert half.fine.dtype == half.coarse.dtype == torch.float16
    assert half.offsets.dtype == torch.int64


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.5])
@pytest.mark.parametrize("which", ["coarse", "fine"])
def test_rows_must_be_finite_and_of_unit_length(which: str, bad: float):
    rows = {"coarse": unit_rows(2), "fine": unit_rows(3)}
    rows[which][1] *= bad
    with pytest.raises(ValueError, match=f"{which} row 1"):
        FeatureBatch(("a", "b"), rows["coarse"], rows["fine"], torch.tensor([0, 1, 3]), "space")


@pytest.mark.parametrize(
    ("offsets", "message"),
    [([0, 2, 1], "rise"), ([1, 2, 3], "rise"), ([0, 1, 2], "rise"), ([0, 3], "expected int64"), ([0, 4, 3], "rise")],
)
def test_offsets_must_describe_the_rows(offsets: list[int], message: str):
    with pytest.raises(ValueError, match=message):
        FeatureBatch(("a", "b"), unit_rows(2), unit_rows(3), torch.tensor(offsets), "space")


def test_ids_shapes_and_dtypes_are_checked():
    offsets = torch.tensor([0, 1, 3])
    with pytest.raises(ValueError, match="unique"):
        FeatureBatch(("a", "a"), unit_rows(2), unit_rows(3), offsets, "space")
    with pytest.raises(ValueError, match="coarse has shape"):
        FeatureBatch(("a",), unit_rows(2), unit_rows(3), torch.tensor([0, 3]), "space")
    with pytest.raises(ValueError, match="fine has shape"):
        FeatureBatch(("a", "b"), unit_rows(2), unit_rows(3, dim=5), offsets, "space")
    with pytest.raises(ValueError, match="dtype"):
        FeatureBatch(("a", "b"), unit_rows(2).to(torch.int8), unit_rows(3), offsets, "space")


def test_unknown_choice_lists_close_names_first_or_all():
    close = unknown_choice("vocabulary", "coco8O", ["coco80", "voc20"])
    assert str(close) == "Unknown vocabulary 'coco8O'; did you mean 'coco80'? Choose one of 'coco80', 'voc20'."
    many = unknown_choice("model", "RN5", [f"RN{n}" for n in range(10, 90)])
    assert str(many).startswith("Unknown model 'RN5'; did you mean 'RN")
    assert str(many).endswith("(75 more exist)")
    assert str(unknown_choice("mode", "zzz", ["b", "a"])) == "Unknown mode 'zzz'; choose one of 'a', 'b'."


def test_another_dtype_is_no_reason_to_check_again():
    """Rows of fp16 are off unit length by more than fp32 allows."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(50, 8, generator=generator), dim=1).half()
    ids = tuple(map(str, range(50)))
    batch = FeatureBatch(ids, rows, rows, torch.arange(51), "space:1", coarse_clip=rows)
    wide = batch.to(dtype=torch.float32)
    assert torch.equal(wide.coarse, rows.float())
    assert float((wide.coarse_clip.norm(dim=1) - 1).abs().max()) > 1e-4
    with pytest.raises(ValueError, match="coarse row 0 has length"):
        FeatureBatch(ids, wide.coarse, wide.fine, torch.arange(51), "space:1")
