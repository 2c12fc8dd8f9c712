"""Tables that people keep (JSONL, JSON, CSV, TSV, Parquet, lines of text): recognised, and read row by row."""

from tai_engine.tables.json_values import JsonArrays, parse_json, read_list
from tai_engine.tables.recognise import LIST_SUFFIXES, TableOptions, is_list
from tai_engine.tables.table import LINE_COLUMN, Row, Table, short_repr
from tai_engine.tables.text_files import open_bytes, read_small

__all__ = [
    "LINE_COLUMN",
    "LIST_SUFFIXES",
    "JsonArrays",
    "Row",
    "Table",
    "TableOptions",
    "is_list",
    "open_bytes",
    "parse_json",
    "read_list",
    "read_small",
    "short_repr",
]
