import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import resize_pos_embed
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from tai_engine.encoders import load_encoder
from tai_engine.encoders.dense import last_block_tokens
from tai_engine.encoders.positions import interpolate_positions
from tai_engine.errors import UserError


def pictures(count, size=(90, 70)):
    rng = np.random.default_rng(3)
    return [Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(count)]


def names(count):
    return [f"picture {i}" for i in range(count)]


def close(actual, expected, atol=2e-6):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


def textbook_pool(pool, x_NLE, positions):
    """CLIP's attention pool written out, for every token as query, in fp64."""
    weights = {k: v.double() for k, v in pool.state_dict().items()}
    x = torch.cat([x_NLE.mean(1, keepdim=True), x_NLE], 1).double()
    if positions:
        x = x + weights["positional_embedding"]
    q, k, v = (x @ weights[f"{p}_proj.weight"].T + weights[f"{p}_proj.bias"] for p in "qkv")
    q, k, v = (t.unflatten(-1, (pool.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
    attention = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    mixed = (attention @ v).transpose(1, 2).flatten(2)
    return (mixed @ weights["c_proj.weight"].T + weights["c_proj.bias"])[:, 0].float()


@pytest.mark.parametrize("image_size", [64, 96, 32])
def test_resnet_vectors_equal_the_formula(tiny_encoder, image_size):
    encoder = tiny_encoder("resnet", image_size=image_size)
    pixels = torch.randn(3, 3, image_size, image_size, generator=torch.Generator().manual_seed(1))
    visual, pool = encoder.model.visual, encoder.model.visual.attnpool
    with torch.no_grad():
        x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels)))))
        x_NLE = x.flatten(2).transpose(1, 2)
        patches = F.linear(pool.v_proj(x_NLE), pool.c_proj.weight, pool.c_proj.bias)
        own = visual(pixels)  # open_clip's own forward, with the interpolated positional embedding
    batch = encoder.encode_normalised(pixels, names(3))
    side = image_size // 32
    assert encoder.rows_per_image == side * side
    assert batch.counts.tolist() == [side * side] * 3
    close(batch.coarse_clip, F.normalize(own, dim=-1))
    close(batch.coarse_clip, F.normalize(textbook_pool(pool, x_NLE, positions=True), dim=-1))
    close(batch.coarse, F.normalize(textbook_pool(pool, x_NLE, positions=False), dim=-1))
    close(batch.fine.view(len(batch), -1, batch.dim), F.normalize(patches, dim=-1))
    assert (batch.coarse - batch.coarse_clip).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["vit", "vit-layer-scale"])
