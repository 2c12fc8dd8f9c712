"""Rows of eight bits: what is written, what comes back, and how far scores are off."""

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_samples import done, random_batch, same, small_spec, unit_rows, write_group
from tai_engine.features import FeatureBatch, quantise_rows, wrong_lengths
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore, StoredItem
from tai_engine.tagging.scoring import ScoringConfig, score
from tai_engine.tagging.tag_job import tag_batch
from tai_engine.tagging.tag_selection import Selection
from tai_kernels.processor import has_fast_bf16


def test_rows_by_hand():
    rows = torch.tensor([[1.27, -0.635, 0.004, 0.006], [0.0, 0.0, 0.0, 0.0], [-0.5, 0.25, 0.0, 0.5]])
    quantised, scales = quantise_rows(rows)
    assert quantised.dtype == torch.int8
    # 1.27 / 127 is a hundredth: -63.5 goes to the even -64, 0.4 down and 0.6 up; 0.25 / (0.5 / 127) = 63.5 goes to 64.
    assert quantised.tolist() == [[127, -64, 0, 1], [0, 0, 0, 0], [-127, 64, 0, 127]]
    assert scales.tolist() == pytest.approx([0.01, torch.finfo(torch.float32).tiny, 0.5 / 127])


def test_no_rows():
    quantised, scales = quantise_rows(torch.zeros(0, 8))
    assert (quantised.shape, quantised.dtype, scales.shape, scales.dtype) == ((0, 8), torch.int8, (0,), torch.float32)


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 20), dim=st.integers(1, 64), seed=st.integers(0, 99))
def test_numbers_are_off_by_half_a_scale_at_most(rows, dim, seed):
    exact = unit_rows(rows, dim, torch.Generator().manual_seed(seed))
    quantised, scales = quantise_rows(exact)
    assert bool(((quantised * scales[:, None] - exact).abs() <= scales[:, None] / 2 + 1e-7).all())
    assert len(wrong_lengths(quantised, scales)) == 0
    again, same_scales = quantise_rows(quantised * scales[:, None])
    assert torch.equal(again, quantised)
    assert torch.allclose(same_scales, scales, rtol=1e-6)


def test_cosines_are_off_by_a_quarter_of_a_thousandth():
    """The figure that `quantise_rows` states, for rows as wide as CLIP's."""
    generator = torch.Generator().manual_seed(0)
    rows, classes = unit_rows(2000, 1024, generator), unit_rows(80, 1024, generator)
    quantised, scales = quantise_rows(rows)
    error = (quantised * scales[:, None]) @ classes.T - rows @ classes.T
    assert float(error.square().mean().sqrt()) == pytest.approx(2.5e-4, rel=0.1)


def quantised_batch(ids, counts, **changes):
    batch = random_batch(ids, counts, **changes)
    fine, scales = quantise_rows(batch.fine)
    return FeatureBatch(
        batch.ids, batch.coarse, fine, batch.offsets, batch.space_key, batch.coarse_clip, fine_scales=scales
    )


def test_wrong_rows_are_refused():
    batch = quantised_batch("ab", [2, 1])
    whole = vars(batch)
    for change, words in (
        ({"fine_scales": None}, "fine has dtype torch.int8"),
        ({"fine": batch.fine.float()}, "fine is torch.float32"),
        ({"fine_scales": batch.fine_scales[:2]}, r"fine_scales are torch.float32 \(2,\), expected float32 \(3,\)"),
        ({"fine_scales": batch.fine_scales.half()}, "fine_scales are torch.float16"),
        ({"fine_scales": batch.fine_scales * 1.5}, "fine row 0 has length 1.5"),
        ({"fine_scales": batch.fine_scales * torch.nan}, "fine row 0 has length nan"),
    ):
        with pytest.raises(ValueError, match=words):
            FeatureBatch(**{**whole, **change})


def test_parts_keep_their_scales():
    batch = quantised_batch("abcd", [3, 0, 2, 1])
    exact = batch.to(dtype=torch.float32)
    assert exact.fine_scales is None
    assert torch.equal(exact.fine, batch.fine * batch.fine_scales[:, None])
    for part, expected in (
        (batch[1:4], exact[1:4]),
        (batch.select([2, 0]), exact.select([2, 0])),
        (FeatureBatch.concatenate([batch[:1], batch[1:]]), exact),
        (batch.to("cpu"), exact),
    ):
        assert part.fine.dtype == torch.int8
        assert same(part.to(dtype=torch.float32), expected)
    assert batch.dequantised().fine.dtype == torch.float16
    assert exact.dequantised() is exact
    with pytest.raises(ValueError, match="only some of the batches carry fine_scales"):
        FeatureBatch.concatenate([batch[:1], batch.dequantised()[1:]])


