"""A small tag table with odd names, for the tests of every format."""

import json

import pyarrow as pa

from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA

CLASSES = ["dog", "traffic light", 'größe <1> & "2"', "hatsune_miku", "and/or", "a|b", "狗"]
PROVENANCE = {"class_names": json.dumps(CLASSES), "prompts_sha256": "ab" * 32, "space_key": "rn50:1"}
# Pictures in the order of the table: (id, ((tag, score, probability), ...)).
PICTURES = (
    ("a.jpg", (("dog", 0.3, 0.75), ("traffic light", -1.25, 0.5))),
    ("sub folder/ü & 'x'.png", (('größe <1> & "2"', 0.1, 0.25), ("and/or", 0.1, 0.125), ("狗", 0.05, 0.0))),
    ("10% off, 😀.jpg", (("hatsune_miku", 2.0, 1.0), ("a|b", 1.5, 0.875))),
)


def batches(pictures=PICTURES, calibrated=True, size=2):
    rows = [
        {"id": name, "tag": tag, "score": score, "probability": p if calibrated else None, "threshold": None}
        for name, tags in pictures
        for tag, score, p in tags
    ]
    return pa.Table.from_pylist(rows, schema=TAG_SCHEMA).to_batches(max_chunksize=size)


def names_of(pictures=PICTURES):
    """Picture to names of tags."""
    return {name: [tag for tag, *_ in tags] for name, tags in pictures}
