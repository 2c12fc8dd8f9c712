"""What a model's configuration may say: every key that open_clip, timm or transformers is handed, and its values.

A configuration comes with weights from strangers. What is not in the tables here is refused, so that it can neither
name code (``trust_remote_code``), nor files and repositories of its own, nor sizes that no weights have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tai_engine.errors import UserError, unknown_choice

MAX_IMAGE_SIZE = 4096
"""Pixels a side."""
_MOST = {"embedding": 65_536, "width": 16_384, "layers": 512, "positions": 16_384, "words": 4_000_000, "queries": 4096}


class AllowedValues(NamedTuple):
    """The values of a key.

    Attributes:
        holds: whether a value is one.
        words: what is allowed, for messages.
    """

    holds: Callable[[Any], bool]
    words: str


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(most: int, least: int = 1) -> AllowedValues:
    return AllowedValues(lambda value: _is_whole(value, least, most), f"a whole number from {least} to {most:,}")


def _number(least: float, most: float) -> AllowedValues:
    return AllowedValues(
        lambda value: _is_number(value) and least <= value <= most, f"a number from {least:g} to {most:g}"
    )


def _one_of(*choices: str | None) -> AllowedValues:
    shown = ", ".join("null" if choice is None else repr(choice) for choice in choices)
    return AllowedValues(
        lambda value: value is None or (isinstance(value, str) and value in choices), f"one of {shown}"
    )


def _or_null(allowed: AllowedValues) -> AllowedValues:
    return AllowedValues(lambda value: value is None or allowed.holds(value), f"{allowed.words}, or null")


def _table(keys: Mapping[str, AllowedValues]) -> AllowedValues:
    def holds(value: Any) -> bool:
        return isinstance(value, dict) and all(key in keys and keys[key].holds(value[key]) for key in value)

    shown = "; ".join(f"{key}: {allowed.words}" for key, allowed in keys.items())
    return AllowedValues(holds, f"a table of nothing but {shown}")


def _sizes(value: Any) -> bool:
    sides = value if isinstance(value, list) else [value]
    return 1 <= len(sides) <= 2 and all(_is_whole(side, 1, MAX_IMAGE_SIZE) for side in sides)


def _blocks(value: Any) -> bool:
    counts = value if isinstance(value, list) else [value]
    return len(counts) in (1, 4) and all(_is_whole(count, 1, _MOST["layers"]) for count in counts)


def _channels(value: Any, holds: Callable[[Any], bool]) -> bool:
    return all(map(holds, value)) and len(value) == 3 if isinstance(value, list) else holds(value)


_FLAG = AllowedValues(lambda value: isinstance(value, bool), "true or false")
_NAME = AllowedValues(lambda value: isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable(), "a name")
_SHARE = _number(0, 1)
_WIDTH, _LAYERS, _POSITIONS = _whole(_MOST["width"]), _whole(_MOST["layers"]), _whole(_MOST["positions"])
_BLOCK = {
    "ls_init_value": _or_null(_number(0, 1e3)),
    "act_kwargs": _or_null(_table({"approximate": _one_of("none", "tanh")})),
    "norm_kwargs": _or_null(_table({"eps": _number(1e-12, 1)})),
    "block_type": _one_of(None, "default", "custom"),
    **dict.fromkeys(
        ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"), _FLAG
    ),
}
_VISION = {
    "layers": AllowedValues(_blocks, f"a whole number from 1 to {_MOST['layers']}, or four of them"),
    "width": _WIDTH,
    "head_width": _WIDTH,
    "mlp_ratio": _number(0.1, 64),
    "patch_size": _or_null(_whole(1024)),  # null in ResNets
    "image_size": AllowedValues(_sizes, f"a whole number from 1 to {MAX_IMAGE_SIZE:,}, or two of them"),
    "patch_dropout": _SHARE,
    "attentional_pool": AllowedValues(
        lambda value: isinstance(value, bool) or value in ("parallel", "cascade"), "true, false, parallel or cascade"
    ),
    "attn_pooler_queries": _whole(_MOST["queries"]),
    "attn_pooler_heads": _whole(_MOST["queries"]),
    "no_ln_pre": _FLAG,
    "pos_embed_type": _one_of("learnable", "sin_cos_2d"),
    "final_ln_after_pool": _FLAG,
    "pool_type": _one_of("tok", "avg", "none"),
    "output_tokens": _FLAG,
    "timm_model_name": _or_null(_NAME),  # and one that timm has: see check_config
    "timm_model_pretrained": _FLAG,
    "timm_pool": _or_null(_one_of("", "avg", "max", "avgmax", "catavgmax", "token", "map", "abs_attn", "rot_attn")),
    "timm_proj": _one_of(None, "", "linear", "mlp", "none"),
    "timm_proj_bias": _FLAG,
    "timm_drop": _SHARE,
    "timm_drop_path": _or_null(_SHARE),
    **_BLOCK,
}
TOKENIZER_OPTIONS = {
    "clean": _one_of("lower", "whitespace", "canonicalize"),
    "strip_sep_token": _FLAG,
    "language": _or_null(_NAME),
}
_TEXT = {
    "context_length": _POSITIONS,
    "vocab_size": _whole(_MOST["words"]),
    "hf_tokenizer_name": _or_null(_NAME),
    "tokenizer_mode": _one_of(None, "", "clips"),
    "tokenizer_kwargs": _or_null(_table(TOKENIZER_OPTIONS)),
    "width": _WIDTH,
    "heads": _whole(_MOST["queries"]),
    "layers": _LAYERS,
    "mlp_ratio": _number(0.1, 64),
    "embed_cls": _FLAG,
    "pad_id": _whole(_MOST["words"], 0),
    "eos_id": _whole(_MOST["words"], 0),
    "no_causal_mask": _FLAG,
    "final_ln_after_pool": _FLAG,
    "pool_type": _one_of("argmax", "first", "last", "eos", "none"),
    "proj_bias": _FLAG,
    "proj_type": _one_of(None, "", "linear", "none"),
    "output_tokens": _FLAG,
    "hf_model_name": _or_null(_NAME),
    "hf_model_pretrained": _FLAG,
    "hf_proj_type": _one_of(None, "linear", "mlp"),
    "hf_pooler_type": _one_of(None, "mean_pooler", "max_pooler", "cls_pooler", "cls_last_hidden_state_pooler"),
    **_BLOCK,
}
_MULTIMODAL = _TEXT | {
    "dim_head": _WIDTH,
    "n_queries": _whole(_MOST["queries"]),
    "attn_pooler_heads": _whole(_MOST["queries"]),
}
_MODEL = {
    "embed_dim": _whole(_MOST["embedding"]),
    "quick_gelu": _FLAG,
    "custom_text": _FLAG,
    "init_logit_scale": _number(-100, 100),
    "init_logit_bias": _or_null(_number(-1e4, 1e4)),
    "nonscalar_logit_scale": _FLAG,
}
_PARTS = {"vision_cfg": _VISION, "text_cfg": _TEXT, "multimodal_cfg": _MULTIMODAL}
_PREPROCESS = {
    "size": AllowedValues(lambda value: value is None or _sizes(value), f"a whole number from 1 to {MAX_IMAGE_SIZE:,}"),
    "mode": _one_of("RGB"),
    "mean": AllowedValues(lambda value: _channels(value, _is_number), "one number or three"),
    "std": AllowedValues(
        lambda value: _channels(value, lambda v: _is_number(v) and v > 0), "one number above 0 or three"
    ),
    "interpolation": _one_of("bicubic", "bilinear"),
    "resize_mode": _one_of("shortest", "longest", "squash"),
    "fill_color": _whole(255, 0),
}


def check_config(content: Any, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """open_clip's ``model_cfg`` and ``preprocess_cfg`` of a configuration, with nothing in them but what is known.

    Args:
        content: the JSON value.
        path: for messages.

    Raises:
        UserError: naming the first key or value that is not allowed.
    """
    config = content.get("model_cfg") if isinstance(content, dict) else None
    missing = [key for key in ("embed_dim", *_PARTS) if not isinstance(config, dict) or key not in config]
    missing = [key for key in missing if key != "multimodal_cfg"]
    if not isinstance(config, dict) or missing:
        raise UserError(
            f"{path!r} lacks {', '.join(missing)} under 'model_cfg'; use the configuration that open_clip published "
            "with the weights."
        )
    preprocess = content.get("preprocess_cfg") or {}
    if not isinstance(preprocess, dict):
        raise UserError(f"'preprocess_cfg' of {path!r} is not a table of options; correct or remove it.")
    _check_keys({key: value for key, value in config.items() if key not in _PARTS}, _MODEL, "model_cfg", path)
    for part, keys in _PARTS.items():
        if part not in config:
            continue
        if not isinstance(config[part], dict):
            raise UserError(f"{part!r} of {path!r} is not a table of options; use the configuration as published.")
        _check_keys(config[part], keys, part, path)
    _check_keys(preprocess, _PREPROCESS, "preprocess_cfg", path)
    _check_timm(config["vision_cfg"].get("timm_model_name"), path)
    return config, preprocess


def _check_keys(options: Mapping[str, Any], keys: Mapping[str, AllowedValues], part: str, path: str) -> None:
    for key, value in options.items():
        if key not in keys:
            raise unknown_choice(f"setting in {part!r} of {path!r}:", key, keys)
        if not keys[key].holds(value):
            shown = repr(value)
            shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
            raise UserError(f"{key!r} in {part!r} of {path!r} is {shown}; it must be {keys[key].words}.")


def _check_timm(name: str | None, path: str) -> None:
    """A name that timm would look up elsewhere (``hf-hub:``, ``local-dir:``) is none of its own."""
    if not name:
        return
    import timm  # slow, and seldom wanted

    if not timm.is_model(name):
        raise UserError(
            f"'timm_model_name' in 'vision_cfg' of {path!r} is {name!r}, which is no architecture of timm "
            f"{timm.__version__}; correct it, or install the timm that has it."
        )


def least_numbers(config: Mapping[str, Any]) -> int:
    """At least so many numbers the weights of a configuration have: the large matrices of open_clip's own towers."""
    text, vision, dim = config["text_cfg"], config["vision_cfg"], config["embed_dim"]
    total = 0
    for part in [text] + ([config["multimodal_cfg"]] if "multimodal_cfg" in config else []):
        if not part.get("hf_model_name"):
            width = part.get("width", 512)
            total += (part.get("vocab_size", 49408) + part.get("context_length", 77) + dim) * width
            total += part.get("layers", 12) * _block_numbers(part, width)
    if vision.get("timm_model_name"):
        return total
    width, layers = vision.get("width", 768), vision.get("layers", 12)
    if isinstance(layers, list) and len(layers) == 4:
        # Three convolutions a block, their channels growing from stage to stage, and an attention pool.
        for stage, blocks in enumerate(layers):
            planes = width * 2**stage
            total += blocks * (9 * planes * planes + 4 * planes * planes)
        return total + 3 * (32 * width) ** 2
    layers = layers[0] if isinstance(layers, list) else layers
    return total + layers * _block_numbers(vision, width) + 3 * width * (vision.get("patch_size") or 16) ** 2


def _block_numbers(part: Mapping[str, Any], width: int) -> int:
    return int((4 + 2 * part.get("mlp_ratio", 4.0)) * width * width)