@pytest.mark.parametrize("image_size", [64, 96])
def test_vit_coarse_is_the_class_token_and_fine_is_sclip(tiny_encoder, kind, image_size):
    encoder = tiny_encoder(kind, image_size=image_size)
    pixels = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(2))
    visual = encoder.model.visual
    batch = encoder.encode_normalised(pixels, names(2))
    assert encoder.rows_per_image == (image_size // 16) ** 2
    assert batch.coarse_clip is None
    with torch.no_grad():
        assert torch.equal(batch.coarse, F.normalize(visual(pixels), dim=-1))
        # SCLIP written out: two softmaxes over the tokens, added; residual, MLP, ln_post and projection as they are.
        block = visual.transformer.resblocks[-1]
        x = visual._embeds(pixels)
        for earlier in visual.transformer.resblocks[:-1]:
            x = earlier(x)
        q, k, v = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (t.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        root = q.shape[-1] ** 0.5
        weights = (q @ q.mT / root).softmax(-1) + (k @ k.mT / root).softmax(-1)
        y = x + block.ls_1(block.attn.out_proj((weights @ v).transpose(1, 2).flatten(2)))
        y = y + block.ls_2(block.mlp(block.ln_2(y)))
        expected = visual.ln_post(y)[:, 1:] @ visual.proj
    close(batch.fine.view(len(batch), -1, batch.dim), F.normalize(expected, dim=-1))


@pytest.mark.parametrize("kind", ["vit", "vit-layer-scale"])
def test_the_qk_control_reproduces_the_last_block(tiny_encoder, kind):
    visual = tiny_encoder(kind).model.visual
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        x = visual._embeds(pixels)
        for earlier in visual.transformer.resblocks[:-1]:
            x = earlier(x)
        tokens = last_block_tokens(visual.transformer.resblocks[-1], x, "qk")
        close(visual.ln_post(tokens)[:, 0] @ visual.proj, visual(pixels))
    with pytest.raises(ValueError, match="'sclip', 'value' or 'qk'"):
        last_block_tokens(visual.transformer.resblocks[-1], x, "kv")


def test_the_value_path_lets_every_token_see_itself_alone(tiny_encoder):
    encoder = tiny_encoder("vit", dense="value")
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    visual = encoder.model.visual
    with torch.no_grad():
        block = visual.transformer.resblocks[-1]
        x = visual._embeds(pixels)
        for earlier in visual.transformer.resblocks[:-1]:
            x = earlier(x)
        width = x.shape[-1]
        v = F.linear(block.ln_1(x), block.attn.in_proj_weight[2 * width :], block.attn.in_proj_bias[2 * width :])
        y = x + block.attn.out_proj(v)
        y = y + block.mlp(block.ln_2(y))
        expected = visual.ln_post(y)[:, 1:] @ visual.proj
    batch = encoder.encode_normalised(pixels, names(2))
    close(batch.fine.view(len(batch), -1, batch.dim), F.normalize(expected, dim=-1))
    sclip = tiny_encoder("vit").encode_normalised(pixels, names(2))
    assert (sclip.fine - batch.fine).abs().max() > 1e-3
    assert torch.equal(sclip.coarse, batch.coarse)


def test_interpolated_positions_equal_those_of_open_clip(tiny_encoder):
    visual = tiny_encoder("vit").model.visual
    positions = visual.positional_embedding

    class Wanted:
        class visual:  # noqa: N801
            grid_size = (7, 7)

    state = {"visual.positional_embedding": positions}
    resize_pos_embed(state, Wanted)
    assert torch.equal(interpolate_positions(positions, 7), state["visual.positional_embedding"])
    assert interpolate_positions(positions, 4) is positions


def test_a_constant_grid_stays_constant_and_the_first_row_is_kept():
    positions = torch.cat([torch.full((1, 3), 9.0), torch.tensor([[1.0, 2.0, 3.0]]).expand(9, 3)])
    resized = interpolate_positions(positions, 5)
    close(resized, torch.cat([torch.full((1, 3), 9.0), torch.tensor([[1.0, 2.0, 3.0]]).expand(25, 3)]))


@pytest.mark.parametrize("kind", ["vit-average-pool", "vit-custom-block", "coca"])
def test_towers_without_a_dense_recipe_give_coarse_only_and_say_so(model_folder, caplog, kind):
    with caplog.at_level(logging.WARNING):
        encoder = load_encoder(model_folder(kind), device="cpu", precision="fp32")
    assert [r.message for r in caplog.records if "coarse vectors only, no patches" in r.message]
    size = encoder.image_size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(6))
    batch = encoder.encode_normalised(pixels, names(2))
    with torch.no_grad():
        output = encoder.model.visual(pixels)
    close(batch.coarse, F.normalize(output[0] if isinstance(output, tuple) else output, dim=-1))
    assert encoder.rows_per_image == 0
    assert batch.fine.shape == (0, encoder.dim)
    assert batch.offsets.tolist() == [0, 0, 0]
    assert encoder.recipe["dense"] == "none"
    with pytest.raises(UserError, match=r"no dense recipe for this model: its .*--coarse-only"):
        load_encoder(model_folder(kind), device="cpu", dense="value")


def test_a_timm_tower_takes_another_size_or_says_that_it_cannot(model_folder, tiny_encoder):
    encoder = tiny_encoder("timm-vit", image_size=96)
    assert encoder.encode_images(pictures(1), ["a"]).coarse.shape == (1, 24)
    assert encoder.space_key == tiny_encoder("timm-vit").space_key
    with pytest.raises(UserError, match=r"cannot take pictures of 100 pixels .*leave --image-size at 224"):
        load_encoder(model_folder("timm-vit"), device="cpu", image_size=100)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_dense_none_keeps_the_coarse_vectors(tiny_encoder, caplog, kind):
    with caplog.at_level(logging.WARNING):
        encoder = tiny_encoder(kind, dense="none")
    assert not caplog.records
    full, small = (e.encode_images(pictures(2), names(2)) for e in (tiny_encoder(kind), encoder))
    assert torch.equal(full.coarse, small.coarse)
    assert encoder.has_coarse_clip == (kind == "resnet")
    if kind == "resnet":
        assert torch.equal(full.coarse_clip, small.coarse_clip)
    assert small.fine.shape == (0, 24)
    assert encoder.rows_per_image == 0


def test_coarse_clip_alone(tiny_encoder):
    encoder = tiny_encoder("resnet", coarse="clip")
    batch, both = (e.encode_images(pictures(2), names(2)) for e in (encoder, tiny_encoder("resnet")))
    assert batch.coarse_clip is None
    assert not encoder.has_coarse_clip
    assert torch.equal(batch.coarse, both.coarse_clip)
    assert torch.equal(batch.fine, both.fine)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_pictures_pixels_and_open_clips_own_transform_agree(tiny_encoder, kind):
    encoder = tiny_encoder(kind)
    images = pictures(3, (90, 70)) + pictures(1, (31, 200))
    own = image_transform_v2(PreprocessCfg(size=64), is_train=False)
    normalised = torch.stack([own(image) for image in images])
    pixels = torch.stack([encoder.preprocess(image) for image in images])
    assert pixels.dtype == torch.uint8
    batches = [
        encoder.encode_images(images, names(4)),
        encoder.encode_pixels(pixels, names(4)),
        encoder.encode_normalised(normalised, names(4)),
    ]
    for batch in batches:
        assert batch.ids == tuple(names(4))
        assert batch.space_key == encoder.space_key
        close(batch.coarse, batches[2].coarse)
        close(batch.fine, batches[2].fine)


@pytest.mark.parametrize("kind", ["resnet", "vit", "timm"])
def test_no_picture_and_one_picture(tiny_encoder, kind):
    encoder = tiny_encoder(kind)
    for batch in (
        encoder.encode_images([], []),
        encoder.encode_pixels(torch.zeros(0, 3, 64, 64, dtype=torch.uint8), []),
    ):
        assert len(batch) == 0
        assert batch.coarse.shape == batch.fine.shape == (0, 24)
        assert (batch.coarse_clip is not None) == encoder.has_coarse_clip
    one, three = (encoder.encode_images(pictures(3)[:count], names(count)) for count in (1, 3))
    close(one.coarse, three.coarse[:1])
    close(one.fine, three[:1].fine)


def test_batches_of_any_size_give_the_same(model_folder, tiny_encoder):
    small = load_encoder(model_folder("resnet"), device="cpu", batch_size=2, fast=False)
    expected, actual = (e.encode_images(pictures(5), names(5)) for e in (tiny_encoder("resnet"), small))
    close(actual.coarse, expected.coarse)
    close(actual.fine, expected.fine)
    close(actual.coarse_clip, expected.coarse_clip)


def test_out_of_memory_halves_the_batch_and_remembers(model_folder, tiny_encoder, caplog):
    encoder = load_encoder(model_folder("vit"), device="cpu", batch_size=8, fast=False)
    seen = []

    def at_most_three(_module, args):
        seen.append(len(args[0]))
        if len(args[0]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")

    encoder.model.visual.conv1.register_forward_pre_hook(at_most_three)
    with caplog.at_level(logging.WARNING):
        batch = encoder.encode_images(pictures(7), names(7))
    assert seen == [8, 3, 3, 1]
    assert "going on with 3" in caplog.text
    close(batch.fine, tiny_encoder("vit").encode_images(pictures(7), names(7)).fine)
    seen.clear()
    encoder.encode_images(pictures(4), names(4))
    assert seen == [3, 1]


def test_not_even_one_picture(model_folder):
    encoder = load_encoder(model_folder("vit"), device="cpu", fast=False)

    def never(_module, _args):
        raise torch.OutOfMemoryError("CUDA out of memory (simulated)")

    encoder.model.visual.conv1.register_forward_pre_hook(never)
    with pytest.raises(UserError, match="Not even one picture fits into memory"):
        encoder.encode_images(pictures(5), names(5))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", ["resnet", "vit", "timm"])
def test_half_precision_is_near_and_leaves_in_fp32(tiny_encoder, kind, precision):
    images = pictures(4)
    encoder = tiny_encoder(kind, precision=precision)
    actual, expected = (e.encode_images(images, names(4)) for e in (encoder, tiny_encoder(kind)))
    assert encoder.precision == precision
    assert encoder.space_key == tiny_encoder(kind).space_key
    for rows, reference in ((actual.coarse, expected.coarse), (actual.fine, expected.fine)):
        assert rows.dtype == torch.float32
        assert ((rows * reference).sum(-1) > 0.999).all()
        assert ((rows.double().norm(dim=-1) - 1).abs() < 1e-6).all()


def test_numbers_that_overflow_are_reported(model_folder):
    encoder = load_encoder(model_folder("vit"), device="cpu", precision="fp16", fast=False)
    with torch.no_grad():
        encoder.model.visual.proj.fill_(6e4)
        encoder.model.visual.ln_post.weight.fill_(6e4)
    with pytest.raises(UserError, match="not finite in fp16; use --precision fp32 or bf16"):
        encoder.encode_images(pictures(1), ["a"])


def test_features_can_be_used_where_gradients_flow(tiny_encoder):
    batch = tiny_encoder("resnet").encode_images(pictures(1), ["a"])
    weight = torch.ones(24, requires_grad=True)
    (batch.fine @ weight).sum().backward()
    close(weight.grad, batch.fine.sum(0))


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("resnet", 100, "--image-size is 100, but a ResNet takes multiples of 32; use 96 or 128"),
        ("resnet", 20, "takes multiples of 32; use 32"),
        ("vit", 70, "ViT with patches of 16 pixels takes multiples of 16; use 64 or 80"),
        ("vit", 0, "--image-size is 0"),
    ],
)
def test_a_size_the_tower_cannot_take(model_folder, kind, size, message):
    with pytest.raises(UserError, match=message):
        load_encoder(model_folder(kind), device="cpu", image_size=size)


