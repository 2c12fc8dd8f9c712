"""The embedded demonstration: drawn scenes with exact truth, sentences about them, and a small CLIP that knows them."""

from pathlib import Path

MODEL_FOLDER = Path(__file__).parent / "clip"
"""The embedded model, as open_clip's ``local-dir:`` reads it."""
