"""Features on disk; the format is described in STORE_FORMAT.md."""

from tai_engine.store.feature_store import FeatureStore
from tai_engine.store.inventory import IdSet
from tai_engine.store.layout.labels import LabelSpec, content_of
from tai_engine.store.layout.spec import SCHEMA_VERSION, StoredItem, StoreSpec
from tai_engine.store.reader import CoarseBatch

__all__ = [
    "SCHEMA_VERSION",
    "CoarseBatch",
    "FeatureStore",
    "IdSet",
    "LabelSpec",
    "StoreSpec",
    "StoredItem",
    "content_of",
]