@pytest.mark.parametrize("kind", ["images", "sentences"])
def test_a_store_of_eight_bits(tmp_path, kind):
    spec = small_spec(row_dtype="int8", kind=kind, has_coarse_clip=True)
    store = FeatureStore.create(tmp_path / "s", spec)
    batches = [random_batch("abc", [3, 0, 2], clip=True), quantised_batch("ef", [1, 3], seed=1, clip=True)]
    write_group(store, 0, [*done(*"abc"), StoredItem("d", "failed", "x"), *done(*"ef")], batches)
    store = FeatureStore.open(tmp_path / "s")
    fine, scales = quantise_rows(batches[0].fine)
    batch = store.read_group(0)
    assert batch.coarse.dtype == batch.coarse_clip.dtype == torch.float16
    # Rows that come as eight bits are kept to the bit.
    assert torch.equal(batch.fine, torch.cat([fine, batches[1].fine]))
    assert torch.equal(batch.fine_scales, torch.cat([scales, batches[1].fine_scales]))
    assert same(store.read_items([5, 0, 2]), batch.select([4, 0, 2]))
    assert torch.equal(store.read_items([5, 0]).fine_scales, batch.select([4, 0]).fine_scales)
    coarse_only = store.read_items([5, 0], with_fine=False)
    assert (coarse_only.fine.shape, coarse_only.fine.dtype, len(coarse_only.fine_scales)) == ((0, 8), torch.int8, 0)
    group = zarr.open_group(tmp_path / "s", mode="r", zarr_format=3)
    assert np.array_equal(group["fine"][:9], batch.fine)
    assert np.array_equal(group["fine_scale"][:9], batch.fine_scales)
    assert group["fine_scale"].chunks == group["fine"].chunks[:1] == (6 if kind == "images" else 4096,)
    sizes = [path.stat().st_size for name in group for path in (tmp_path / "s" / name).glob("c.*")]
    assert sum(sizes) == store.nbytes


def test_a_coarse_store_of_eight_bits_has_no_scales(tmp_path):
    store = FeatureStore.create(tmp_path / "s", small_spec(row_dtype="int8", rows_per_item_max=0))
    write_group(store, 0, done("a"), [random_batch("a", [0])])
    assert not (tmp_path / "s" / "fine_scale").exists()
    batch = store.read_group(0)
    assert (batch.coarse.dtype, batch.fine.dtype, batch.fine_scales) == (torch.float16, torch.float16, None)


def test_rows_of_eight_bits_go_into_a_store_of_floats(tmp_path):
    store = FeatureStore.create(tmp_path / "s", small_spec(row_dtype="float32"))
    batch = quantised_batch("ab", [3, 1], dtype=torch.float32)
    write_group(store, 0, done("a", "b"), [batch])
    assert torch.equal(store.read_group(0).fine, batch.to(dtype=torch.float32).fine)


def clusters(items, rows, dim, classes, seed=0):
    """Rows around class vectors, as pictures of things: a batch and a prompt set."""
    generator = torch.Generator().manual_seed(seed)
    vectors_CD = unit_rows(classes, dim, generator)
    near = vectors_CD[torch.randint(classes, (items * rows,), generator=generator)]
    fine_TD = torch.nn.functional.normalize(near + 1.5 * unit_rows(items * rows, dim, generator), dim=1)
    batch = FeatureBatch(
        tuple(map(str, range(items))),
        unit_rows(items, dim, generator).half(),
        fine_TD.half(),
        torch.arange(items + 1) * rows,
        "space:1",
    )
    names = tuple(f"c{c}" for c in range(classes))
    return batch, PromptSet(names, vectors_CD, vectors_CD, "space:1", logit_scale=100.0)


@pytest.mark.parametrize("pooling", ["softmax", "max"])
def test_tags_are_those_of_sixteen_bits(tmp_path, pooling):
    batch, prompts = clusters(items=60, rows=7, dim=512, classes=30)
    config = ScoringConfig(pooling=pooling, temperature=40.0)
    ids = [StoredItem(name) for name in batch.ids]
    found = {}
    for dtype in ("float16", "int8"):
        spec = small_spec(dim=512, rows_per_item_max=7, group_items=64, row_dtype=dtype)
        store = FeatureStore.create(tmp_path / dtype, spec)
        write_group(store, 0, ids, [batch])
        found[dtype] = store.read_group(0)
    assert found["int8"].fine.dtype == torch.int8
    # Rows in fp32 are scored in fp32 on every machine: what differs is the quantisation alone.
    exact, rough = (
        score(found[dtype].to(dtype=torch.float32), prompts, config).scores for dtype in ("float16", "int8")
    )
    # A cosine is off by 2.5e-4 rms at D = 1,024 and by sqrt(2) as much at 512, and k = 4 multiplies it.
    assert float((exact - rough).abs().max()) < 4 * 4 * 3.6e-4
    # Narrow rows are scored in bf16 where a CPU multiplies it fast: a rounding of 2**-9 in rows and class vectors.
    path = 2e-2 if has_fast_bf16() else 2e-3
    for narrow in (found["int8"], found["int8"].dequantised()):
        assert torch.allclose(score(narrow, prompts, config).scores, rough, rtol=0, atol=path)
    tags = [tag_batch(found[dtype], prompts, config, Selection(top_k=1)) for dtype in ("float16", "int8")]
    margins = exact.topk(2, dim=1).values.diff(dim=1).abs()[:, 0]
    clear = margins > 2 * (4 * 4 * 3.6e-4 + path)
    assert int(clear.sum()) > 30
    assert torch.equal(tags[0].class_indices[clear], tags[1].class_indices[clear])
