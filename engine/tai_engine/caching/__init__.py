"""Bring a store up to date with its inputs: they are decoded ahead by workers, encoded in slices, committed in groups.

Every input ends as done, or as failed with its reason. A run that stops, for whatever reason, leaves the store as of
the last committed group; the same call goes on from there and skips what is in it without decoding.

Names are imported when they are first used, for the processes that only decode must not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tai_engine.caching.decode_worker import Preparation
    from tai_engine.caching.encoding import encode_groups
    from tai_engine.caching.feed import GroupTask
    from tai_engine.caching.images import GroupRunner, cache_images, image_spec, update_store
    from tai_engine.caching.report import CacheOptions, CacheProgress, CacheReport, ProgressCallback
    from tai_engine.caching.sentences import SentenceInput, cache_sentences
    from tai_engine.caching.space import free_bytes
    from tai_engine.caching.stages import Stages

__all__ = [
    "CacheOptions",
    "CacheProgress",
    "CacheReport",
    "GroupRunner",
    "GroupTask",
    "Preparation",
    "ProgressCallback",
    "SentenceInput",
    "Stages",
    "cache_images",
    "cache_sentences",
    "encode_groups",
    "free_bytes",
    "image_spec",
    "update_store",
]

_HOMES = {
    "decode_worker": ("Preparation",),
    "encoding": ("encode_groups",),
    "feed": ("GroupTask",),
    "images": ("GroupRunner", "cache_images", "image_spec", "update_store"),
    "report": ("CacheOptions", "CacheProgress", "CacheReport", "ProgressCallback"),
    "sentences": ("SentenceInput", "cache_sentences"),
    "space": ("free_bytes",),
    "stages": ("Stages",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'tai_engine.caching' has no attribute {name!r}")
    return getattr(import_module(f"tai_engine.caching.{_HOME_OF[name]}"), name)
