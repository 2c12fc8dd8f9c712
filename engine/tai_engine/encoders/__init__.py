"""Photos and sentences to features of one embedding space, with any model that open_clip knows.

Names are imported when they are first used: open_clip takes seconds, and who only asks for a device needs none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tai_engine.encoders.open_clip_import import import_open_clip

if TYPE_CHECKING:
    from tai_engine.encoders.clip import Encoder, load_encoder
    from tai_engine.encoders.weights import cached_weights

__all__ = ["Encoder", "cached_weights", "load_encoder"]

_HOME_OF = {"Encoder": "clip", "load_encoder": "clip", "cached_weights": "weights"}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'tai_engine.encoders' has no attribute {name!r}")
    import_open_clip()
    return getattr(import_module(f"tai_engine.encoders.{_HOME_OF[name]}"), name)
