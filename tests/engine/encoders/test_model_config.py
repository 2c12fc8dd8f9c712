"""What a model's configuration may say, and what is refused before anything is built or asked for."""

import json
import os
import sys
import types
from dataclasses import fields

import huggingface_hub
import open_clip
import pytest
import torch
from open_clip.coca_model import MultimodalCfg
from open_clip.transform import PreprocessCfg

from tai_engine.encoders import load_encoder, model_config
from tai_engine.encoders.model_config import check_config, least_numbers
from tai_engine.encoders.tokenizers import text_architecture
from tai_engine.encoders.weights import ModelFiles
from tai_engine.errors import UserError
from tiny_models import CONFIGS, write_tiny_model


@pytest.fixture
def folder(tmp_path):
    write_tiny_model(tmp_path / "model", "vit")
    return tmp_path / "model"


@pytest.fixture
def no_network(monkeypatch):
    """Whoever asks the hub fails the test."""

    def asked(*arguments, **_options):
        pytest.fail(f"the network was asked: {arguments}")

    for name in ("get_hf_file_metadata", "hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, asked)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_arguments, **_options: None)


def change(folder, part, options):
    """Other settings in one part of the folder's configuration, or another part."""
    path = folder / "open_clip_config.json"
    content = json.loads(path.read_text())
    tables = {**content["model_cfg"], "model_cfg": content["model_cfg"], "preprocess_cfg": content["preprocess_cfg"]}
    tables[part].update(options)
    path.write_text(json.dumps(content))


def refused(folder, expected):
    with pytest.raises(UserError, match=expected) as caught:
        load_encoder(f"local-dir:{folder}", device="cpu")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


# The tables


def test_the_tables_know_every_setting_of_this_open_clip_and_no_other():
    """A new open_clip with a new setting: decide whether strangers may set it."""
    for known, of in (
        (model_config._VISION, open_clip.CLIPVisionCfg),
        (model_config._TEXT, open_clip.CLIPTextCfg),
        (model_config._MULTIMODAL, MultimodalCfg),
        (model_config._PREPROCESS, PreprocessCfg),
    ):
        assert set(known) == {field.name for field in fields(of)}


def test_all_models_of_open_clip_pass():
    for name in open_clip.list_models():
        config = json.loads(json.dumps(open_clip.get_model_config(name)))
        assert check_config({"model_cfg": config}, name) == (config, {})


NATIVE = [kind for kind in CONFIGS if "timm" not in kind]


@pytest.mark.parametrize("kind", [*NATIVE, "RN50", "RN50x64", "ViT-B-32", "ViT-H-14", "coca_ViT-B-32"])
def test_the_least_numbers_are_more_than_half_of_all(kind):
    config = CONFIGS[kind] if kind in CONFIGS else open_clip.get_model_config(kind)
    options = json.loads(json.dumps(config))
    family = open_clip.CLIP
    if options.pop("custom_text", False):
        family = open_clip.CoCa if "multimodal_cfg" in options else open_clip.CustomTextCLIP
    with torch.device("meta"):
        total = sum(tensor.numel() for tensor in family(**options).state_dict().values())
    assert total / 2 < least_numbers(config) <= total


# What strangers may write


@pytest.mark.parametrize(
    ("part", "options", "expected"),
    [
        ("text_cfg", {"tokenizer_kwargs": {"trust_remote_code": True}}, "'tokenizer_kwargs' in 'text_cfg' .*must be"),
        ("text_cfg", {"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}, "'tokenizer_kwargs'"),
        ("text_cfg", {"tokenizer_kwargs": {"clean": "lower", "use_fast": True}}, "'tokenizer_kwargs'"),
        ("text_cfg", {"tokenizer_kwargs": [1]}, "'tokenizer_kwargs'"),
        ("text_cfg", {"tokenizer_kwargs": {"strip_sep_token": True}}, "own tokenizer has no option 'strip_sep_token'"),
        ("text_cfg", {"trust_remote_code": True}, "Unknown setting in 'text_cfg' of .*: 'trust_remote_code'"),
        ("text_cfg", {"tokenizer_mode": "code"}, "'tokenizer_mode' .* one of null, '', 'clips'"),
        ("text_cfg", {"norm_kwargs": {"eps": 1e-6, "device": "cuda"}}, "'norm_kwargs' .* nothing but eps"),
        ("text_cfg", {"norm_kwargs": {"eps": -1}}, "'norm_kwargs'"),
        ("text_cfg", {"act_kwargs": {"approximate": "x"}}, "'act_kwargs'"),
        ("text_cfg", {"width": 10**6}, "'width' in 'text_cfg' .* is 1000000; it must be a whole number from 1 to 16"),
        ("text_cfg", {"width": True}, "'width' .* is True"),
        ("text_cfg", {"width": "512"}, "'width' .* is '512'"),
        ("text_cfg", {"width": 16_384}, "do not fit the configuration .* numbers or more, and they have"),
        ("text_cfg", {"vocab_size": 4_000_000}, "do not fit the configuration"),
        ("text_cfg", {"layers": 0}, "'layers'"),
        ("text_cfg", {"layers": [2, 2]}, "'layers'"),
        ("text_cfg", {"hf_tokenizer_name": ["a"]}, "'hf_tokenizer_name'"),
        ("text_cfg", {"context_length": 10**6}, "'context_length'"),
        ("vision_cfg", {"timm_model_name": "hf-hub:org/repo"}, "'hf-hub:org/repo', which is no architecture of timm"),
        ("vision_cfg", {"timm_model_name": "local-dir:/tmp"}, "no architecture of timm"),
        ("vision_cfg", {"timm_pool": "x"}, "'timm_pool'"),
        ("vision_cfg", {"image_size": 10**6}, "'image_size' .* from 1 to 4,096"),
        ("vision_cfg", {"image_size": [64, 64, 64]}, "'image_size'"),
        ("vision_cfg", {"image_size": 63.5}, "'image_size'"),
        ("vision_cfg", {"patch_size": 0}, "'patch_size'"),
        ("vision_cfg", {"patch_dropout": 2}, "'patch_dropout'"),
        ("vision_cfg", {"layers": [1, 1, 1, 10**9]}, "'layers'"),
        ("vision_cfg", {"layers": [1, 1]}, "'layers'"),
        ("vision_cfg", {"layers": [100, 100, 100, 100], "width": 1024}, "do not fit the configuration"),
        ("vision_cfg", {"pool_type": {"a": 1}}, "'pool_type'"),
        ("model_cfg", {"embed_dim": 10**9}, "'embed_dim' in 'model_cfg'"),
        ("model_cfg", {"cast_dtype": "float64"}, "Unknown setting in 'model_cfg'"),
        ("model_cfg", {"vision_cfg": [1]}, "'vision_cfg' .* is not a table"),
        ("model_cfg", {"text_cfg": None}, "'text_cfg' .* is not a table"),
        ("model_cfg", {"multimodal_cfg": 3}, "'multimodal_cfg' .* is not a table"),
        ("model_cfg", {"init_logit_scale": "x" * 10_000}, "'init_logit_scale' .* is 'xxx"),
        ("preprocess_cfg", {"std": 0}, "'std' in 'preprocess_cfg' .* is 0; it must be one number above 0 or three"),
        ("preprocess_cfg", {"std": [0.2, 0.0, 0.2]}, "'std'"),
        ("preprocess_cfg", {"mean": [0.5, 0.5]}, "'mean' .* one number or three"),
        ("preprocess_cfg", {"mean": ["a", "b", "c"]}, "'mean'"),
        ("preprocess_cfg", {"mode": "L"}, "'mode' .* one of 'RGB'"),
        ("preprocess_cfg", {"size": 10**6}, "'size'"),
        ("preprocess_cfg", {"interpolation": "bicubik"}, "'interpolation' .* one of 'bicubic', 'bilinear'"),
        ("preprocess_cfg", {"resize_mode": "stretch"}, "'resize_mode'"),
        ("preprocess_cfg", {"fill_color": 256}, "'fill_color'"),
        ("preprocess_cfg", {"interpolate": "bicubic"}, "did you mean 'interpolation'"),
    ],
)
def test_keys_and_values_that_are_not_allowed(folder, no_network, part, options, expected):
    change(folder, part, options)
    refused(folder, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "is not a readable JSON file"),
        ("[" * 100_000, "nested too deep"),
        ('{"model_cfg": ' + "1" * 6000 + "}", "is not a readable JSON file"),
        ('{"model_cfg": {"embed_dim": 1e999}}', "holds 1e999, which is too large a number"),
        ('{"model_cfg": {"embed_dim": NaN}}', "holds NaN, which is no number"),
        (" " * (1 << 20) + "{}", "cannot be read .1,048,577 bytes, 1,048,576 are allowed"),
        ("[]", "lacks embed_dim, vision_cfg, text_cfg under 'model_cfg'"),
        ('{"model_cfg": []}', "lacks embed_dim"),
        ('{"model_cfg": {"embed_dim": 4, "vision_cfg": {}}}', "lacks text_cfg under 'model_cfg'"),
        (
            '{"model_cfg": {"embed_dim": 4, "vision_cfg": {}, "text_cfg": {}}, "preprocess_cfg": 5}',
            "'preprocess_cfg' of .* is not a table",
        ),
    ],
    ids=lambda value: str(value)[:30].strip(),
)
def test_files_that_are_no_configuration(folder, text, expected):
    (folder / "open_clip_config.json").write_text(text)
    refused(folder, expected)


def test_a_pipe_in_place_of_a_file_does_not_stop_the_run(folder):
    path = folder / "open_clip_config.json"
    path.unlink()
    os.mkfifo(path)
    refused(folder, "cannot be read .it is no regular file")
    path.unlink()
    path.mkdir()
    refused(folder, "it is a folder")


@pytest.mark.parametrize("name", ["repo", "a/b/c", "../../etc", "/repo", "org/re po", "org/repo:x", "org/"])
def test_names_of_repositories(name, no_network):
    with pytest.raises(UserError, match="names no repository"):
        load_encoder(f"hf-hub:{name}", device="cpu")


# What transformers is asked


@pytest.fixture
def transformers(monkeypatch):
    """Records what it is asked for."""
    calls = []

    def from_pretrained(name, **options):
        calls.append((name, options))
        return types.SimpleNamespace(pad_token_id=0, eos_token_id=1)

    fake = types.SimpleNamespace(AutoTokenizer=types.SimpleNamespace(from_pretrained=from_pretrained))
    monkeypatch.setitem(sys.modules, "transformers", fake)
    return calls


def test_a_tokenizer_in_a_folder_runs_no_code_and_asks_nobody(folder, no_network, transformers):
    change(folder, "text_cfg", {"hf_tokenizer_name": "org/name", "tokenizer_kwargs": {"strip_sep_token": True}})
    load_encoder(f"local-dir:{folder}", device="cpu")
    assert transformers == [(str(folder), {"cache_dir": None, "trust_remote_code": False, "local_files_only": True})]


def test_a_tokenizer_of_the_hub_runs_no_code(monkeypatch, folder, transformers):
    change(folder, "text_cfg", {"hf_tokenizer_name": "org/name"})
    (folder / "tokenizer_config.json").write_text("{}")
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda _repository, name, **_options: str(folder / name)
    )
    load_encoder("hf-hub:org/repo", device="cpu")
    assert transformers == [("org/name", {"cache_dir": None, "trust_remote_code": False, "local_files_only": False})]


