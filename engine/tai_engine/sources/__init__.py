"""Where pictures come from: a folder, a list, tar archives or one file, here or behind an address."""

from tai_engine.sources.item_reading import ItemReader
from tai_engine.sources.items import IMAGE_SUFFIXES, SourceItem
from tai_engine.sources.open import open_source
from tai_engine.sources.source import Source

__all__ = ["IMAGE_SUFFIXES", "ItemReader", "Source", "SourceItem", "open_source"]
