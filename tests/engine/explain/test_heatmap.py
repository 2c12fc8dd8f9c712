import numpy as np
import pytest
import torch
from PIL import Image

from feature_samples import done, random_batch, small_spec, write_group
from tai_engine.decoding.pixels import SquarePixels
from tai_engine.errors import UserError
from tai_engine.explain.heatmap import grid_box, similarity_grid
from tai_engine.features import FeatureBatch, quantise_rows
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore

NAMES = ("x", "y", "z")


def prompts_of(space_key="space:1", dim=3):
    vectors = torch.eye(dim)
    names = NAMES[:dim] if dim <= 3 else tuple(map(str, range(dim)))
    # The global vectors are others, so that a mix-up shows.
    return PromptSet(names, vectors.flip(0), vectors, space_key, 100.0)


def picture(rows, **changes):
    fine = torch.tensor(rows, dtype=torch.float32)
    values = {
        "ids": ("a.jpg",),
        "coarse": torch.eye(3)[:1],
        "fine": fine,
        "offsets": torch.tensor([0, len(rows)]),
        "space_key": "space:1",
    }
    return FeatureBatch(**{**values, **changes})


ROWS = [[1, 0, 0], [0, 1, 0], [0.6, 0.8, 0], [0, 0.6, -0.8]]


def test_patches_lie_in_rows_from_the_top_left():
    grid = similarity_grid(picture(ROWS), prompts_of(), ("y", "x"))
    expected = torch.tensor([[[0, 1], [0.8, 0.6]], [[1, 0], [0.6, 0]]])
    torch.testing.assert_close(grid, expected)
    assert grid.dtype == torch.float32


def test_int8_rows_give_the_same_within_their_rounding():
    fine, scales = quantise_rows(torch.tensor(ROWS))
    grid = similarity_grid(picture(ROWS, fine=fine, fine_scales=scales), prompts_of(), NAMES)
    torch.testing.assert_close(grid, similarity_grid(picture(ROWS), prompts_of(), NAMES), atol=0.004, rtol=0)


def test_one_item_of_a_store(tmp_path):
    store = FeatureStore.create(tmp_path / "s.zarr", small_spec(rows_per_item_max=4))
    batch = random_batch("abc", [4, 4, 4])
    write_group(store, 0, done("a", "b", "c"), [batch])
    grid = similarity_grid(store.read_ids(["b"]), prompts_of(dim=8), ["2", "5"])
    np.testing.assert_array_equal(grid.numpy(), batch.fine[4:8, [2, 5]].float().T.reshape(2, 2, 2).numpy())


def test_no_tags_is_an_empty_grid():
    assert similarity_grid(picture(ROWS), prompts_of(), ()).shape == (0, 2, 2)


def test_what_has_no_heatmap():
    with pytest.raises(UserError, match=r"'a.jpg'.*--coarse-only"):
        similarity_grid(picture([], fine=torch.zeros(0, 3), offsets=torch.tensor([0, 0])), prompts_of(), ("x",))
    with pytest.raises(UserError, match="Unknown tag 'w'"):
        similarity_grid(picture(ROWS), prompts_of(), ("w",))
    with pytest.raises(UserError, match="space:2"):
        similarity_grid(picture(ROWS), prompts_of("space:2"), ("x",))
    with pytest.raises(ValueError, match="3 patches are no square"):
        similarity_grid(picture(ROWS[:3]), prompts_of(), ("x",))
    with pytest.raises(ValueError, match="2 items"):
        similarity_grid(random_batch("ab", [4, 4], dim=3, dtype=torch.float32), prompts_of(), ("x",))


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(300, 200), (200, 300), (90, 90), (500, 100)])
def test_the_box_is_what_the_model_sees(mode, size):
    """A picture whose colours are its own coordinates: the model's input says where it was cut."""
    width, height = size
    red = np.broadcast_to((np.arange(width) + 0.5) / width * 200 + 50, (height, width))
    green = np.broadcast_to(((np.arange(height) + 0.5) / height * 200 + 50)[:, None], (height, width))
    image = Image.fromarray(np.stack([red, green, np.full_like(red, 255)], -1).round().astype(np.uint8))
    side = 96
    seen = SquarePixels(side, mode)(image).astype(float)
    left, top, right, bottom = grid_box(size, {"resize_mode": mode})
    middle = (np.arange(side) + 0.5) / side
    inside = seen[2] > 250
    np.testing.assert_array_less(1000, inside.sum())
    for channel, low, high, axis in ((0, left, right, 1), (1, top, bottom, 0)):
        expected = np.expand_dims(low + middle * (high - low), 1 - axis) + np.zeros((side, side))
        found = (seen[channel] - 50) / 200
        away_from_edges = inside & (expected > 0.06) & (expected < 0.94)
        pixel = 1.5 * (high - low) / side + 0.006  # half a pixel of cutting, half of rounding, and colours in steps
        assert np.abs(found - expected)[away_from_edges].max() < pixel


def test_the_recipe_of_older_stores_crops():
    assert grid_box((400, 200), {}) == (0.25, 0.0, 0.75, 1.0)
    assert grid_box((400, 200), {"resize_mode": "longest"}) == (0.0, -0.5, 1.0, 1.5)
