"""Tag tables as files that other tools read, one format per module.

Every exporter streams: it holds one block of rows, writes to a temporary name and renames at the end, so that an older
file stays as it was until the new one is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tai_engine.errors import UserError, unknown_choice
from tai_engine.tagging.exporters import jsonl, parquet

ExportFunction = Callable[[Iterable[pa.RecordBatch], str | Path, Mapping[str, str]], int]


@dataclass(frozen=True)
class Exporter:
    """One file format.

    Attributes:
        name: as it is chosen by, e.g. ``"parquet"``.
        suffixes: file name endings that choose it too, lower case.
        export: ``export(batches, path, provenance) -> rows written``; see the format's module.
    """

    name: str
    suffixes: tuple[str, ...]
    export: ExportFunction


EXPORTERS: Mapping[str, Exporter] = {
    exporter.name: exporter
    for exporter in (
        Exporter("parquet", (".parquet",), parquet.export),
        Exporter("jsonl", (".jsonl", ".ndjson"), jsonl.export),
    )
}


def get(name_or_path: str | Path) -> Exporter:
    """The exporter of that name, or else of that file name's ending.

    Raises:
        UserError: for an unknown name or ending; it lists the known ones.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, str) and text.lower() in EXPORTERS:
        return EXPORTERS[text.lower()]
    suffix = Path(text).suffix.lower()
    for exporter in EXPORTERS.values():
        if suffix in exporter.suffixes:
            return exporter
    if suffix or isinstance(name_or_path, Path):
        known = ", ".join(f"{ending} ({e.name})" for e in EXPORTERS.values() for ending in e.suffixes)
        given = f"the ending {suffix!r}" if suffix else "no ending"
        raise UserError(f"The file name {text!r} has {given}, which names no known format; choose one of {known}.")
    raise unknown_choice("export format", text, EXPORTERS)
