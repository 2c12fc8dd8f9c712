"""A file of tags together with the journal of its review, as rows for an export."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tai_engine.errors import UserError
from tai_engine.regular_files import printable
from tai_engine.review.decisions import Decisions, PictureDecision
from tai_engine.review.journal import default_journal, read_decisions
from tai_engine.review.merging import merge
from tai_engine.review.respelt_decisions import respelt
from tai_engine.tagging.tag_rows import iter_tag_rows, read_class_names, read_provenance, read_untagged


def decided_rows(
    tags: Path, decisions: Path | None = None
) -> tuple[Iterator[pa.RecordBatch], dict[str, str], Path | None]:
    """The tags that hold, where they come from, and the journal whose decisions they have.

    Without a journal these are the rows of the file. The words that people added stand among the class names.

    Memory: as `merge`.

    Args:
        tags: the file of tags.
        decisions: the journal; by default the one beside the tags, where there is one.

    Raises:
        UserError: for a file that is missing, damaged or none of ours.
    """
    provenance = read_provenance(tags)
    beside = default_journal(tags)
    journal = decisions or (beside if beside.exists() else None)
    rows = _each_picture_once(iter_tag_rows(tags), tags, provenance.get("items", ""))
    if journal is None:
        return rows, provenance, None
    names = read_class_names(tags, provenance)
    decided = _as_spelt(read_decisions(journal), tags, names)
    own = sorted(_words_of(decided) - set(names))
    return merge(rows, decided), {**provenance, "class_names": json.dumps([*names, *own])}, journal


def _each_picture_once(rows: Iterator[pa.RecordBatch], tags: Path, said: str) -> Iterator[pa.RecordBatch]:
    """The same rows; refuses at their end what holds more pictures than were scored, as copies behind each other do.

    Raises:
        UserError: for such a file.
    """
    runs, last = 0, None
    for batch in rows:
        ids = batch.column("id").dictionary_encode()
        places = ids.indices.to_numpy(zero_copy_only=False)
        if len(places):
            runs += int(np.count_nonzero(np.diff(places))) + (ids.dictionary[int(places[0])].as_py() != last)
            last = ids.dictionary[int(places[-1])].as_py()
        yield batch
    if said.isdecimal() and runs > int(said):
        raise UserError(
            f"The file of tags '{printable(tags)}' says that {int(said):,} pictures were scored but has the tags of "
            f"{runs:,}, or of some in several places: make it again with `tai tag`."
        )


def untagged_items(tags: Path, decisions: Path | None = None) -> list[str]:
    """The pictures that were scored and, with all decisions, have no tag.

    Memory: the ids.

    Args:
        tags: the file of tags.
        decisions: as for `decided_rows`.

    Raises:
        UserError: for a file that is missing, damaged or none of ours.
    """
    untagged = read_untagged(tags)
    rows, _, journal = decided_rows(tags, decisions)
    if journal is None:
        return list(untagged)
    tagged = {item_id for batch in rows for item_id in batch.column("id").unique().to_pylist()}
    suggested = (i for batch in iter_tag_rows(tags, ("id",)) for i in batch.column("id").unique().to_pylist())
    return [item_id for item_id in dict.fromkeys((*suggested, *untagged)) if item_id not in tagged]


def _as_spelt(decided: Decisions, tags: Path, names: Sequence[str]) -> Mapping[str, PictureDecision]:
    """The decisions by the ids and tags of the file; memory: the ids of the file that are not plain ASCII."""
    if all(item_id.isascii() for item_id in decided) and all(map(str.isascii, _words_of(decided))):
        return decided
    batches = iter_tag_rows(tags, ("id",))
    ids = {item_id for batch in batches for item_id in batch.column("id").unique().to_pylist() if not item_id.isascii()}
    ids |= {item_id for item_id in read_untagged(tags) if not item_id.isascii()}
    return respelt(decided, ids.__contains__, names)


def _words_of(decided: Mapping[str, PictureDecision]) -> set[str]:
    return {tag for decision in decided.values() for tag in decision.present}
