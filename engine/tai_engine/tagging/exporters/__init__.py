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
from tai_engine.files import check_place
from tai_engine.tagging.exporters import (
    coco_json,
    csv_tables,
    cvat_xml,
    datumaro_dataset,
    fiftyone_dataset,
    huggingface_folder,
    jsonl,
    label_studio,
    parquet,
    xmp_sidecars,
)
from tai_engine.tagging.exporters.folders import require_free
from tai_engine.tagging.exporters.item_tags import DEFAULT_OPTIONS, ExportOptions

ExportFunction = Callable[[Iterable[pa.RecordBatch], str | Path, Mapping[str, str], ExportOptions], int]


@dataclass(frozen=True)
class Exporter:
    """One file format.

    Attributes:
        name: as it is chosen by, e.g. ``"parquet"``.
        suffixes: file name endings that choose it too, lower case.
        function: ``function(batches, path, provenance, options) -> rows written``; see the format's module.
        makes: ``"file"``, ``"folder"`` or ``"sidecars"``.
        about: a few words on who reads it.
        place: what is written where the user says a path, where that is not always the path itself.
    """

    name: str
    suffixes: tuple[str, ...]
    function: ExportFunction
    makes: str
    about: str
    place: Callable[[Path], Path] = Path

    def check_place(self, path: str | Path) -> None:
        """Make sure, as far as it can be told before the work, that ``path`` can be written to.

        Raises:
            UserError: when something is in the way, or the folder that it lies in is not writable.
        """
        path = self.place(Path(path))
        if self.makes == "file":
            check_place(path)
            return
        if self.makes == "folder":
            require_free(path)
        check_place(path.parent if self.makes == "folder" else path, folder=True)

    def export(
        self,
        batches: Iterable[pa.RecordBatch],
        path: str | Path,
        provenance: Mapping[str, str],
        options: ExportOptions = DEFAULT_OPTIONS,
    ) -> int:
        """Write a tag table; gives the number of rows.

        Raises:
            UserError: when it cannot be written, or the format cannot hold it.
            ValueError: for batches that are not a tag table.
        """
        return self.function(batches, self.place(Path(path)), provenance, options)


EXPORTERS: Mapping[str, Exporter] = {
    exporter.name: exporter
    for exporter in (
        Exporter("parquet", (".parquet",), parquet.export, "file", "tables; every other command reads it"),
        Exporter("jsonl", (".jsonl", ".ndjson"), jsonl.export, "file", "a line per picture and tag"),
        Exporter("csv", (".csv",), csv_tables.export_long, "file", "a row per picture and tag"),
        Exporter("csv-wide", (), csv_tables.export_wide, "file", "a row per picture, a column per tag"),
        Exporter("coco", (), coco_json.export, "file", "COCO's JSON without boxes (CVAT drops these: take cvat)"),
        Exporter("cvat", (".xml",), cvat_xml.export, "file", "CVAT for images 1.1"),
        Exporter("datumaro", (), datumaro_dataset.export, "folder", "Datumaro, CVAT"),
        Exporter("fiftyone", (), fiftyone_dataset.export, "file", "FiftyOneImageClassificationDataset's labels.json"),
        Exporter(
            "huggingface",
            (),
            huggingface_folder.export,
            "file",
            "ImageFolder's metadata.jsonl",
            huggingface_folder.place,
        ),
        Exporter("label-studio", (), label_studio.export, "folder", "tasks with predictions"),
        Exporter("xmp", (), xmp_sidecars.export, "sidecars", "digiKam, darktable, Lightroom, Immich"),
    )
}

_REFUSED = {
    "yolo-cls": "YOLO's classification data sets hold one class a picture, in a folder of its name, and here a picture "
    "has several tags: take coco, datumaro or csv-wide for training on several labels",
}


def get(name_or_path: str | Path) -> Exporter:
    """The exporter of that name, or else of that file name's ending.

    Raises:
        UserError: for an unknown name or ending; it lists the known ones.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, str) and text.lower() in EXPORTERS:
        return EXPORTERS[text.lower()]
    if text.lower() in _REFUSED:
        raise UserError(f"Tags cannot be exported to {text!r}: {_REFUSED[text.lower()]}.")
    suffix = Path(text).suffix.lower()
    for exporter in EXPORTERS.values():
        if suffix in exporter.suffixes:
            return exporter
    if suffix or isinstance(name_or_path, Path):
        known = ", ".join(f"{ending} ({e.name})" for e in EXPORTERS.values() for ending in e.suffixes)
        given = f"the ending {suffix!r}" if suffix else "no ending"
        raise UserError(f"The file name {text!r} has {given}, which names no known format; choose one of {known}.")
    raise unknown_choice("export format", text, EXPORTERS)
