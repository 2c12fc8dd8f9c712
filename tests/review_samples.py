"""Files of tags and folders of pictures for tests of the review."""

import json

import numpy as np
import pyarrow as pa
from PIL import Image

from tai_engine.review.collection import Collection
from tai_engine.tagging.exporters import get
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA

CLASSES = ("cat", "dog", "owl", "fox")


def write_tags(path, rows, classes=CLASSES, **provenance):
    """A file of tags of rows (id, tag, score, probability, threshold); what is left out at the end is null."""
    columns = zip(*(tuple(row) + (None,) * (5 - len(row)) for row in rows), strict=True) if rows else [[]] * 5
    arrays = [pa.array(list(c), field.type) for c, field in zip(columns, TAG_SCHEMA, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=TAG_SCHEMA)
    facts = {"class_names": json.dumps(classes), "complete": "false", "prompts_method": "zero-shot", **provenance}
    get(path).export(table.to_batches(), path, facts)
    return path


def write_pictures(folder, names, size=(60, 40)):
    """JPEG files, each of another colour."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = tuple(np.random.default_rng(number).integers(0, 255, 3).tolist())
        Image.new("RGB", size, colour).save(path, "JPEG")
    return folder


# In the order of looking: c is the least sure, then a, then b; d has no suggestion, and e is not there.
ROWS = [
    ("a.jpg", "dog", 3.0, 0.9),
    ("a.jpg", "cat", 1.0, 0.3),
    ("sub/b.jpg", "owl", 4.0, 0.95),
    ("c.jpg", "cat", 2.0, 0.5),
    ("e.jpg", "fox", 2.0, 0.6),
]
ORDER = ["c.jpg", "a.jpg", "sub/b.jpg", "d.jpg", "e.jpg"]


def write_sample(folder):
    """The file of tags and the folder of pictures of `ROWS`."""
    return (
        write_tags(folder / "tags.parquet", ROWS),
        write_pictures(folder / "pictures", ["a.jpg", "sub/b.jpg", "c.jpg", "d.jpg"]),
    )


def sample_collection(folder):
    return Collection.open(*write_sample(folder))
