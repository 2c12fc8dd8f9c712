"""The embedded model: a small CLIP that knows drawings of COCO's 80 words."""

from __future__ import annotations

from typing import Any

from tai_engine.demo import MODEL_FOLDER
from tai_engine.encoders import Encoder, load_encoder


def load_embedded_clip(**options: Any) -> Encoder:
    """The encoder, with the options of `load_encoder`; stores say ``demo``, not where the package lay."""
    encoder = load_encoder(f"local-dir:{MODEL_FOLDER}", "", **options)
    encoder.provenance["model"] = "demo"
    return encoder
