"""Tables that people keep (JSONL, JSON, CSV, TSV, Parquet, lines of text): recognised, and read row by row."""

from tai_engine.tables.recognise import LIST_SUFFIXES, TableOptions, is_list
from tai_engine.tables.table import LINE_COLUMN, Row, Table, short_repr

__all__ = ["LINE_COLUMN", "LIST_SUFFIXES", "Row", "Table", "TableOptions", "is_list", "short_repr"]
