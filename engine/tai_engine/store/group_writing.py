"""What a group looks like before it is written: checked, and turned into columns.

Shape legend: N items (slots), D embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tai_engine.features import FeatureBatch, quantise_rows
from tai_engine.store.group_reading import UNKNOWN
from tai_engine.store.labels import pack_labels
from tai_engine.store.spec import HASH_BYTES, STATUS_DONE, STATUS_FAILED, StoredItem, StoreSpec


def check_group(spec: StoreSpec, items: Sequence[StoredItem], batches: Sequence[FeatureBatch]) -> None:
    """Refuse items and features that do not fit each other or the store.

    Raises:
        ValueError: saying what does not fit.
    """
    if not 0 < len(items) <= spec.group_items:
        raise ValueError(f"a group has 1 to {spec.group_items} items, not {len(items)}")
    if len({item.id for item in items}) != len(items):
        raise ValueError("ids are not unique within the group")
    if any(item.status not in ("done", "failed") for item in items):
        raise ValueError("items of a new group are done or failed")
    for name, wanted in (("text", spec.has_text), ("labels", spec.labels is not None)):
        if any((getattr(item, name) is not None) != wanted for item in items):
            raise ValueError(f"every item needs {name} in this store" if wanted else f"this store keeps no {name}")
    if any(item.content_hash is not None and len(item.content_hash) != HASH_BYTES for item in items):
        raise ValueError(f"a content_hash has {HASH_BYTES} bytes")
    if [item.id for item in items if item.status == "done"] != [name for batch in batches for name in batch.ids]:
        raise ValueError("the features are not those of the done items, in their order")
    for batch in batches:
        if batch.space_key != spec.space_key:
            raise ValueError(f"features are of {batch.space_key!r}, the store of {spec.space_key!r}")
        if batch.dim != spec.dim or (batch.coarse_clip is not None) != spec.has_coarse_clip:
            raise ValueError(
                f"features have dim {batch.dim} and coarse_clip {batch.coarse_clip is not None}, "
                f"the store {spec.dim} and {spec.has_coarse_clip}"
            )
        if len(batch) and int(batch.counts.max()) > spec.rows_per_item_max:
            raise ValueError(
                f"an item has {int(batch.counts.max())} fine rows, the store allows {spec.rows_per_item_max}"
            )


def group_columns(
    spec: StoreSpec, items: Sequence[StoredItem], batches: Sequence[FeatureBatch]
) -> dict[str, np.ndarray]:
    """Every array with one entry per slot, that is all but those of fine rows.

    Raises:
        ValueError: for labels outside the classes.
    """
    done = [slot for slot, item in enumerate(items) if item.status == "done"]
    counts_N = np.zeros(len(items), dtype=np.int32)
    counts_N[done] = [count for batch in batches for count in batch.counts.tolist()]
    status_N = np.full(len(items), STATUS_FAILED, dtype=np.uint8)
    status_N[done] = STATUS_DONE

    def in_slots(pieces: Sequence[torch.Tensor]) -> np.ndarray:
        """[N, D]: the rows of the done slots, zeros in the others."""
        slots_ND = np.zeros((len(items), spec.dim), dtype=spec.coarse_dtype)
        if done:
            slots_ND[done] = np.concatenate([_as_stored(piece, spec.coarse_dtype) for piece in pieces])
        return slots_ND

    columns = {
        "id": _strings([item.id for item in items]),
        "status": status_N,
        "count": counts_N,
        "size": np.array([UNKNOWN if item.size is None else item.size for item in items], np.int64),
        "modified_ns": np.array(
            [UNKNOWN if item.modified_ns is None else item.modified_ns for item in items], np.int64
        ),
        "coarse": in_slots([batch.coarse for batch in batches]),
    }
    if spec.has_coarse_clip:
        columns["coarse_clip"] = in_slots([batch.coarse_clip for batch in batches if batch.coarse_clip is not None])
    if spec.has_text:
        columns["text"] = _strings([item.text or "" for item in items])
    if spec.has_content_hash:
        unknown = bytes(HASH_BYTES)
        hashes = b"".join(item.content_hash or unknown for item in items)
        columns["content_hash"] = np.frombuffer(hashes, np.uint8).reshape(len(items), HASH_BYTES)
    if spec.labels is not None:
        columns["labels"] = pack_labels([item.labels or () for item in items], len(spec.labels.class_names))
    return columns


def fine_columns(spec: StoreSpec, batch: FeatureBatch) -> dict[str, np.ndarray]:
    """``fine`` in the type that the store keeps, and ``fine_scale`` where it keeps one; an entry per row.

    Rows that come as int8 are kept as they are in a store of such rows.
    """
    if not spec.is_quantised:
        return {"fine": _as_stored(batch.dequantised().fine, spec.row_dtype)}
    fine_TD, scales_T = (batch.fine, batch.fine_scales) if batch.fine_scales is not None else quantise_rows(batch.fine)
    return {"fine": _as_stored(fine_TD, "int8"), "fine_scale": _as_stored(scales_T, "float32")}


def _as_stored(rows: torch.Tensor, dtype: str) -> np.ndarray:
    converted: np.ndarray = rows.detach().to("cpu", getattr(torch, dtype)).numpy()
    return converted


def _strings(values: list[str]) -> np.ndarray:
    return np.array(values, dtype=np.dtypes.StringDType())
