"""timm's towers with a class token: patches by another attention in the last block, held against layers written out."""

import pytest
import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel

from tai_engine.encoders.dense import class_token_vectors, image_recipe
from tai_engine.encoders.fast.gate import fast_tower
from tai_engine.encoders.timm_tokens import (
    ExchangedAttention,
    has_class_token,
    no_token_recipe,
    patches_per_picture,
    timm_token_vectors,
)

VIT, EVA = ("test_vit", 160, 100), ("eva02_tiny_patch14_224", 224, 256)


def token_tower(architecture, size, proj="linear", pool="token"):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return TimmModel(architecture, 24, image_size=size, pool=pool, proj=proj).eval()


def noise(size, count=2):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("architecture", "size", "patches"), [VIT, EVA])
def test_the_blocks_own_attention_gives_the_models_own_tokens(architecture, size, patches):
    visual = token_tower(architecture, size)
    with torch.no_grad():
        coarse, fine = timm_token_vectors(visual, noise(size), F.scaled_dot_product_attention)
        own = visual.trunk.forward_features(noise(size))
        # What the head does to a class token, it does to each patch.
        expected = visual.head(own[:, 1:])
        if visual.trunk.fc_norm is not None:
            expected = visual.head(visual.trunk.fc_norm(own[:, 1:]))
    assert torch.equal(coarse, visual(noise(size)))
    assert fine.shape == (2, patches, 24)
    torch.testing.assert_close(fine, expected, atol=1e-6, rtol=0)
    assert patches_per_picture(visual, size) == patches
    assert no_token_recipe(visual, size) == ""


@pytest.mark.parametrize("attention", ["sclip", "value"])
def test_a_vits_last_block_written_out(attention):
    visual = token_tower("test_vit", 160)
    trunk, inputs = visual.trunk, []
    handle = trunk.blocks[-1].register_forward_pre_hook(lambda _module, args: inputs.append(args[0]))
    with torch.no_grad():
        found = class_token_vectors(visual, noise(160), attention)
        handle.remove()
        block, x = trunk.blocks[-1], inputs[0].double()
        own = block.attn.double()
        query, key, value = F.linear(
            block.norm1.double()(x), own.qkv.weight, own.qkv.bias
        ).reshape(2, 101, 3, own.num_heads, -1).permute(2, 0, 3, 1, 4)  # fmt: skip
        if attention == "sclip":
            scale = query.shape[-1] ** -0.5
            weights = (query @ query.mT * scale).softmax(-1) + (key @ key.mT * scale).softmax(-1)
            value = weights @ value
        x = x + block.ls1.double()(own.proj(value.transpose(1, 2).flatten(2)))
        x = x + block.ls2.double()(block.mlp.double()(block.norm2.double()(x)))
        expected = visual.head.double()(trunk.norm.double()(x))[:, 1:]
    torch.testing.assert_close(found.fine.double(), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("proj", ["linear", ""])
def test_the_recipe_tells_its_name_and_its_rows(proj):
    visual = token_tower("test_vit", 160, proj)
    assert has_class_token(visual)
    for dense, name in (("auto", "sclip"), ("value", "value")):
        recipe = image_recipe(visual, 160, dense)
        assert (recipe.dense, recipe.coarse, recipe.rows_per_image) == (name, "clip", 100)
        with torch.no_grad():
            vectors = recipe.compute(noise(160))
            expected = class_token_vectors(visual, noise(160), name)
        assert torch.equal(vectors.fine, expected.fine)
        assert torch.equal(vectors.coarse, visual(noise(160)))
        assert vectors.coarse_clip is None
    assert image_recipe(visual, 160, "none").rows_per_image == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_fast_tower_gives_the_same(precision):
    visual = token_tower("test_vit", 160)
    recipe = image_recipe(visual, 160)
    fast = fast_tower(recipe, visual, 160, precision, torch.device("cpu"))
    with torch.no_grad():
        found, expected = fast.compute(noise(160)), recipe.compute(noise(160))
    for one, other in zip(found[:2], expected[:2], strict=True):
        assert F.cosine_similarity(one.float(), other, dim=-1).min() > 0.999


def test_a_head_that_does_more_than_take_the_first_token_has_no_patches():
    visual = token_tower("test_vit", 160)
    take = visual.trunk.forward_head
    visual.trunk.forward_head = lambda tokens: take(tokens) + tokens.mean(dim=1)
    assert "not what its last block gives" in no_token_recipe(visual, 160)


def test_attention_that_is_written_out_in_the_block_cannot_be_exchanged():
    visual = token_tower("test_vit", 160)
    visual.trunk.blocks[-1].attn.fused_attn = False
    assert "cannot be exchanged" in no_token_recipe(visual, 160)
    recipe = image_recipe(visual, 160)
    assert (recipe.dense, recipe.rows_per_image) == ("none", 0)


def test_attention_under_a_mask_is_refused():
    rows = torch.ones(1, 1, 2, 2)
    with ExchangedAttention(lambda query, key, value: value) as exchanged:
        assert torch.equal(F.scaled_dot_product_attention(rows, rows, 2 * rows), 2 * rows)
        with pytest.raises(ValueError, match="has a mask"):
            F.scaled_dot_product_attention(rows, rows, rows, attn_mask=torch.ones(2, 2, dtype=torch.bool))
        with pytest.raises(ValueError, match="has a mask"):
            F.scaled_dot_product_attention(rows, rows, rows, is_causal=True)
    assert exchanged.calls == 1
