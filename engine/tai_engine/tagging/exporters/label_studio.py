"""Label Studio: tasks with predictions, in files of some thousand pictures, and the labelling configuration for them.

The folder holds ``tasks-00000.json``, ... and ``labelling-config.xml``. Label Studio opens no absolute paths: pictures
are named by its own local-files address, ``/data/local-files/?d=`` and the path relative to the folder that the server
was started with (``LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT``), unless another prefix is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import pyarrow as pa

from tai_engine.tagging.exporters.folders import whole_folder
from tai_engine.tagging.exporters.item_tags import (
    DEFAULT_OPTIONS,
    ExportOptions,
    ItemTags,
    class_names_of,
    items_of,
)
from tai_engine.tagging.exporters.json_pieces import json_text

CONTROL, OBJECT, IMAGE = "tags", "image", "image"
LOCAL_FILES = "/data/local-files/?d="


def export(
    batches: Iterable[pa.RecordBatch],
    path: str | Path,
    provenance: Mapping[str, str],
    options: ExportOptions = DEFAULT_OPTIONS,
) -> int:
    """Write a folder of task files; see the module.

    A task's score is the mean probability of its tags, by which Label Studio can sort; it is left out where tags are
    not calibrated.

    Memory: one batch and the tasks of one file.

    Raises:
        UserError: when the folder exists or cannot be written.
    """
    version = f"tai-engine {provenance.get('prompts_sha256', '')[:12]}".strip()
    rows, items = 0, items_of(batches, options.untagged)
    with whole_folder(path) as folder:
        (folder / "labelling-config.xml").write_text(_config(class_names_of(provenance)), encoding="utf-8")
        number = 0
        while block := list(islice(items, options.file_items)):
            tasks = (json_text(_task(item, version, options.image_prefix or LOCAL_FILES)) for item in block)
            (folder / f"tasks-{number:05d}.json").write_text("[\n" + ",\n".join(tasks) + "\n]\n", encoding="utf-8")
            rows += sum(len(item.tags) for item in block)
            number += 1
    return rows


def _task(item: ItemTags, version: str, prefix: str) -> dict[str, Any]:
    result: dict[str, Any] = {
        "id": "tags",
        "from_name": CONTROL,
        "to_name": OBJECT,
        "type": "choices",
        "value": {"choices": [tag.name for tag in item.tags]},
    }
    prediction: dict[str, Any] = {"model_version": version, "result": [result] if item.tags else []}
    known = [tag.probability for tag in item.tags if tag.probability is not None]
    if known:
        prediction["score"] = sum(known) / len(known)
    return {"data": {IMAGE: prefix + quote(item.id), "id": item.id}, "predictions": [prediction]}


def _config(names: list[str]) -> str:
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in names)
    return (
        f'<View>\n  <Image name="{OBJECT}" value="${IMAGE}"/>\n'
        f'  <Choices name="{CONTROL}" toName="{OBJECT}" choice="multiple" showInline="true">\n{choices}\n  </Choices>\n'
        "</View>\n"
    )
