"""Tiny models with random weights, written the way open_clip keeps a model in a folder."""

import copy
import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
_VIT = {"image_size": 64, "layers": 3, "width": 32, "head_width": 16, "patch_size": 16}

CONFIGS: dict[str, dict[str, Any]] = {
    "resnet": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
        "text_cfg": _TEXT,
    },
    # Channels enough for int16, in multiples of eight; blocks with and without a projection of their input.
    "resnet-int16": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 2], "width": 32, "head_width": 32},
        "text_cfg": _TEXT,
    },
    "vit": {"embed_dim": 24, "vision_cfg": _VIT, "text_cfg": _TEXT},
    "vit-layer-scale": {"embed_dim": 24, "vision_cfg": _VIT | {"ls_init_value": 0.5}, "text_cfg": _TEXT},
    "vit-average-pool": {"embed_dim": 24, "vision_cfg": _VIT | {"pool_type": "avg"}, "text_cfg": _TEXT},
    "vit-custom-block": {"embed_dim": 24, "vision_cfg": _VIT | {"qk_norm": True}, "text_cfg": _TEXT},
    "timm": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear"},
        "text_cfg": _TEXT,
    },
    "timm-vit": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 224, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
        "text_cfg": _TEXT,
    },
    # A text tower as SigLIP has it: every position sees every other, padding included, and the last one is the vector.
    "siglip-text": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": _VIT,
        "text_cfg": _TEXT | {"context_length": 16, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    },
    "custom-text": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": _VIT,
        "text_cfg": _TEXT | {"proj_bias": True},
    },
    "coca": {
        "embed_dim": 24,
        "custom_text": True,
        "multimodal_cfg": {"context_length": 76, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
        "vision_cfg": _VIT | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": _TEXT | {"context_length": 76, "embed_cls": True, "output_tokens": True},
    },
}


def tiny_config(kind: str) -> dict[str, Any]:
    return copy.deepcopy(CONFIGS[kind])


def build_tiny_model(config: dict[str, Any], seed: int = 0) -> torch.nn.Module:
    """An open_clip model with random weights, in evaluation mode."""
    options = copy.deepcopy(config)
    custom_text = options.pop("custom_text", False)
    family = open_clip.CLIP
    if custom_text:
        family = open_clip.CoCa if "multimodal_cfg" in options else open_clip.CustomTextCLIP
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = family(**options)
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                # The fresh values of batch norm hide mistakes. timm's deeper towers would grow out of fp16 with these.
                if (".bn" in name or "downsample.1" in name) and "trunk" not in name and tensor.is_floating_point():
                    tensor.copy_(torch.rand_like(tensor) + 0.5)
                elif name.endswith("positional_embedding"):
                    tensor.copy_(torch.randn_like(tensor))
    return model.eval()


def write_model(folder: Path, config: dict[str, Any], model: torch.nn.Module, **preprocess: Any) -> str:
    """Write a model into a folder; returns its name, ``local-dir:<folder>``."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return f"local-dir:{folder}"


def write_tiny_model(folder: Path, kind: str = "vit", seed: int = 0) -> str:
    """A tiny model of one of `CONFIGS` in a folder; returns its name, ``local-dir:<folder>``."""
    config = tiny_config(kind)
    return write_model(folder, config, build_tiny_model(config, seed))
