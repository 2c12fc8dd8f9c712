"""Where pictures come from: a folder, a list, tar archives or one file, here or behind an address."""

from tai_engine.picture_kinds import IMAGE_SUFFIXES
from tai_engine.sources.item_reading import ItemReader
from tai_engine.sources.items import SourceItem
from tai_engine.sources.open import open_source
from tai_engine.sources.source import Source, SourceOptions

__all__ = ["IMAGE_SUFFIXES", "ItemReader", "Source", "SourceItem", "SourceOptions", "open_source"]
