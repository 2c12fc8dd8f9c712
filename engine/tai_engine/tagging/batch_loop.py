"""The batch loop: a store and a prompt set become a file of tags, in bounded memory, resumable.

Tags are written one commit group at a time into a folder of parts beside the final name. A run that was cut off goes on
after the last whole part; when all parts are there, the exporter streams them into the final file and the folder goes
away.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch, SparseScoreBatch, require_same_space
from tai_engine.files import write_atomically
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore
from tai_engine.tagging import exporters
from tai_engine.tagging.exporters.table import TAG_SCHEMA
from tai_engine.tagging.scoring import ScoringConfig, default_scoring, in_effect, score_tags

Progress = Callable[[int, int], None]
PartsRunner: TypeAlias = Callable[[Path, Sequence[int]], Iterator["TagPart"]]
"""Has the parts of these groups made in a folder, here or elsewhere, under the names of `part_name`; any order."""

SLICE_ITEMS = 256


@dataclass(frozen=True)
class Selection:
    """Which tags of an item are written.

    Attributes:
        top_k: at most so many, best first; None means every class.
        threshold: the least score, as it is written: after normalising. None for no limit.

    Raises:
        UserError: for a count below 1.
    """

    top_k: int | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"The number of tags per picture is {self.top_k}; it must be 1 or more.")

    @property
    def is_complete(self) -> bool:
        """Whether every class of every item is written, as an exact evaluation needs it."""
        return self.top_k is None and self.threshold is None


@dataclass(frozen=True)
class TagReport:
    """What a tagging run did.

    Attributes:
        path: the finished file.
        items: items with features, all of them scored.
        tags: rows written.
        items_without_features: items that failed when the store was filled.
        resumed_items: items whose tags were already there from a run that was cut off.
        seconds: wall time.
    """

    path: str
    items: int
    tags: int
    items_without_features: int
    resumed_items: int
    seconds: float

    @property
    def items_per_second(self) -> float:
        """Rate of the items that this run scored."""
        return (self.items - self.resumed_items) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class TagPart:
    """What is in the part of one commit group.

    Attributes:
        group: its number.
        items: scored.
        tags: rows.
    """

    group: int
    items: int
    tags: int


def tag_batch(
    batch: FeatureBatch,
    prompts: PromptSet,
    scoring: ScoringConfig | None = None,
    selection: Selection | None = None,
    *,
    device: torch.device | str = "auto",
) -> SparseScoreBatch:
    """The tags of a batch in memory, best first; memory and ``device`` as `score_tags` has them."""
    selection = selection or Selection()
    with torch.inference_mode():
        return score_tags(batch, prompts, scoring, top_k=selection.top_k, threshold=selection.threshold, device=device)


def tag_table(tags: SparseScoreBatch, threshold: float | None = None) -> pa.Table:
    """One row per item and tag, in the schema that every exporter reads."""
    counts = tags.offsets.diff().numpy()
    rows = len(tags.scores)
    return pa.table(
        {
            "id": pa.array(np.repeat(np.array(tags.ids, dtype=object), counts), pa.string()),
            "tag": pa.DictionaryArray.from_arrays(
                pa.array(tags.class_indices.numpy(), pa.int32()), pa.array(tags.class_names, pa.string())
            ).cast(pa.string()),
            "score": pa.array(tags.scores.numpy(), pa.float32()),
            "probability": pa.nulls(rows, pa.float32()),
            "threshold": pa.nulls(rows, pa.float32())
            if threshold is None
            else pa.array([threshold] * rows, pa.float32()),
        },
        schema=TAG_SCHEMA,
    )


def tag_store(
    store: FeatureStore,
    prompts: PromptSet,
    out: str | Path,
    scoring: ScoringConfig | None = None,
    selection: Selection | None = None,
    *,
    format: str | None = None,  # noqa: A002 - the word that users type
    device: str = "auto",
    slice_items: int = SLICE_ITEMS,
    progress: Progress | None = None,
    run_parts: PartsRunner | None = None,
) -> TagReport:
    """Tag every item of ``store`` that has features.

    Memory: features of ``slice_items`` items, 32 MiB of scores (``score_tags``) and the tags of one commit group,
    whatever the store's size.

    Args:
        store: the features.
        prompts: the class vectors, of the same space.
        out: the final file; its suffix chooses the format unless ``format`` does.
        scoring: how to score; by default as the prompt set was made.
        selection: which tags to keep; by default all.
        format: name of an exporter.
        device: where scores are computed; ``auto`` is the GPU where there is one.
        slice_items: items scored at once.
        progress: called with items done and in all after every group.
        run_parts: makes the parts in other processes; ``device`` and ``slice_items`` then say nothing.

    Raises:
        UserError: for another space, an unknown format, a place that cannot be written or a full disk; what was done so
            far is kept for the next run, and an older file under the final name stays as it was.
    """
    started = time.perf_counter()
    require_same_space(store.spec.space_key, prompts.space_key, f"the store '{store.path}'", "the prompt set")
    out = Path(out)
    exporter = exporters.get(format or out)
    scoring = in_effect(scoring or default_scoring(prompts, "merged" if store.spec.has_fine else "coarse"), prompts)
    selection = selection or Selection()
    provenance = tag_provenance(store, prompts, scoring, selection)
    parts = _open_parts(out, {**provenance, "store": store.fingerprint})

    def run_here(folder: Path, groups: Sequence[int]) -> Iterator[TagPart]:
        for group in groups:
            data, part = tag_group(store, group, prompts, scoring, selection, device, slice_items)
            write_atomically(folder / part_name(group), data)
            yield part

    counts = store.counts()
    items = counts["done"]
    paths = {group: parts / part_name(group) for group in store.groups()}
    resumed = sum(part_items(path) for path in paths.values() if path.exists())
    done = resumed
    if progress and resumed:
        progress(done, items)
    for part in (run_parts or run_here)(parts, [group for group, path in paths.items() if not path.exists()]):
        done += part.items
        if progress:
            progress(done, items)
    tags = sum(pq.read_metadata(path).num_rows for path in paths.values())
    created = datetime.now(UTC).isoformat(timespec="seconds")
    exporter.export(_read_parts(paths.values()), out, {**provenance, "created": created, "items": str(items)})
    shutil.rmtree(parts)
    return TagReport(str(out), items, tags, counts["failed"], resumed, time.perf_counter() - started)


def tag_provenance(
    store: FeatureStore, prompts: PromptSet, scoring: ScoringConfig, selection: Selection
) -> dict[str, str]:
    """Where tags come from, in words that a file of them carries."""
    vectors = hashlib.sha256(prompts.global_vectors.numpy().tobytes() + prompts.local_vectors.numpy().tobytes())
    return {
        "space_key": store.spec.space_key,
        "recipe_key": store.spec.recipe_key,
        "encoder": json.dumps(dict(store.spec.provenance), sort_keys=True),
        "class_names": json.dumps(prompts.class_names),
        "prompts_method": prompts.method,
        "prompts": json.dumps(dict(prompts.metadata), sort_keys=True),
        "prompts_sha256": vectors.hexdigest(),
        "scoring": json.dumps(asdict(scoring), sort_keys=True),
        "selection": json.dumps(asdict(selection), sort_keys=True),
        "complete": json.dumps(selection.is_complete),
    }


def _open_parts(out: Path, job: dict[str, str]) -> Path:
    """The folder of parts of this very job: an unfinished one of another job under the same name is discarded."""
    folder = out.with_name(out.name + ".parts")
    job_file = folder / "job.json"
    text = json.dumps(job, sort_keys=True)
    if folder.exists() and not (job_file.exists() and job_file.read_text(encoding="utf-8") == text):
        shutil.rmtree(folder)
    if not folder.exists():
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise UserError(
                f"Tags cannot be written to '{out}' ({error.strerror}): choose another place with --out."
            ) from error
        write_atomically(job_file, text.encode())
    return folder


def part_name(group: int) -> str:
    """Which file of a folder of parts holds the tags of a commit group."""
    return f"{group:08d}.parquet"


def part_items(path: Path | BinaryIO) -> int:
    """Items that a part was made of, with tags or without."""
    return int(pq.read_metadata(path).metadata[b"items"])


def tag_group(
    store: FeatureStore,
    group: int,
    prompts: PromptSet,
    scoring: ScoringConfig,
    selection: Selection,
    device: str = "auto",
    slice_items: int = SLICE_ITEMS,
) -> tuple[bytes, TagPart]:
    """Tag the items of one commit group: a Parquet file, and what is in it.

    Memory: features of ``slice_items`` items, 32 MiB of scores (``score_tags``) and the tags of the group.

    Raises:
        UserError: if the group is damaged.
    """
    items, tables = 0, [TAG_SCHEMA.empty_table()]
    for batch in store.iter_batches(slice_items, with_fine=scoring.which != "coarse", groups=[group]):
        tags = tag_batch(batch, prompts, scoring, selection, device=device)
        tables.append(tag_table(tags, selection.threshold))
        items += len(batch)
    buffer = io.BytesIO()
    table = pa.concat_tables(tables).replace_schema_metadata({"items": str(items)})
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue(), TagPart(group, items, table.num_rows)


def _read_parts(paths: Iterable[Path]) -> Iterator[pa.RecordBatch]:
    for path in paths:
        for batch in pq.ParquetFile(path).iter_batches():
            yield batch.replace_schema_metadata(None)
