"""CVAT for images 1.1: one XML file with the labels and the tags of every picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from lxml import etree

from tai_engine.errors import UserError
from tai_engine.files import atomic_path
from tai_engine.tagging.exporters.item_tags import (
    DEFAULT_OPTIONS,
    ExportOptions,
    ImageSizes,
    ItemTags,
    class_names_of,
    items_of,
)


def export(
    batches: Iterable[pa.RecordBatch],
    path: str | Path,
    provenance: Mapping[str, str],
    options: ExportOptions = DEFAULT_OPTIONS,
) -> int:
    """Write tags with ``source="auto"``; pictures are named by their ids, with their sizes where they are at hand.

    Memory: one batch.

    Raises:
        UserError: when the file cannot be written, or a name has a character that XML has no way to write.
    """
    sizes, rows = ImageSizes(options.images), 0
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        etree.xmlfile(file, encoding="utf-8") as xml,
    ):
        xml.write_declaration()
        with xml.element("annotations"):
            xml.write(_text("version", "1.1"), _meta(class_names_of(provenance)), pretty_print=True)
            for number, item in enumerate(items_of(batches, options.untagged)):
                xml.write(_image(number, item, sizes), pretty_print=True)
                rows += len(item.tags)
    return rows


def _meta(names: list[str]) -> Any:
    meta = etree.Element("meta")
    labels = etree.SubElement(etree.SubElement(meta, "task"), "labels")
    for name in names:
        label = etree.SubElement(labels, "label")
        label.extend([_text("name", name), _text("type", "tag"), etree.Element("attributes")])
    return meta


def _image(number: int, item: ItemTags, sizes: ImageSizes) -> Any:
    image = etree.Element("image", id=str(number))
    _set(image, "name", item.id)
    if size := sizes.of(item.id):
        image.set("width", str(size[0]))
        image.set("height", str(size[1]))
    for tag in item.tags:
        _set(etree.SubElement(image, "tag"), "label", tag.name)
    for entry in image:
        entry.set("source", "auto")
    return image


def _text(name: str, text: str) -> Any:
    element = etree.Element(name)
    try:
        element.text = text
    except ValueError as error:
        raise _unwritable(text) from error
    return element


def _set(element: Any, name: str, value: str) -> None:
    try:
        element.set(name, value)
    except ValueError as error:
        raise _unwritable(value) from error


def _unwritable(name: str) -> UserError:
    return UserError(
        f"The name {name!r} has a control character, which XML has no way to write: "
        "export to another format, or rename it."
    )
