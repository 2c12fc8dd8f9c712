"""The benchmark of the cache on small stores: what it compares is right, and wrong reads stop it."""

import json

import numpy as np
import pytest
import torch

from tai_benchmarks import bench_cache, cache_memory
from tai_benchmarks.bench_cache import CacheConfig, WrongReadError
from tai_benchmarks.cache_problem import find_pictures, random_prompts, write_random_model, write_store
from tai_engine.encoders import load_encoder
from tai_engine.errors import UserError
from tai_engine.tagging.tag_selection import Selection

SMALL = CacheConfig(items=130, dim=16, classes=3, pictures=2, rounds=1, memory_items=(50, 200))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("bench") / "store", 130, 49, 16)


def test_a_quick_run_is_smaller_and_keeps_what_is_asked_for():
    quick = bench_cache.configure(quick=True, items=77)
    assert (quick.items, quick.quick, quick.cases) == (77, True, ("random-128", "sequential", "re-tag"))
    assert bench_cache.configure(quick=False) == CacheConfig()


@pytest.mark.parametrize(
    ("wanted", "words"), [({"cases": ("reads",)}, "Unknown case 'reads'"), ({"items": 0}, "items is 0")]
)
def test_settings_that_make_no_sense(wanted, words):
    with pytest.raises(UserError, match=words):
        CacheConfig(**wanted)


def test_a_store_is_as_large_as_it_is_told(tmp_path):
    store = write_store(tmp_path / "s", 1100, 2, 8, row_dtype="int8")
    batches = list(store.iter_batches())
    assert (store.counts(), store.groups(), store.spec.row_dtype) == ({"done": 1100, "failed": 0}, [0, 1], "int8")
    first, second = store.read_items([0, 1]), store.read_items([1024, 1025])
    assert torch.equal(first.coarse[0], second.coarse[1])  # moved on by one
    assert not torch.equal(first.coarse[0], second.coarse[0])
    assert len({name for batch in batches for name in batch.ids}) == 1100


def test_reading_is_compared_with_its_baselines(store):
    rows = [*bench_cache.random_rows(SMALL, store, {}, str), *bench_cache.sequential_rows(SMALL, store, {}, str)]
    found = {(row.case, row.candidate): row for row in rows}
    assert {key: row.baseline for key, row in found.items()} == {
        ("random-128", "zarr-python"): "zarr-python",
        ("random-128", "tai"): "zarr-python",
        ("random-128", "tai-first-touch"): "zarr-python",
        ("sequential", "raw-file"): "raw-file",
        ("sequential", "tai"): "raw-file",
        ("sequential", "tai-first-touch"): "raw-file",
        ("sequential", "zarr-python"): "raw-file",
    }
    for (case, candidate), row in found.items():
        assert (row.bench, row.unit) == ("cache", "items/s" if case == "random-128" else "GB/s")
        assert row.value > 0
        assert row.ratio == pytest.approx(row.value / found[case, row.baseline].value), candidate


def test_wrong_reads_stop_the_run(store, monkeypatch):
    bench_cache.check_reads(store, np.array([3, 129, 0]))
    read = bench_cache.zarr_items

    def off_by_one_bit(group, positions_N):
        coarse, fine = read(group, positions_N)
        fine.view(np.uint16)[5, 5] ^= 1
        return coarse, fine

    monkeypatch.setattr(bench_cache, "zarr_items", off_by_one_bit)
    with pytest.raises(WrongReadError, match="at random"):
        bench_cache.check_reads(store, np.array([3, 129, 0]))


def test_prompts_fit_the_store(store):
    prompts = random_prompts(3, 16)
    assert prompts.space_key == store.spec.space_key
    assert prompts.local_vectors.shape == (3, 16)


def test_pictures_are_photos_where_there_are_some(tmp_path, monkeypatch):
    monkeypatch.delenv("TAI_DATA", raising=False)
    drawn, kind = find_pictures(tmp_path / "embedded", 2)
    assert (len(drawn), kind, all(path.is_file() for path in drawn)) == (2, "embedded", True)
    monkeypatch.setenv("TAI_DATA", str(tmp_path / "embedded"))
    assert find_pictures(tmp_path / "other", 1) == (sorted(drawn)[:1], "photos")
    monkeypatch.setenv("TAI_DATA", str(tmp_path / "nothing"))
    assert find_pictures(tmp_path / "again", 1)[1] == "embedded"


def test_memory_is_that_of_a_process_of_its_own(tmp_path):
    found = cache_memory.peak_of_tagging(30)
    assert 50e6 < found.peak_bytes < 4e9
    assert found.seconds > 0


def test_memory_rows_tell_the_growth(monkeypatch):
    peaks = {50: 400_000_000, 200: 500_000_000}
    monkeypatch.setattr(bench_cache, "peak_of_tagging", lambda items: cache_memory.TaggingPeak(peaks[items], 1.0, 20))
    rows = list(bench_cache.memory_rows(SMALL, {}, str))
    assert [(row.case, row.value, row.ratio, row.extra["growth"]) for row in rows] == [
        ("tag/50-items", 0.4, 5.0, 1.0),
        ("tag/200-items", 0.5, 4.0, 1.25),
    ]


def test_a_random_model_encodes_pictures(tmp_path, monkeypatch):
    """A small architecture stands for RN50."""
    import open_clip

    from tiny_models import tiny_config

    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny-random.json").write_text(json.dumps(tiny_config("resnet")))
    open_clip.add_model_config(tmp_path / "configs")
    encoder = load_encoder(write_random_model(tmp_path / "model", "tiny-random"), None, device="cpu")
    pictures, _ = find_pictures(tmp_path / "pictures", 2)
    seen = []
    monkeypatch.setattr(encoder, "encode_pixels", lambda pixels, ids: seen.append((tuple(pixels.shape), list(ids))))
    bench_cache.encode_pictures(encoder, pictures)
    assert seen == [((2, 3, 64, 64), [str(path) for path in pictures])]
    assert Selection(top_k=bench_cache._TAGS).top_k == 5
