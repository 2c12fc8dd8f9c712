"""Fill a store and go on filling it: inputs are decoded ahead by workers, encoded in slices, committed in groups.

Every input ends as done, or as failed with its reason. A run that stops, for whatever reason, leaves the store as of
the last committed group; the same call goes on from there and skips what is in it without decoding.
"""

from tai_engine.caching.filling import free_bytes
from tai_engine.caching.images import cache_images
from tai_engine.caching.report import CacheOptions, CacheProgress, CacheReport, ProgressCallback
from tai_engine.caching.sentences import SentenceInput, cache_sentences

__all__ = [
    "CacheOptions",
    "CacheProgress",
    "CacheReport",
    "ProgressCallback",
    "SentenceInput",
    "cache_images",
    "cache_sentences",
    "free_bytes",
]
