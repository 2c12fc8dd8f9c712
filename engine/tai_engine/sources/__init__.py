"""Where pictures come from: a folder, a list, tar archives or one file, here or behind an address."""

from tai_engine.sources.item_reading import ItemReader, ReadError
from tai_engine.sources.items import IMAGE_SUFFIXES, Source, SourceItem
from tai_engine.sources.open import open_source

__all__ = ["IMAGE_SUFFIXES", "ItemReader", "ReadError", "Source", "SourceItem", "open_source"]
