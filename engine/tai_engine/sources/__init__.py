"""Where pictures come from: a folder, a list, tar archives or one file, here or behind an address."""

from tai_engine.sources.items import IMAGE_SUFFIXES, Source, SourceItem
from tai_engine.sources.opening import open_source
from tai_engine.sources.reading import ItemReader, ReadError

__all__ = ["IMAGE_SUFFIXES", "ItemReader", "ReadError", "Source", "SourceItem", "open_source"]
