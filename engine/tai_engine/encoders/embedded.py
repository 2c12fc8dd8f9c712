"""Models that come with the engine: their names, where they lie, and the constants that were chosen for each.

A model's folder is laid out as ``local-dir:`` wants it, and has a ``constants.toml`` besides: what scoring and tuning
need of this model and of no other is kept with its weights, not in code.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parents[1]
_FOLDERS = {"photos": _PACKAGE / "demo" / "photo_clip"}
_ALIASES = {"demo": "photos"}
EMBEDDED_MODELS = tuple(_FOLDERS)
"""Names that `load_encoder` knows beside open_clip's own."""


def embedded_name(model: str) -> str | None:
    """The name of an embedded model under any of its names; None for another model."""
    name = _ALIASES.get(model, model)
    return name if name in _FOLDERS else None


def embedded_folder(model: str) -> Path | None:
    """Where an embedded model lies; None for another model."""
    name = embedded_name(model)
    return None if name is None else _FOLDERS[name]


@dataclass(frozen=True)
class ModelConstants:
    """What goes with one model, as its ``constants.toml`` has it.

    Attributes:
        image_size: pixels a side.
        image_temperature: tau of the softmax over a picture's rows, zero-shot.
        tag_threshold: the least standardised merged score of a zero-shot tag that is shown.
        initial_words: what contexts start from.
        tuning: settings of `tai_engine.tuning.TuningConfig`, by name.
    """

    image_size: int
    image_temperature: float
    tag_threshold: float
    initial_words: str
    tuning: Mapping[str, Any]


def constants_of(model: str) -> ModelConstants | None:
    """The constants of an embedded model; None for another, which has the published ones."""
    folder = embedded_folder(model)
    if folder is None:
        return None
    found = tomllib.loads((folder / "constants.toml").read_text(encoding="utf-8"))
    tuning = dict(found["tuning"])
    return ModelConstants(
        image_size=found["image_size"],
        image_temperature=found["image_temperature"],
        tag_threshold=found["tag_threshold"],
        initial_words=tuning.pop("initial_words"),
        tuning=tuning,
    )