ROBERTA = {"model_type": "roberta", "hidden_size": 8, "vocab_size": 100, "num_hidden_layers": 2, "hidden_act": "gelu"}


def architecture_of(folder, content):
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "weights").touch()
    os.truncate(folder / "weights", 10**6)
    return text_architecture(ModelFiles("local-dir:x", "", {}, {}, folder / "weights", folder), "roberta-base", None)


def test_a_foreign_text_tower_is_its_sizes_and_kinds_alone(tmp_path):
    content = ROBERTA | {
        "auto_map": {"AutoModel": "evil.Model"},
        "attn_implementation": "org/kernel",
        "quantization_config": {"quant_method": "x"},
        "_name_or_path": "org/other",
        "position_embedding_type": "os.system",
        "layer_norm_eps": 1e-5,
    }
    assert architecture_of(tmp_path, content) == ROBERTA | {"layer_norm_eps": 1e-5}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([], "is of the kind None"),
        ({"model_type": ["roberta"]}, "is of the kind"),
        ({"model_type": "custom"}, "is of the kind 'custom'; open_clip has text towers of"),
        (ROBERTA | {"hidden_size": 10**9}, "a size that no tower has"),
        (ROBERTA | {"hidden_size": -8}, "a size that no tower has"),
        (ROBERTA | {"hidden_size": 10_000}, "describes 201,000,000 numbers or more, but the weights"),
    ],
)
def test_foreign_text_towers_that_are_refused(tmp_path, content, expected):
    with pytest.raises(UserError, match=expected):
        architecture_of(tmp_path, content)


def test_a_text_tower_in_a_folder_asks_nobody(folder, no_network):
    change(folder, "text_cfg", {"hf_model_name": "roberta-base"})
    refused(folder, "has no config.json of the text tower 'roberta-base'; a model in a folder asks nothing of the net")
