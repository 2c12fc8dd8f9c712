"""Stores of schema 1, written from its format page with zarr and json alone."""

import hashlib
import json

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

DIM, ROWS, GROUP, CHUNK = 8, 3, 6, 2


def write_v1_store(path, items, *, sentences=False):
    """A store of items (id, reason or None, size), all of three fine rows; sentences have a text and the label 1 of 2.

    Returns the vectors of the done items by id: coarse and fine.
    """
    random = np.random.default_rng(0)

    def unit(rows):
        values = random.standard_normal((rows, DIM))
        return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)

    labels = {
        "class_names": ["x", "y"], "vocabulary": "v", "vocabulary_fingerprint": "f", "corpus": {},
    }  # fmt: skip
    attributes = {
        "schema_version": 1, "kind": "sentences" if sentences else "images", "space_key": "space:1",
        "recipe_key": "recipe:1", "dim": DIM, "rows_per_item_max": ROWS, "row_dtype": "float16", "has_fine": True,
        "has_coarse_clip": False, "has_text": sentences, "has_labels": sentences,
        "labels": labels if sentences else None, "group_items": GROUP, "chunk_items": CHUNK, "recipe": {"size": 224},
        "provenance": {"model": "RN50"}, "created": "2025-01-02T03:04:05+00:00",
    }  # fmt: skip
    store = zarr.create_group(path, zarr_format=3, attributes={"tai_engine": attributes})
    store.create_group("commits")
    groups = -(-len(items) // GROUP)
    fine_chunk = 4096 if sentences else CHUNK * ROWS
    group_rows = -(-GROUP * ROWS // fine_chunk) * fine_chunk
    columns = {"id": str, "status": "uint8", "count": "int32", "size": "int64", "modified_ns": "int64"}
    if sentences:
        columns["text"] = str
    arrays = {name: ((GROUP,), dtype) for name, dtype in columns.items()}
    arrays |= {"coarse": ((CHUNK, DIM), "float16"), "fine": ((fine_chunk, DIM), "float16")}
    if sentences:
        arrays["labels"] = ((GROUP, 1), "uint8")
    opened = {}
    for name, (chunks, dtype) in arrays.items():
        opened[name] = store.create_array(
            name,
            shape=(groups * (group_rows if name == "fine" else GROUP), *chunks[1:]),
            chunks=chunks,
            dtype=dtype,
            compressors=[Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},
            config={"write_empty_chunks": True},
        )
    vectors = {}
    for group in range(groups):
        slots = items[group * GROUP : (group + 1) * GROUP]
        good = [reason is None for _, reason, _ in slots]
        coarse = np.where(np.array(good)[:, None], unit(len(slots)), np.float16(0))
        fine = unit(ROWS * sum(good))
        for n, slot in enumerate(np.flatnonzero(good)):
            vectors[slots[slot][0]] = (coarse[slot], fine[n * ROWS : (n + 1) * ROWS])
        values = {
            "id": np.array([name for name, _, _ in slots], dtype=np.dtypes.StringDType()),
            "status": np.where(good, 1, 2),
            "count": np.where(good, ROWS, 0),
            "size": np.array([size for _, _, size in slots]),
            "modified_ns": np.full(len(slots), -1),
            "coarse": coarse,
        }
        if sentences:
            values["text"] = np.array([f"text {name}" for name, _, _ in slots], dtype=np.dtypes.StringDType())
            values["labels"] = np.full((len(slots), 1), 2)
        for name, column in values.items():
            opened[name][group * GROUP : group * GROUP + len(slots)] = column
        opened["fine"][group * group_rows : group * group_rows + len(fine)] = fine
        record = {
            "group": group, "items": len(slots), "done": sum(good), "first_row": group * group_rows, "rows": len(fine),
            "bytes": _group_bytes(path, group, arrays, len(slots), len(fine), group_rows),
            "failed": {str(slot): reason for slot, (_, reason, _) in enumerate(slots) if reason is not None},
        }  # fmt: skip
        if sentences:
            lines = [json.dumps([name, f"text {name}", [1]]).encode() for name, _, _ in slots]
            digests = (int.from_bytes(hashlib.blake2b(line, digest_size=16).digest(), "big") for line in lines)
            record["digest"] = f"{sum(digests) % 2**128:032x}"
        (path / "commits" / f"{group:08d}.json").write_text(json.dumps(record))
    return vectors


def _group_bytes(path, group, arrays, items, rows, group_rows):
    total = 0
    for name, (chunks, _) in arrays.items():
        per_group = (group_rows if name == "fine" else GROUP) // chunks[0]
        used = -(-(rows if name == "fine" else items) // chunks[0])
        for index in range(group * per_group, group * per_group + used):
            total += (path / name / f"c.{index}{'.0' * (len(chunks) - 1)}").stat().st_size
    return total
