"""Pictures into a store: every one ends as done or failed, and a run that was cut off goes on."""

import hashlib
import re
import shutil
from collections import namedtuple

import pytest
import torch

from dict_source import DictSource, PickyPixels, Picture, png
from fake_encoders import FakeEncoder
from tai_engine.caching.images import cache_images
from tai_engine.caching.report import CacheOptions
from tai_engine.caching.sizes import group_sizes
from tai_engine.caching.stages import STAGES
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.store import FeatureStore

SMALL = CacheOptions(group_items=8, slice_items=3, workers=2)


def pictures(count, start=0):
    return {f"p{n}.png": png((n % 256, 255 - n % 256, 7)) for n in range(start, start + count)}


def cache(source, path, encoder=None, options=SMALL, **more):
    return cache_images(source, encoder or FakeEncoder(), path, options=options, **more)


def content(path):
    """Everything that counts in a store: the bytes of its chunks and records."""
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.name.startswith(("c.", "0"))}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


def test_features_are_those_of_the_encoder_in_source_order(path):
    source, encoder = DictSource(pictures(20)), FakeEncoder(clip=True)
    report = cache(source, path, encoder)
    store = FeatureStore.open(path)
    got = FeatureBatch.concatenate(list(store.iter_batches()))
    assert got.ids == tuple(source.pictures)
    # p3 has the colour (3, 252, 7) all over: coarse and both fine rows point along (3, 252, 7, 1).
    expected = torch.nn.functional.normalize(torch.tensor([3.0, 252.0, 7.0, 1.0]), dim=0).half()
    assert torch.equal(got.coarse[3], expected)
    assert torch.equal(got[3:4].fine, expected.expand(2, 4))
    assert got.coarse_clip is not None
    assert store.groups() == [0, 1, 2]
    assert (report.items, report.done, report.failed, report.skipped) == (20, 20, 0, 0)
    assert report.bytes_written == store.nbytes
    assert report.reasons == {}
    assert report.items_per_second == pytest.approx(20 / report.seconds)
    assert tuple(report.stage_seconds) == STAGES
    assert all(seconds > 0 for seconds in report.stage_seconds.values())
    # Slices of 3 that end where groups of 8 end.
    assert encoder.batches == [3, 3, 2, 3, 3, 2, 3, 1]


def test_the_store_says_what_it_is(path):
    encoder = FakeEncoder()
    cache(DictSource(pictures(1)), path, encoder, CacheOptions(row_dtype="float32"))
    spec = FeatureStore.open(path).spec
    assert (spec.kind, spec.space_key, spec.recipe_key) == ("images", "space:fake", "img8:fake")
    assert (spec.dim, spec.rows_per_item_max, spec.row_dtype, spec.has_coarse_clip) == (4, 2, "float32", False)
    assert (spec.group_items, spec.chunk_items) == (1024, 64)
    assert spec.provenance == encoder.provenance
    assert spec.provenance["image_tower"] == "exact"  # as settled, not as it was meant at first
    assert spec.recipe == encoder.recipe


def test_broken_pictures_are_failed_items_with_a_reason(path):
    source = DictSource({"a": png("red"), "b": b"", "c": b"no picture", "d": png("blue"), "e": b""})
    report = cache(source, path)
    items = list(FeatureStore.open(path).ledger())
    assert [(i.id, i.status, i.size, i.modified_ns) for i in items] == [
        ("a", "done", len(png("red")), 1000),
        ("b", "failed", 0, 1001),
        ("c", "failed", 10, 1002),
        ("d", "done", len(png("blue")), 1003),
        ("e", "failed", 0, 1004),
    ]
    assert items[1].reason == "empty: no bytes"
    assert items[2].reason == "unknown-format: it is no picture of a known format"
    assert [i.content_hash for i in items] == [
        hashlib.blake2b(data, digest_size=16).digest() if data else None for data in source.pictures.values()
    ]
    assert (report.done, report.failed, report.reasons) == (2, 3, {"empty": 2, "unknown-format": 1})


