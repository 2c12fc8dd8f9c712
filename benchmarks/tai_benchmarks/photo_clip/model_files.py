"""Write the model as an open_clip folder: ``open_clip_config.json`` and ``open_clip_model.safetensors``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tai_benchmarks.photo_clip.image_tower import MEAN, STD
from tai_benchmarks.photo_clip.projection import Projection
from tai_benchmarks.photo_clip.text_tower import model_config
from tai_engine.files import atomic_path

_SINGLE = ("running_mean", "running_var", "logit_scale", "visual.head.proj.bias")


def finish_model(model: Any, tower: Any, projection: Projection, logit_scale: float) -> None:
    """Put the image tower, its projection and the scale into the model."""
    state = {name: value for name, value in tower.state_dict().items() if not name.startswith("classifier.")}
    model.visual.trunk.load_state_dict(state)
    with torch.no_grad():
        model.visual.head.proj.weight.copy_(projection.weight)
        model.visual.head.proj.bias.copy_(projection.bias)
        model.logit_scale.fill_(math.log(logit_scale))


def half_state(model: Any) -> dict[str, Tensor]:
    """Weights in half precision; statistics of batch norms, the scale and the projection's bias stay in single."""
    return {
        name: value.contiguous() if name.endswith(_SINGLE) else value.half().contiguous()
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    }


def export_model(model: Any, joint_size: int, image_size: int, folder: Path) -> None:
    """Write the two files that open_clip's ``local-dir:`` reads; each appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_cfg": model_config(joint_size, image_size),
        "preprocess_cfg": {
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    with atomic_path(folder / "open_clip_model.safetensors") as temporary:
        save_file(half_state(model), temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)  # safetensors writes files that nobody else can read
    with atomic_path(folder / "open_clip_config.json") as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
