"""A model's files to an open_clip model in memory: fp32, on the CPU, at the size its weights were trained for."""

from __future__ import annotations

import json
import math
import pickle
import tempfile
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.factory import load_state_dict
from torch import Tensor

from tai_engine.encoders.model_config import least_numbers
from tai_engine.encoders.tokenizers import build_tokenizer, text_architecture
from tai_engine.encoders.weights import CONFIG_NAME, ModelFiles
from tai_engine.errors import UserError, reason_of
from tai_engine.files import human_bytes

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
    _check_weights_size(files)
    # Towers take their weights from the one file: never from a second download.
    config["vision_cfg"]["timm_model_pretrained"] = False
    config["text_cfg"]["hf_model_pretrained"] = False
    model = _build(files, config, cache_dir)
    try:
        open_clip.load_checkpoint(model, str(files.weights), strict=True, weights_only=True)
    except Exception as error:  # whatever way a foreign file fails to fit
        raise UserError(
            f"The weights {str(files.weights)!r} do not fit the configuration of {files.name!r} "
            f"({reason_of(error)}); use the {CONFIG_NAME} published with them."
        ) from error
    model.eval().requires_grad_(False)
    tokenizer, padding_id, ends_id = build_tokenizer(files, cache_dir)
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


def _check_weights_size(files: ModelFiles) -> None:
    """Refuse a configuration of a model that the weights cannot fill, before any memory is taken for it."""
    size, least = files.weights.stat().st_size, least_numbers(files.config)
    if least > size:  # a number takes a byte at least
        raise UserError(
            f"The weights {str(files.weights)!r} do not fit the configuration of {files.name!r}: it describes "
            f"{least:,} numbers or more, and they have {human_bytes(size)}; use the {CONFIG_NAME} published with them."
        )


def _trained_size(files: ModelFiles, wanted_size: int) -> int:
    """The image size that the weights' positional embedding stands for.

    open_clip builds the tower at the configured size and would interpolate (ViT) or fail (ResNet) while loading; after
    that the weights could no longer be told from others.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, to those who write programs
            state = dict(load_state_dict(str(files.weights), weights_only=True))
    except Exception as error:  # safetensors, pickle, zip and torch each have their own errors
        # What torch says of a pickle that would run code is how to have it run.
        is_code = isinstance(error, pickle.UnpicklingError)
        why = "it is damaged, or asks for more than tensors, which is not done" if is_code else reason_of(error)
        raise UserError(
            f"The weights {str(files.weights)!r} cannot be read as safetensors or as a plain PyTorch state dict "
            f"({why}); get the file again, in safetensors format if there is a choice."
        ) from error
    vision = files.config["vision_cfg"]
    for key, cell in (
        ("visual.attnpool.positional_embedding", 32),
        ("visual.positional_embedding", vision.get("patch_size") or 16),
    ):
        if isinstance(rows := state.get(key), Tensor) and rows.ndim == 2 and len(rows) > 1:
            side = math.isqrt(len(rows) - 1)
            if side * side == len(rows) - 1 and side != wanted_size // cell:
                return side * cell
    return wanted_size


def _build(files: ModelFiles, config: dict[str, Any], cache_dir: str | Path | None) -> Any:
    options = deepcopy(config)
    custom_text = options.pop("custom_text", False) or bool(options["text_cfg"].get("hf_model_name"))
    family = open_clip.CLIP
    if custom_text:
        family = open_clip.CoCa if "multimodal_cfg" in options else open_clip.CustomTextCLIP
    name = options["text_cfg"].get("hf_model_name")
    architecture = text_architecture(files, name, cache_dir) if name else None
    try:
        with tempfile.TemporaryDirectory() as folder:
            if architecture is not None:
                # transformers builds from a folder without asking anybody, and finds there what was checked alone.
                Path(folder, "config.json").write_text(json.dumps(architecture), encoding="utf-8")
                options["text_cfg"]["hf_model_name"] = folder
            return family(**options)
    except Exception as error:  # open_clip answers a bad configuration with whatever its constructors raise
        raise UserError(
            f"open_clip {open_clip.__version__} cannot build {files.name!r} from its configuration "
            f"({reason_of(error)}); correct its {CONFIG_NAME}, or install what it needs."
        ) from error
