import numpy as np
import pytest
import torch
from PIL import Image

from tai_benchmarks.photo_clip import bank_features as module
from tai_benchmarks.photo_clip.bank_features import extract_features, photograph_names, read_parts, read_pixels
from tai_benchmarks.photo_clip.image_tower import ARCHITECTURE, fold_batch_norms, in_order, load_tower
from tai_engine.errors import UserError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of the architecture under other names, in the same order."""
    import timm

    torch.manual_seed(1)
    state = timm.create_model(ARCHITECTURE).state_dict()
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save({f"other.{number}": value for number, value in enumerate(state.values())}, path)
    return path


def test_weights_are_paired_by_their_order(weights):
    model = load_tower(weights)
    given = torch.load(weights, weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), given.values(), strict=True))
    assert not model.training


def test_weights_of_another_model_are_refused(tmp_path):
    with pytest.raises(UserError, match="not those of tf_efficientnet_lite2"):
        in_order({"a": torch.zeros(2)}, {"b": torch.zeros(3)})
    with pytest.raises(UserError, match="There is no"):
        load_tower(tmp_path / "none.pth")


def test_folding_changes_nothing_but_the_last_bits(weights):
    model, folded = load_tower(weights).double(), fold_batch_norms(load_tower(weights).double())
    pixels = torch.randn(2, 3, 70, 70, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        expected = model.forward_features(pixels)
        torch.testing.assert_close(folded.forward_features(pixels), expected, atol=1e-10, rtol=0)
    assert not [part for part in folded.modules() if isinstance(part, torch.nn.BatchNorm2d)]


def test_pixels_are_the_middle_of_the_picture_normalised(tmp_path):
    picture = np.zeros((20, 40, 3), dtype=np.uint8)
    picture[:, 10:30] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    pixels = read_pixels(tmp_path / "a.png", 20)
    assert pixels.shape == (3, 20, 20)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, 1.0, rtol=1e-6)  # (255 - 127) / 128


def test_features_come_in_parts_and_parts_that_are_there_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART", 2)
    photographs, out = tmp_path / "photographs", tmp_path / "features"
    photographs.mkdir()
    for number in range(5):
        Image.new("RGB", (8, 8), (number * 10, 0, 0)).save(photographs / f"{number}.jpg", quality=100, subsampling=0)
    names = photograph_names(photographs)
    assert names == ("0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    calls = []

    def runner(_weights, size):
        def run(pixels):
            calls.append(len(pixels))
            maps = np.zeros((len(pixels), module.WIDTH, 2, 2), dtype=np.float32)
            maps[:, 0] = pixels[:, 0, ::4, ::4]
            return maps

        return run

    monkeypatch.setattr(module, "tower_runner", runner)
    extract_features(photographs, names, tmp_path / "w", 8, out, lambda _: None)
    assert calls == [2, 2, 1]
    parts = list(read_parts(out))
    assert [tuple(part.shape) for part in parts] == [(2, 4, module.WIDTH)] * 2 + [(1, 4, module.WIDTH)]
    red = torch.cat(parts)[:, 0, 0] * 128 + 127
    torch.testing.assert_close(red.float(), torch.tensor([0.0, 10, 20, 30, 40]), atol=1.5, rtol=0)
    (out / "00002.npy").unlink()
    extract_features(photographs, names, tmp_path / "w", 8, out, lambda _: None)
    assert calls == [2, 2, 1, 2]


def test_a_folder_without_photographs_is_named(tmp_path):
    with pytest.raises(UserError, match=r"There are no photographs \(\*\.jpg\)"):
        photograph_names(tmp_path)
