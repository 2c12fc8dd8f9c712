"""A model's files to an open_clip model in memory: fp32, on the CPU, at the size its weights were trained for."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.factory import load_state_dict
from open_clip.tokenizer import HFTokenizer
from torch import Tensor

from tai_engine.encoders.weights import CONFIG_NAME, ModelFiles, fetch_from_hub, first_line
from tai_engine.errors import UserError

Tokenizer = Callable[[list[str]], Tensor]


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights, not yet resized, moved or rounded.

    Attributes:
        model: open_clip's CLIP, CustomTextCLIP or CoCa (an ``nn.Module``), frozen, in evaluation mode.
        tokenizer: sentences to [N, context_length] int64.
        context_length: positions of the text tower.
        padding_id: the token id after the end of a sentence.
        padding_ends_sentence: whether the end of a sentence is marked by that same id.
        config: the configuration it was built from, with the image size of the weights.
        image_size: the size in pixels that its configuration asks for (the weights' own, or another).
    """

    model: Any
    tokenizer: Tokenizer
    context_length: int
    padding_id: int
    padding_ends_sentence: bool
    config: dict[str, Any]
    image_size: int


def load_model(files: ModelFiles, cache_dir: str | Path | None = None) -> LoadedModel:
    """Build the model and load its weights, all of them and no others.

    Pickled weights are read with ``weights_only=True``: tensors, never code.

    Raises:
        UserError: for a configuration that open_clip cannot build, weights that cannot be read or do not fit it, or a
            tokenizer that is missing.
    """
    config = deepcopy(files.config)
    wanted_size = _square_size(files, config["vision_cfg"].get("image_size", 224))
    config["vision_cfg"]["image_size"] = _trained_size(files, wanted_size)
    # Towers take their weights from the one file: never from a second download.
    config["vision_cfg"]["timm_model_pretrained"] = False
    config["text_cfg"]["hf_model_pretrained"] = False
    model = _build(files, config)
    try:
        open_clip.load_checkpoint(model, str(files.weights), strict=True, weights_only=True)
    except Exception as error:  # whatever way a foreign file fails to fit
        raise UserError(
            f"The weights {str(files.weights)!r} do not fit the configuration of {files.name!r} "
            f"({first_line(error)}); use the {CONFIG_NAME} published with them."
        ) from error
    model.eval().requires_grad_(False)
    tokenizer, padding_id, ends_id = _build_tokenizer(files, cache_dir)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        context_length=int(tokenizer.context_length),
        padding_id=padding_id,
        padding_ends_sentence=padding_id == ends_id,
        config=config,
        image_size=wanted_size,
    )


def place_model(model: Any, device: torch.device, dtype: torch.dtype, keeps_image_tower: bool) -> Any:
    """The model on its device in ``dtype``; its image tower in fp32 if the fast one is to be made from it."""
    model.to(device=device)
    visual = model.visual
    if keeps_image_tower:
        model.visual = None
    model.to(dtype=dtype)
    model.visual = visual
    return model


def _square_size(files: ModelFiles, image_size: Any) -> int:
    sizes = set(image_size) if isinstance(image_size, (list, tuple)) else {image_size}
    if len(sizes) != 1 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise UserError(
            f"The model {files.name!r} wants pictures of size {image_size!r}; only square ones are supported."
        )
    return int(sizes.pop())


def _trained_size(files: ModelFiles, wanted_size: int) -> int:
    """The image size that the weights' positional embedding stands for.

    open_clip builds the tower at the configured size and would interpolate (ViT) or fail (ResNet) while loading; after
    that the weights could no longer be told from others.
    """
    try:
        state = load_state_dict(str(files.weights), weights_only=True)
    except Exception as error:  # safetensors, pickle, zip and torch each have their own errors
        raise UserError(
            f"The weights {str(files.weights)!r} cannot be read as safetensors or as a plain PyTorch state dict "
            f"({first_line(error)}); get the file again, in safetensors format if there is a choice."
        ) from error
    vision = files.config["vision_cfg"]
    for key, cell in (
        ("visual.attnpool.positional_embedding", 32),
        ("visual.positional_embedding", vision.get("patch_size") or 16),
    ):
        if isinstance(rows := state.get(key), Tensor) and isinstance(cell, int):
            side = math.isqrt(rows.shape[0] - 1)
            if side * side == rows.shape[0] - 1 and side != wanted_size // cell:
                return side * cell
    return wanted_size


def _build(files: ModelFiles, config: dict[str, Any]) -> Any:
    options = deepcopy(config)
    custom_text = options.pop("custom_text", False) or bool(options["text_cfg"].get("hf_model_name"))
    family = open_clip.CLIP
    if custom_text:
        family = open_clip.CoCa if "multimodal_cfg" in options else open_clip.CustomTextCLIP
    try:
        return family(**options)
    except Exception as error:  # open_clip answers a bad configuration with whatever its constructors raise
        raise UserError(
            f"open_clip {open_clip.__version__} cannot build {files.name!r} from its configuration "
            f"({first_line(error)}); correct its {CONFIG_NAME}, or install what it needs."
        ) from error


def _build_tokenizer(files: ModelFiles, cache_dir: str | Path | None) -> tuple[Any, int, int | None]:
    """The tokenizer, the id that fills the rest of the context, and the id that ends a sentence."""
    text = files.config["text_cfg"]
    context_length = text.get("context_length", 77)
    options = text.get("tokenizer_kwargs") or {}
    name = text.get("hf_tokenizer_name")
    if not name:
        tokenizer = open_clip.SimpleTokenizer(context_length=context_length, **options)
        return tokenizer, 0, tokenizer.eot_token_id
    if files.folder is None:
        fetch_from_hub(name, ("tokenizer_config.json",), f"the tokenizer of {files.name}", cache_dir)
    try:
        tokenizer = HFTokenizer(
            files.folder or name,
            context_length=context_length,
            cache_dir=cache_dir,
            tokenizer_mode=text.get("tokenizer_mode"),
            **options,
        )
    except ImportError as error:
        raise UserError(
            f"The tokenizer of {files.name!r} needs the package transformers; install it (pip install transformers) "
            "or choose a model with CLIP's own tokenizer."
        ) from error
    except Exception as error:  # transformers has no common base for its errors
        raise UserError(
            f"The tokenizer {name!r} of {files.name!r} could not be loaded ({first_line(error)}); put its files beside "
            f"the {CONFIG_NAME} and use --model local-dir:/that/folder."
        ) from error
    return tokenizer, int(tokenizer.tokenizer.pad_token_id or 0), tokenizer.tokenizer.eos_token_id