def test_a_picture_that_the_preprocessing_cannot_take_fails_alone(path):
    encoder = FakeEncoder()
    encoder.preprocess.pixels = PickyPixels(encoder.preprocess.pixels.size)
    report = cache(DictSource({"a": png("red"), "b": png("red", (1, 5))}), path, encoder)
    assert (report.done, report.failed) == (1, 1)
    assert list(FeatureStore.open(path).ledger())[1].reason == "unexpected: ValueError: one pixel wide: bytes \\udcff"


@pytest.mark.parametrize("count", [1, 8, 11])
def test_a_run_of_nothing_but_failures_ends_properly(path, count):
    source = DictSource({f"{n}": b"" for n in range(count)})
    report = cache(source, path)
    assert (report.done, report.failed, report.reasons) == (0, count, {"empty": count})
    assert FeatureStore.open(path).counts() == {"done": 0, "failed": count}
    assert cache(source, path).skipped == count


def test_a_second_run_decodes_nothing(path):
    source = DictSource({**pictures(10), "bad": b""})
    cache(source, path)
    before = content(path)
    source.forget()
    report = cache(source, path)
    assert (report.items, report.done, report.failed, report.skipped) == (11, 0, 0, 11)
    assert (report.bytes_written, source.opened) == (0, [])
    assert content(path) == before


def test_new_pictures_are_added(path):
    source = DictSource(pictures(10))
    cache(source, path)
    source.pictures = {**pictures(3, start=100), **source.pictures}
    source.forget()
    report = cache(source, path)
    assert (report.done, report.skipped) == (3, 10)
    assert sorted(source.opened) == ["p100.png", "p101.png", "p102.png"]
    store = FeatureStore.open(path)
    assert [i.id for i in store.ledger()] == [*pictures(10), *pictures(3, start=100)]
    assert store.groups() == [0, 1, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("where", ["encoding", "reading the source", "reporting"])
def test_a_run_that_was_cut_off_goes_on_and_ends_as_an_undisturbed_one(path, tmp_path, error, where):
    source = DictSource({**pictures(19), "bad": b"", **pictures(5, start=50)})
    cache(source, tmp_path / "undisturbed")
    encoder = FakeEncoder()
    plain, calls = encoder.encode_pixels, []

    def encode_pixels(pixels, ids):
        calls.append(ids)
        if len(calls) == 5:
            raise error("cut off")
        return plain(pixels, ids)

    def report(progress):
        if progress.done >= 14:
            raise error("cut off")

    class CutSource(DictSource):
        def __iter__(self):
            for n, item in enumerate(super().__iter__()):
                if n == 17:
                    raise error("cut off")
                yield item

    cut = CutSource(source.pictures) if where == "reading the source" else source
    if where == "encoding":
        encoder.encode_pixels = encode_pixels
    with pytest.raises(error):
        cache(cut, path, encoder, progress=report if where == "reporting" else None)
    assert FeatureStore.open(path).groups() == [0]
    source.forget()
    resumed = cache(source, path)
    assert resumed.skipped == 8
    assert sorted(source.opened) == sorted(list(source.pictures)[8:])
    assert content(path) == content(tmp_path / "undisturbed")


def test_a_damaged_group_is_made_again_after_its_record_is_removed(path):
    source = DictSource(pictures(20))
    cache(source, path)
    before = content(path)
    (path / "fine" / "c.1.0").write_bytes(b"")
    (path / "commits" / "00000001.json").unlink()
    report = cache(source, path)
    assert (report.done, report.skipped) == (8, 12)
    assert content(path) == before


def test_another_space_recipe_kind_or_row_type_is_refused_before_any_work(path):
    source = DictSource(pictures(3))
    cache(source, path)
    before = content(path)
    source.forget()
    for encoder, options, words in [
        (FakeEncoder(space_key="space:other"), SMALL, r"'space:fake'.*'space:other'"),
        (FakeEncoder(recipe_key="img16:fake"), SMALL, r"'img8:fake'.*'img16:fake'"),
        (
            FakeEncoder(),
            CacheOptions(row_dtype="float32"),
            "row type float16, but this run has float32",
        ),
    ]:
        with pytest.raises(UserError, match=words):
            cache(source, path, encoder, options)
    assert source.opened == []
    assert content(path) == before


def test_an_id_that_comes_twice_is_refused(path):
    class Twice(DictSource):
        def __iter__(self):
            return iter([Picture("a", "a"), Picture("b", "a"), Picture("a", "a")])

    with pytest.raises(UserError, match="The id 'a' comes twice"):
        cache(Twice({"a": png("red")}), path)


def test_a_source_without_pictures_makes_no_store(path):
    for count in (True, False):
        with pytest.raises(UserError, match="nothing to cache"):
            cache(DictSource({}, count), path)
    assert not path.exists()


def test_too_little_space_is_said_before_any_work(path, monkeypatch):
    source = DictSource(pictures(20))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**12, 10**12, 1000))
    with pytest.raises(UserError) as caught:
        cache(source, path)
    assert re.search(r"20 items.* has 1e-06 GB free: .* are missing; .*--coarse-only", str(caught.value))
    assert source.opened == []
    assert not path.exists()
    # Without a count there is nothing to compare.
    assert cache(DictSource(pictures(20), count=False), path).done == 20
    # What is in the store already needs no more space.
    assert cache(source, path).skipped == 20


