"""Labels of pictures from data sets for detection: COCO's JSON and Pascal VOC's XML."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tai_engine.errors import UserError
from tai_engine.evaluation.label_matrix import LabelMatrix
from tai_engine.regular_files import printable
from tai_engine.sources.ids import id_from_path
from tai_engine.tables import Table, open_bytes, short_repr

MAX_XML_BYTES = 16 * 2**20
VOC_FOLDER = "Annotations"


def read_coco(table: Table, matrix: LabelMatrix) -> bool:
    """Read COCO's instances: every picture in ``images`` by its ``file_name``, its labels from ``annotations``.

    Memory: a number and a name per picture, and one annotation.

    Args:
        table: the JSON file.
        matrix: takes the labels.

    Returns:
        Whether it is such a file: one with ``categories``.

    Raises:
        UserError: for damaged JSON, or entries without their names and numbers.
    """
    what = table.what
    names: dict[Any, str] = {}
    files: dict[Any, str] = {}
    for number, (key, entry) in enumerate(table.elements(frozenset({"categories", "images"})), 1):
        name_key, known = ("name", names) if key == "categories" else ("file_name", files)
        where = f"{key}, entry {number} of the {what}"
        name, index = _field(entry, name_key, where), _field(entry, "id", where)
        if not isinstance(name, str) or not name:
            raise UserError(f"The {name_key} in {key}, entry {number} of the {what} is {short_repr(name)}, not text.")
        if known.setdefault(index, name) != name:
            raise UserError(
                f"In the {what} two {key} have the id {short_repr(index)}: {known[index]!r} and {name!r}; give each "
                "an id of its own."
            )
    if not names:
        return False
    for index, name in files.items():
        files[index] = id_from_path(name)
        matrix.row(files[index])
    for number, (_, entry) in enumerate(table.elements(frozenset({"annotations"})), 1):
        where = f"in annotation {number} of the {what}"
        image, category = (_field(entry, name, where) for name in ("image_id", "category_id"))
        for index, known, place in ((image, files, "images"), (category, names, "categories")):
            if index not in known:
                raise UserError(f"{where.capitalize()} {short_repr(index)} is none of its {place}: mend or remove it.")
        matrix.mark(files[image], names[category], 1, where)
    return True


def _field(entry: Any, name: str, where: str) -> Any:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, str | int):
        place = where.removeprefix("in ")
        raise UserError(f"There is no {name!r} in {place} that is text or a number: is it COCO's instances JSON?")
    return value


def read_voc(folder: Path, matrix: LabelMatrix) -> None:
    """Read Pascal VOC's XML files: a picture a file, by its ``filename`` and the folder that the file is in.

    A class all of whose objects are difficult is difficult. Memory: one file.

    Args:
        folder: with XML files in it or below it, or with a folder ``Annotations`` of them.
        matrix: takes the labels.

    Raises:
        UserError: for a folder without such files, or a damaged one.
    """
    top = folder / VOC_FOLDER if (folder / VOC_FOLDER).is_dir() else folder
    for parent, folders, names in os.walk(top):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(".xml"):
                _read_voc_file(Path(parent, name), top, matrix)
    if not len(matrix):
        raise UserError(
            f"The folder '{printable(folder)}' holds no XML files of Pascal VOC: give the folder {VOC_FOLDER!r}, or "
            "a table of labels."
        )


def _read_voc_file(path: Path, top: Path, matrix: LabelMatrix) -> None:
    what = f"annotation '{printable(path)}'"
    with open_bytes(path, what) as file:
        data = file.read(MAX_XML_BYTES + 1)
    if len(data) > MAX_XML_BYTES:
        raise UserError(f"The {what} has more than {MAX_XML_BYTES:,} bytes, the most that tai-engine reads.")
    plain = data.replace(b"\0", b"")  # in UTF-16 too
    if b"<!ENTITY" in plain or b"<!DOCTYPE" in plain:
        raise UserError(f"The {what} declares a document type, which no annotation of Pascal VOC does: remove it.")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"The {what} is not valid XML ({error}): mend it.") from None
    file_name = (root.findtext("filename") or "").strip()
    if root.tag != "annotation" or not file_name:
        raise UserError(f"The {what} is none of Pascal VOC's: it needs <annotation> with a <filename> in it.")
    item_id = id_from_path(os.fspath(path.parent.relative_to(top) / file_name))
    if matrix.has(item_id):
        raise UserError(f"The picture {item_id!r} occurs in {matrix.place(item_id)} and in the {what}: remove one.")
    matrix.row(item_id, f"the annotation '{printable(path)}'")
    difficult: dict[str, bool] = {}
    for thing in root.iter("object"):
        name = (thing.findtext("name") or "").strip()
        is_difficult = (thing.findtext("difficult") or "0").strip() == "1"
        difficult[name] = difficult.get(name, True) and is_difficult
    for name, is_difficult in difficult.items():
        matrix.mark(item_id, name, 0 if is_difficult else 1, f"in the {what}")
