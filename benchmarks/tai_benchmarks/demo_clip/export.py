"""Write the model as an open_clip folder: ``open_clip_config.json`` and ``open_clip_model.safetensors``."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tai_benchmarks.demo_clip.cut_tokens import CutVocabulary
from tai_benchmarks.demo_clip.model import MEAN, MODEL_CONFIG, STD
from tai_engine.files import atomic_path

_TOKEN_TABLE = "token_embedding.weight"
_SINGLE = ("running_mean", "running_var", "logit_scale")


def full_state(state: dict[str, Tensor], vocabulary: CutVocabulary) -> dict[str, Tensor]:
    """The state with the token table grown back to all CLIP ids (unused rows zero), in half precision.

    Statistics of batch normalisation and the logit scale stay in single precision.
    """
    table = torch.zeros(MODEL_CONFIG["text_cfg"]["vocab_size"], state[_TOKEN_TABLE].shape[1])
    table[list(vocabulary.ids)] = state[_TOKEN_TABLE].float()
    table[0] = 0
    grown = {**state, _TOKEN_TABLE: table}
    return {
        name: value.contiguous()
        if not value.is_floating_point() or name.endswith(_SINGLE)
        else value.half().contiguous()
        for name, value in grown.items()
        if not name.endswith("num_batches_tracked")
    }


def export_model(state: dict[str, Tensor], vocabulary: CutVocabulary, folder: Path) -> None:
    """Write the two files open_clip's ``local-dir:`` reads; each appears whole or not at all."""
    config = {
        "model_cfg": {
            **MODEL_CONFIG,
            "vision_cfg": {name: value for name, value in MODEL_CONFIG["vision_cfg"].items() if value is not None},
        },
        "preprocess_cfg": {"mean": list(MEAN), "std": list(STD), "interpolation": "bicubic", "resize_mode": "shortest"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "open_clip_model.safetensors") as temporary:
        save_file(full_state(state, vocabulary), temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)  # safetensors writes files that nobody else can read
    with atomic_path(folder / "open_clip_config.json") as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
