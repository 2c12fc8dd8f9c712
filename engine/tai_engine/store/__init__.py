"""Features on disk; the format is described in STORE_FORMAT.md."""

from tai_engine.store.feature_store import FeatureStore
from tai_engine.store.id_set import IdSet
from tai_engine.store.spec import SCHEMA_VERSION, StoredItem, StoreSpec

__all__ = ["SCHEMA_VERSION", "FeatureStore", "IdSet", "StoreSpec", "StoredItem"]
