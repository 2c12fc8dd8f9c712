"""The two keys that say what features are: of which embedding space, and made by which recipe.

Both end in a hash, so that equal keys mean equal content; what stands before it is for people.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import open_clip
import torch
from torch import nn

# What a configuration says that leaves the vectors of a given picture or sentence where they are.
_NOT_IDENTITY = {
    *("image_size", "timm_model_pretrained", "hf_model_pretrained", "output_tokens"),
    *("patch_dropout", "timm_drop", "timm_drop_path"),
}


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of all weights rounded to fp16, in the order of their names.

    Rounding makes a copy saved in half precision and its fp32 original the same model. Call it before any positional
    embedding is interpolated. Counters (``num_batches_tracked``) do not take part.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.is_floating_point():
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().to("cpu", torch.float16).contiguous().numpy().astype("<f2", copy=False))
    return digest.hexdigest()


def architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """What open_clip's model configuration says about the vectors, tokenizer included, in one canonical form.

    Options at their default value are left out, so that a configuration that spells them is the same as one that does
    not, and a newer open_clip with more options does not change the keys of old models.
    """
    result: dict[str, Any] = {"embed_dim": config["embed_dim"], "quick_gelu": bool(config.get("quick_gelu", False))}
    for part, kind in (("vision_cfg", open_clip.CLIPVisionCfg), ("text_cfg", open_clip.CLIPTextCfg)):
        defaults = {field.name: field.default for field in fields(kind)}
        options = asdict(kind(**config[part]))
        result[part] = {
            key: value
            for key, value in sorted(options.items())
            if key not in _NOT_IDENTITY and value is not None and value != defaults[key]
        }
    if "multimodal_cfg" in config:
        result["multimodal_cfg"] = config["multimodal_cfg"]
    return result


def space_key(config: Mapping[str, Any], digest: str) -> str:
    """The key of the embedding space of a model, e.g. ``rn50-d1024-quickgelu:0123456789abcdef``.

    Args:
        config: open_clip's model configuration.
        digest: of the weights, from `weights_digest`.
    """
    space = architecture(config)
    vision = {"layers": 12, "patch_size": 16} | space["vision_cfg"]
    if "timm_model_name" in vision:
        tower = str(vision["timm_model_name"])
    elif isinstance(vision["layers"], (list, tuple)):
        tower = f"rn{3 * sum(vision['layers']) + 2}"  # three convolutions a block, the stem and the pool
    else:
        tower = f"vit{vision['layers']}-p{vision['patch_size']}"
    activation = "-quickgelu" if space["quick_gelu"] else ""
    return f"{tower}-d{space['embed_dim']}{activation}:{_short_hash({'architecture': space, 'weights': digest}, 16)}"


def recipe_key(recipe: Mapping[str, Any]) -> str:
    """The key of a recipe, e.g. ``img224-taidpt:0123456789ab`` for images, ``text77-causal:…`` for sentences."""
    size = f"img{recipe['image_size']}" if "image_size" in recipe else f"text{recipe['context_length']}"
    return f"{size}-{recipe['dense']}:{_short_hash(recipe, 12)}"


def _short_hash(content: Mapping[str, Any], digits: int) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
