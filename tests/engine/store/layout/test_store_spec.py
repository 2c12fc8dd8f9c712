"""Sizes of groups and chunks by hand, estimates, and what may go on filling a store."""

import re

import pytest

from feature_samples import small_spec
from tai_engine.errors import UserError
from tai_engine.store import StoreSpec

RN50 = {"kind": "images", "space_key": "s", "recipe_key": "r", "dim": 1024, "rows_per_item_max": 49}


def test_layout_of_rn50_images():
    spec = StoreSpec(**RN50)
    assert (spec.group_items, spec.chunk_items, spec.row_dtype) == (1024, 64, "float16")
    assert spec.fine_chunk_rows == 64 * 49 == 3136
    assert spec.group_rows == 1024 * 49 == 50176  # 16 chunks exactly
    assert spec.has_fine


def test_layout_of_sentences_is_rounded_up_to_whole_chunks():
    spec = StoreSpec(**{**RN50, "kind": "sentences", "rows_per_item_max": 77})
    assert spec.fine_chunk_rows == 4096
    assert spec.group_rows == 81920  # 1024 * 77 = 78848 is 19.25 chunks


def test_layout_without_fine_rows():
    spec = small_spec(rows_per_item_max=0)
    assert (spec.has_fine, spec.fine_chunk_rows, spec.group_rows) == (False, 0, 0)


def test_estimate_by_hand():
    # 2 items: one chunk of coarse (2*8*2+4 = 36 bytes), one of fine (6*8*2+4 = 100), ids and counts 84 each,
    # status, count, size and time of 6 slots: 6 * 21 = 126.
    per_slot = 6 * 21
    assert small_spec().estimate_bytes(0) == 0
    assert small_spec().estimate_bytes(2) == 36 + 100 + 2 * 84 + per_slot
    assert small_spec().estimate_bytes(3) == 2 * (36 + 100) + 3 * 84 + per_slot
    assert small_spec().estimate_bytes(7) == 4 * (36 + 100) + 7 * 84 + 2 * per_slot
    assert small_spec(has_coarse_clip=True).estimate_bytes(2) == 36 + 36 + 100 + 2 * 84 + per_slot
    assert small_spec(rows_per_item_max=0).estimate_bytes(2) == 36 + 2 * 84 + per_slot
    assert small_spec(row_dtype="float32").estimate_bytes(2) == 68 + 196 + 2 * 84 + per_slot
    assert small_spec().estimate_bytes(2, rows_per_item=0) == 36 + 2 * 84 + per_slot


def test_a_million_rn50_images_take_about_a_hundred_gigabytes():
    assert StoreSpec(**RN50).estimate_bytes(10**6) == pytest.approx(102.6e9, rel=2e-3)
    # 49 x 1,024 bytes and as many scales of four bytes, a coarse vector of 2,048 bytes, and some 110 bytes beside.
    assert StoreSpec(**RN50, row_dtype="int8").estimate_bytes(10**6) == pytest.approx(52.5e9, rel=2e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "videos"}, "kind is 'videos'"),
        ({"row_dtype": "int4"}, "row_dtype is 'int4'"),
        ({"dim": 0}, "dim is 0"),
        ({"rows_per_item_max": -1}, "rows_per_item_max is -1, expected a whole number from 0 to 65,536"),
        ({"chunk_items": 4}, "not a multiple"),
        ({"chunk_items": 0}, "chunk_items is 0, expected a whole number from 1"),
        ({"group_items": 10**12}, "group_items is 1000000000000, expected"),
        ({"dim": 65_536, "rows_per_item_max": 65_536, "row_dtype": "float32"}, "is larger than 68,719,476,736 bytes"),
        ({"dim": "8"}, "dim is '8', expected a whole number"),
        ({"dim": True}, "dim is True"),
        ({"has_text": 1}, "has_text is 1, expected true or false"),
        ({"space_key": None}, "space_key is None, expected text"),
        ({"recipe": []}, "recipe is [], expected an object"),
    ],
)
def test_values_that_make_no_sense_are_refused(change, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        small_spec(**change)


def test_attributes_come_back():
    spec = small_spec(has_coarse_clip=True, provenance={"model": "RN50"}, recipe={"image_size": 224})
    assert StoreSpec.from_attributes(spec.to_attributes(), "x") == spec
    assert spec.to_attributes()["schema_version"] == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "sentences"}, ["holds images, not sentences"]),
        ({"space_key": "space:2"}, ["'space:1'", "'space:2'"]),
        ({"recipe_key": "recipe:2"}, ["'recipe:1'", "'recipe:2'", "choose another store"]),
        ({"row_dtype": "float32"}, ["row type float16", "has float32"]),
        ({"rows_per_item_max": 0}, ["fine rows per item 3", "has 0"]),
        ({"has_coarse_clip": True}, ["second coarse vector False", "has True"]),
    ],
)
def test_a_store_is_only_filled_with_its_like(change, words):
    with pytest.raises(UserError) as caught:
        small_spec().require_compatible(small_spec(**change), "the/path")
    for word in [*words, "the/path"]:
        assert word in str(caught.value)


def test_group_sizes_and_provenance_may_differ():
    small_spec().require_compatible(small_spec(group_items=64, chunk_items=64, provenance={"torch": "9"}), "x")
