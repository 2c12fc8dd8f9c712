"""What is found is what an exact product ranks first."""

import pytest
import torch
from PIL import Image

from feature_samples import small_spec, write_group
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.searching.likeness import vectors_like
from tai_engine.searching.search import Hit, search_like, search_words
from tai_engine.searching.search_sheet import draw_found
from tai_engine.store import FeatureStore, StoredItem

ITEMS, DIM, ROWS = 40, 16, 3


def unit(*shape, seed):
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    spec = small_spec(dim=DIM, rows_per_item_max=ROWS, group_items=64)
    made = FeatureStore.create(tmp_path_factory.mktemp("search") / "s.zarr", spec)
    names = tuple(f"p/{n}.jpg" for n in range(ITEMS))
    batch = FeatureBatch(
        names,
        unit(ITEMS, DIM, seed=1).half(),
        unit(ITEMS * ROWS, DIM, seed=2).half(),
        torch.arange(ITEMS + 1) * ROWS,
        spec.space_key,
    )
    write_group(made, 0, [StoredItem(name) for name in names], [batch])
    return made


def prompts(count, store, seed):
    vectors = unit(count, DIM, seed=seed)
    names = tuple(f"{seed}-{n}" for n in range(count))
    return PromptSet(names, vectors, vectors, store.spec.space_key, logit_scale=100.0)


def test_words_are_measured_against_what_is_usual_for_each_picture(store):
    queries, background = prompts(2, store, 3), prompts(25, store, 4)
    batch = store.read_group(0).to(dtype=torch.float32)
    raw_NQ, usual_NB = (100 * batch.coarse @ p.global_vectors.T for p in (queries, background))
    expected_NQ = (raw_NQ - usual_NB.mean(1, keepdim=True)) / usual_NB.std(1, keepdim=True)
    for query, hits in enumerate(search_words(store, queries, background, top=7)):
        best = expected_NQ[:, query].topk(7)
        assert [hit.id for hit in hits] == [batch.ids[n] for n in best.indices]
        assert [hit.score for hit in hits] == pytest.approx(best.values.tolist(), abs=0.02)
    raw = search_words(store, queries, None, top=3)
    assert [hit.id for hit in raw[1]] == [batch.ids[n] for n in raw_NQ[:, 1].topk(3).indices]


def test_more_pictures_than_there_are(store):
    (hits,) = search_words(store, prompts(1, store, 3), None, top=100)
    assert len(hits) == ITEMS
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_the_merged_score_reads_the_patches(store):
    queries = prompts(1, store, 5)
    coarse, merged = (search_words(store, queries, None, top=40, which=which)[0] for which in ("coarse", "merged"))
    assert coarse != merged


def test_a_picture_is_most_like_itself(store):
    vectors = vectors_like(["p/7.jpg", "p/3.jpg"], store, encoder=None)
    found = search_like(store, vectors, top=2)
    assert [hits[0].id for hits in found] == ["p/7.jpg", "p/3.jpg"]
    assert found[0][0].score == pytest.approx(1, abs=2e-3)
    with pytest.raises(UserError, match=r"'p/99\.jpg' is neither a file nor a picture in the store"):
        vectors_like(["p/99.jpg"], store, encoder=None)


def test_what_cannot_be_searched_is_said(store):
    with pytest.raises(UserError, match="The background has 19 words; 20 are needed"):
        search_words(store, prompts(1, store, 3), prompts(19, store, 4))
    with pytest.raises(UserError, match="pictures to find is 0"):
        search_words(store, prompts(1, store, 3), top=0)
    with pytest.raises(UserError, match="pictures to find is 0"):
        search_like(store, unit(1, DIM, seed=0), top=0)
    other = PromptSet(("x",), unit(1, DIM, seed=0), unit(1, DIM, seed=0), "another", logit_scale=1.0)
    with pytest.raises(UserError, match="the query is of 'another'"):
        search_words(store, other)


def test_the_sheet_has_a_frame_for_each_hit(tmp_path):
    Image.new("RGB", (300, 200), "red").save(tmp_path / "a.jpg")
    hits = [Hit("a.jpg", 2.0), Hit("gone.jpg", 1.0), Hit("../a.jpg", 0.5)]
    assert draw_found([("dog", hits)], tmp_path, tmp_path / "sheet.png") == 2
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.convert("RGB").getpixel((112, 136))[0] > 250


def test_pictures_on_the_sheet_are_those_that_were_encoded(tmp_path):
    """Upright, and whatever stands in their metadata."""
    exif = Image.Exif()
    exif[0x0112] = 6  # what is at the left is to be above
    halves = Image.new("RGB", (300, 200), "blue")
    halves.paste("red", (0, 0, 150, 200))
    halves.save(tmp_path / "a.jpg", exif=exif)
    halves.save(tmp_path / "b.png")
    data = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[:33] + b"\0\0\0\1gAMA\1\0\0\0\0" + data[33:])
    assert draw_found([("dog", [Hit("a.jpg", 2.0), Hit("b.png", 1.0)])], tmp_path, tmp_path / "sheet.png") == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        above, below = (sheet.convert("RGB").getpixel((112, y)) for y in (90, 180))
    assert above[0] > 200 > 50 > above[2]
    assert below[2] > 200 > 50 > below[0]