def test_progress_counts_up_to_the_report(path):
    seen = []
    source = DictSource({**pictures(9), "bad": b""})
    report = cache(source, path, progress=seen.append)
    assert [(p.done, p.failed) for p in seen] == [(0, 0), (3, 0), (6, 0), (8, 0), (9, 1), (9, 1)]
    assert all(p.total == 10 for p in seen)
    assert seen[0].estimated_bytes == FeatureStore.open(path).spec.estimate_bytes(10)
    assert seen[-1].stage_seconds == report.stage_seconds
    seen.clear()
    cache(DictSource(source.pictures, count=False), path, progress=seen.append)
    assert (seen[-1].skipped, seen[-1].total, seen[-1].estimated_bytes) == (10, None, None)


def test_coarse_only(path):
    cache(DictSource(pictures(3)), path, FakeEncoder(rows_per_image=0))
    store = FeatureStore.open(path)
    assert not store.spec.has_fine
    assert store.read_group(0).fine.shape == (0, 4)


def test_automatic_groups_stay_below_256_mebibytes():
    options = CacheOptions()
    assert group_sizes(options, 1024, 49) == (1024, 64)  # RN50 at 224 px: 107 MB
    assert group_sizes(options, 768, 576) == (256, 64)  # ViT-L/14 at 336 px: 1024 would take 909 MB
    assert group_sizes(options, 10**6, 1000) == (64, 64)
    assert group_sizes(CacheOptions(group_items=10), 4, 2) == (10, 10)
    assert group_sizes(CacheOptions(group_items=96), 4, 2) == (96, 48)
    assert group_sizes(CacheOptions(group_items=97), 4, 2) == (97, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"row_dtype": "float64"}, "Unknown row type 'float64'.*float32"),
        ({"slice_items": -1}, "slice_items is -1; it must be 0 or more"),
        ({"workers": -1}, "workers is -1; it must be 0 or more"),
        ({"group_items": -1}, "group_items is -1"),
    ],
)
def test_options_are_checked(change, words):
    with pytest.raises(UserError, match=words):
        CacheOptions(**change)


def test_a_store_that_somebody_filled_between_its_making_and_its_locking_is_left_alone(path, monkeypatch):
    """Two runs begin where there is no store; neither knows what the other one has done."""
    really = FeatureStore.create

    def create(place, spec):
        monkeypatch.undo()
        store = really(place, spec)
        cache(DictSource(pictures(3)), path)
        return store

    monkeypatch.setattr(FeatureStore, "create", create)
    with pytest.raises(UserError, match=r"Another process has filled the store .*run the same command again"):
        cache(DictSource(pictures(3)), path)
    assert [item.id for item in FeatureStore.open(path).ledger()] == ["p0.png", "p1.png", "p2.png"]