def test_unknown_recipes(model_folder):
    with pytest.raises(UserError, match="Unknown dense recipe 'values'; did you mean 'value'"):
        load_encoder(model_folder("vit"), device="cpu", dense="values")
    with pytest.raises(UserError, match="Unknown coarse recipe 'x'; choose one of 'auto', 'clip'"):
        load_encoder(model_folder("vit"), device="cpu", coarse="x")


@pytest.mark.parametrize("fast", [True, False])
def test_an_encoder_of_images_only_gives_the_same_bits_and_holds_no_text_tower(model_folder, fast):
    whole, images = (
        load_encoder(model_folder("resnet"), device="cpu", precision="fp32", fast=fast, images_only=only)
        for only in (False, True)
    )
    expected, found = (one.encode_images(pictures(3), names(3)) for one in (whole, images))
    for kind in ("coarse", "fine", "coarse_clip"):
        assert torch.equal(getattr(found, kind), getattr(expected, kind))
    for name in ("space_key", "recipe_key", "sentence_recipe_key", "provenance"):
        assert getattr(images, name) == getattr(whole, name)
    assert images.model is None
    for ask in (images.encode_class_texts, images.tokenize):
        with pytest.raises(ValueError, match="for images only"):
            ask(["a dog"])


def test_pixels_of_another_shape_or_type(tiny_encoder):
    encoder = tiny_encoder("vit")
    with pytest.raises(ValueError, match=r"expected uint8 \(N, 3, 64, 64\)"):
        encoder.encode_pixels(torch.zeros(1, 3, 64, 64), ["a"])
    with pytest.raises(ValueError, match=r"expected a float dtype \(N, 3, 64, 64\)"):
        encoder.encode_normalised(torch.zeros(1, 3, 64, 32), ["a"])
    with pytest.raises(ValueError, match="2 items but 1 ids"):
        encoder.encode_images(pictures(2), ["a"])
