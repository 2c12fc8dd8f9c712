"""The batch loop: a store and a prompt set become a file of tags, in bounded memory, resumable.

Tags are written one commit group at a time into a folder of parts beside the final name (`parts_folder`). A run that
was cut off goes on after the last whole part; when all parts are there, the exporter streams them into the final file
and the folder goes away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from tai_engine.addresses import is_address
from tai_engine.calibration.calibration import Calibration
from tai_engine.errors import UserError
from tai_engine.files import write_atomically
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore
from tai_engine.tagging import exporters
from tai_engine.tagging.exporters import Exporter
from tai_engine.tagging.exporters.item_tags import ExportOptions
from tai_engine.tagging.parts_folder import check_parts_place, hold_parts
from tai_engine.tagging.scoring import ScoringConfig
from tai_engine.tagging.tag_job import SLICE_ITEMS, TagJob, TagPart, part_name
from tai_engine.tagging.tag_selection import Selection

Progress = Callable[[int, int], None]
PartsRunner: TypeAlias = Callable[[TagJob, Path, Sequence[int]], Iterator[TagPart]]
"""Has the parts of these groups made in a folder, here or elsewhere, under the names of `part_name`; any order."""


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


def check_output(out: str | Path, format: str | None = None) -> Exporter:  # noqa: A002 - the word that users type
    """What writes ``out``, having made sure as far as it can be told before the work that it can.

    Raises:
        UserError: for an unknown format, a place that cannot be written, one where something is in the way or that
            another process writes.
    """
    if is_address(str(out)):
        raise UserError(
            f"Tags are written to a file, but --out is the address '{out}': name a file, then copy it there."
        )
    exporter = exporters.get(format or Path(out))
    exporter.check_place(out)
    check_parts_place(Path(out))
    return exporter


def tag_store(
    store: FeatureStore,
    prompts: PromptSet,
    out: str | Path,
    scoring: ScoringConfig | None = None,
    selection: Selection | None = None,
    *,
    calibration: Calibration | None = None,
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
        calibration: fills the column ``probability``, and keeps the promise that ``selection`` asks for.
        format: name of an exporter.
        device: where scores are computed; ``auto`` is the GPU where there is one.
        slice_items: items scored at once.
        progress: called with items done and in all after every group.
        run_parts: makes the parts in other processes; ``device`` and ``slice_items`` then say nothing.

    Raises:
        UserError: for another space, an unknown format, a place that cannot be written or that another process writes,
            or a full disk; what was done so
            far is kept for the next run, and an older file under the final name stays as it was.
    """
    started = time.perf_counter()
    job = TagJob.of(store, prompts, scoring, selection, calibration)
    exporter = check_output(out, format)
    out = Path(out)

    def run_here(job: TagJob, folder: Path, groups: Sequence[int]) -> Iterator[TagPart]:
        for group in groups:
            data, part = job.tag_group(group, device, slice_items)
            write_atomically(folder / part_name(group), data)
            yield part

    counts, groups = store.counts(), store.groups()
    items = counts["done"]
    with hold_parts(out, job) as parts:
        known = {group: parts.part(group) for group in groups}
        done = resumed = sum(part.items for part in known.values() if part)
        if progress and resumed:
            progress(done, items)
        for part in (run_parts or run_here)(job, parts.path, [group for group, part in known.items() if part is None]):
            done += part.items
            if progress:
                progress(done, items)
        tags = parts.check(groups, items)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        options = ExportOptions(untagged=parts.untagged(groups))
        exporter.export(
            parts.batches(groups), out, {**job.provenance, "created": created, "items": str(items)}, options
        )
    return TagReport(str(out), items, tags, counts["failed"], resumed, time.perf_counter() - started)
