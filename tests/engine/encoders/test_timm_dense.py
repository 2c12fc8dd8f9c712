"""timm's towers: vectors of every location, held against the tower's own layers written out."""

import logging

import pytest
import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel

from tai_engine.encoders import load_encoder
from tai_engine.encoders.dense import image_recipe
from tai_engine.encoders.timm_dense import no_timm_recipe, rows_per_picture, timm_vectors

CONVOLUTIONAL = ["resnet10t", "tf_efficientnet_lite0", "mobileone_s0", "test_byobnet", "fastvit_t8"]


def tower(architecture, size=96, pool="avg", proj="linear", bias=True, dim=24):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        visual = TimmModel(architecture, dim, image_size=size, pool=pool, proj=proj, proj_bias=bias).eval()
        with torch.no_grad():
            for module in visual.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.normal_(std=0.1)
                    module.running_var.uniform_(0.5, 1.5)
    return visual


def noise(size, count=2):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("architecture", CONVOLUTIONAL)
@pytest.mark.parametrize("size", [96, 75])
def test_the_coarse_vector_is_the_towers_own_and_the_mean_of_the_fine_ones(architecture, size):
    visual = tower(architecture, size)
    with torch.no_grad():
        coarse, fine = timm_vectors(visual, noise(size))
        own = visual(noise(size))
    assert torch.equal(coarse, own)
    assert (fine.mean(dim=1) - coarse).abs().max() <= 1e-6 * max(1, float(coarse.abs().max()))
    assert fine.std(dim=1).max() > 1e-4  # locations differ


def test_each_location_goes_through_the_projection_in_rows_of_the_map():
    visual = tower("resnet10t")
    with torch.no_grad():
        maps = visual.trunk.forward_features(noise(96))
        _, fine = timm_vectors(visual, noise(96))
    expected = torch.einsum("nchw,dc->nhwd", maps, visual.head.proj.weight) + visual.head.proj.bias
    torch.testing.assert_close(fine, expected.flatten(1, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("size", "rows"), [(32, 1), (33, 4), (64, 4), (75, 9), (96, 9), (100, 16)])
def test_a_tower_of_stride_32_has_a_row_for_every_begun_cell_of_32_pixels(size, rows):
    assert rows_per_picture(tower("tf_efficientnet_lite0", size), size) == rows


def test_a_tower_without_a_projection_of_its_own_uses_its_classifier():
    visual = tower("resnet10t", proj="")
    with torch.no_grad():
        coarse, fine = timm_vectors(visual, noise(96))
    assert fine.shape == (2, 9, 24)
    torch.testing.assert_close(fine.mean(dim=1), coarse, atol=1e-6, rtol=0)


def test_a_vit_that_averages_its_patches_is_dense():
    visual = tower("vit_medium_patch16_gap_240", 240, pool="")
    assert no_timm_recipe(visual, 240) == ""
    with torch.no_grad():
        coarse, fine = timm_vectors(visual, noise(240, 1))
    assert fine.shape == (1, 225, 24)
    torch.testing.assert_close(fine.mean(dim=1), coarse, atol=1e-6, rtol=0)


def test_a_norm_behind_the_average_is_taken_at_every_location():
    visual = tower("test_convnext", pool="")
    head = visual.trunk.head
    assert no_timm_recipe(visual, 96) == ""
    with torch.no_grad():
        maps = visual.trunk.forward_features(noise(96))
        coarse, fine = timm_vectors(visual, noise(96))
        rows = F.layer_norm(maps.permute(0, 2, 3, 1), maps.shape[1:2], head.norm.weight, head.norm.bias, head.norm.eps)
    torch.testing.assert_close(fine, visual.head(rows).flatten(1, 2), atol=1e-6, rtol=0)
    assert torch.equal(coarse, visual(noise(96)))


@pytest.mark.parametrize("pool", ["abs_attn", "max"])
def test_a_head_that_is_no_mean_of_locations_is_said_to_be_none(pool):
    assert "otherwise than by the mean" in no_timm_recipe(tower("resnet10t", pool=pool), 96)


def test_a_head_that_fails_on_a_single_location_is_said_to_take_none():
    visual = tower("resnet10t")
    visual.trunk.forward_head = lambda maps: maps.unfold(2, 2, 1).mean(dim=(2, 3, 4))
    assert "takes no single location" in no_timm_recipe(visual, 96)


def test_features_that_are_no_map_have_no_locations():
    visual = tower("resnet10t")
    visual.trunk.forward_features = lambda pixels: pixels.mean(dim=(2, 3))
    assert "takes no single location" in no_timm_recipe(visual, 96)


def test_the_recipe_tells_its_name_and_its_rows():
    recipe = image_recipe(tower("resnet10t", 100), 100)
    assert (recipe.dense, recipe.coarse, recipe.rows_per_image) == ("head", "clip", 16)
    vectors = recipe.compute(noise(100))
    assert vectors.fine.shape == (2, 16, 24)
    assert vectors.coarse_clip is None


def test_the_value_path_of_a_convolutional_tower_is_its_only_path():
    visual = tower("resnet10t")
    with torch.no_grad():
        assert torch.equal(
            image_recipe(visual, 96, "value").compute(noise(96)).fine, timm_vectors(visual, noise(96))[1]
        )


def test_an_encoder_gives_unit_rows_in_order_and_says_nothing_of_missing_patches(model_folder, caplog):
    with caplog.at_level(logging.WARNING):
        encoder = load_encoder(model_folder("timm"), device="cpu", precision="fp32", fast=False, image_size=80)
    assert not [record for record in caplog.records if "coarse vectors only" in record.message]
    batch = encoder.encode_normalised(noise(80, 3), ["a", "b", "c"])
    with torch.no_grad():
        coarse, fine = timm_vectors(encoder.model.visual, noise(80, 3))
    assert encoder.recipe["dense"] == "head"
    assert batch.offsets.tolist() == [0, 9, 18, 27]
    torch.testing.assert_close(batch.coarse, F.normalize(coarse, dim=-1), atol=2e-6, rtol=0)
    torch.testing.assert_close(batch.fine, F.normalize(fine, dim=-1).flatten(0, 1), atol=2e-6, rtol=0)
