"""Photos and sentences to features of one embedding space, with any model that open_clip knows."""

from tai_engine.encoders.clip import Encoder, load_encoder
from tai_engine.encoders.weights import cached_weights

__all__ = ["Encoder", "cached_weights", "load_encoder"]
