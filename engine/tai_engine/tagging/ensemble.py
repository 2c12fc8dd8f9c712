"""Two files of tags made one: the mean of their scores, each brought to the same range first.

As TaI-DPT is combined with prompts that were tuned on pictures (Guo et al., arXiv 2211.12739): the scores of each
system are scaled to [0, 1] by the least and the largest of all its scores, then ``(1 - r)·first + r·second``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tai_engine.errors import UserError
from tai_engine.regular_files import printable
from tai_engine.tables import parse_json
from tai_engine.tagging import exporters
from tai_engine.tagging.exporters.item_tags import ItemTags, items_of
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA
from tai_engine.tagging.tag_rows import iter_tag_rows, read_class_names, read_provenance

_ROWS = 65_536


@dataclass(frozen=True)
class _Member:
    """A complete file of tags, and how its scores become numbers from 0 to 1."""

    path: Path
    class_names: tuple[str, ...]
    provenance: dict[str, str]
    low: float
    width: float

    @staticmethod
    def open(path: Path) -> _Member:
        """Read where it comes from, and once through its scores."""
        provenance = read_provenance(path)
        if provenance.get("complete") != "true":
            raise UserError(
                f"'{printable(path)}' does not hold every word of every picture (--top-k, --threshold or the like): "
                "tag again without them, for scores that were left out cannot be combined."
            )
        low, high = float("inf"), float("-inf")
        for batch in iter_tag_rows(path, ["score"]):
            if len(batch):
                found = pc.min_max(batch.column("score")).as_py()
                low, high = min(low, found["min"]), max(high, found["max"])
        if low > high:
            raise UserError(f"'{printable(path)}' holds no tag at all: there is nothing to combine.")
        return _Member(path, read_class_names(path, provenance), provenance, low, (high - low) or 1.0)

    def said(self, name: str) -> dict[str, Any]:
        """A table of its provenance; empty if it has none of that name."""
        found = parse_json(self.provenance.get(name, "{}"))
        return found if isinstance(found, dict) else {}

    def items(self) -> Iterator[ItemTags]:
        """Its pictures, in the order of the file."""
        return items_of(iter_tag_rows(self.path))

    def scaled(self, item: ItemTags) -> dict[str, float]:
        """The scores of a picture by name, from 0 to 1."""
        return {tag.name: (float(tag.score or 0.0) - self.low) / self.width for tag in item.tags}


def ensemble(first: str | Path, second: str | Path, out: str | Path, ratio: float) -> int:
    """Combine two complete files of tags of the same pictures and words; gives the number of rows.

    Both files are read twice: for their ranges, then picture by picture. Scores that are all equal are all 0. Memory: a
    few batches of rows.

    Args:
        first: as `tai tag` wrote it, with every word of every picture.
        second: the same.
        out: the file to write; its suffix chooses the format.
        ratio: r, the share of the second file, from 0 to 1.

    Raises:
        UserError: for a file that cannot be read or written or does not hold every word; for files of other pictures,
            of another order or of other words; and for a ratio out of range.
    """
    if not 0 <= ratio <= 1:
        raise UserError(f"The ratio is {ratio}; it is the share of the second file, from 0 to 1.")
    exporter = exporters.get(Path(out))
    exporter.check_place(out)
    one, two = _Member.open(Path(first)), _Member.open(Path(second))
    if set(one.class_names) != set(two.class_names):
        odd = sorted({*one.class_names} ^ {*two.class_names})[0]
        raise UserError(
            f"'{printable(one.path)}' and '{printable(two.path)}' differ in their words ({odd!r} is in one alone): "
            "tag both with the same vocabulary."
        )
    members = [{name: m.said(name) for name in ("prompts", "scoring")} for m in (one, two)]
    prompts: dict[str, Any] = {"members": members, "ratio": ratio}
    if taught := [member["prompts"]["sentences"] for member in members if "sentences" in member["prompts"]]:
        prompts["sentences"] = taught[0]  # what one has learned from, both have
    digests = "".join(m.provenance.get("prompts_sha256", "") for m in (one, two))
    provenance = {
        **one.provenance,
        "prompts_method": "ensemble",
        "prompts": json.dumps(prompts, sort_keys=True),
        "prompts_sha256": hashlib.sha256(f"{digests}{ratio!r}".encode()).hexdigest(),
        "scoring": json.dumps({"which": "ensemble", "ratio": ratio}),
    }
    provenance.pop("calibration", None)
    return exporter.export(_combined(one, two, ratio), Path(out), provenance)


def _combined(one: _Member, two: _Member, ratio: float) -> Iterator[pa.RecordBatch]:
    names = one.class_names
    ids: list[str] = []
    tags: list[str] = []
    scores: list[float] = []
    for ours, theirs in zip_longest(one.items(), two.items()):
        if ours is None or theirs is None or ours.id != theirs.id:
            told = [repr(item.id) if item else "no more picture" for item in (ours, theirs)]
            raise UserError(
                f"'{printable(one.path)}' goes on with {told[0]} where '{printable(two.path)}' has {told[1]}: both "
                "have to be tags of one and the same store."
            )
        first, second = one.scaled(ours), two.scaled(theirs)
        if len(first) != len(names) or len(second) != len(names):
            raise UserError(f"The picture {ours.id!r} has not all words in both files: tag them again.")
        mixed = np.array([(1 - ratio) * first[name] + ratio * second[name] for name in names])
        order = np.argsort(-mixed, kind="stable")
        ids += [ours.id] * len(names)
        tags += [names[c] for c in order]
        scores += mixed[order].tolist()
        if len(ids) >= _ROWS:
            yield _batch(ids, tags, scores)
            ids, tags, scores = [], [], []
    if ids:
        yield _batch(ids, tags, scores)


def _batch(ids: list[str], tags: list[str], scores: list[float]) -> pa.RecordBatch:
    nothing = pa.nulls(len(ids), pa.float32())
    columns = [pa.array(ids, pa.string()), pa.array(tags, pa.string()), pa.array(scores, pa.float32())]
    return pa.RecordBatch.from_arrays([*columns, nothing, nothing], schema=TAG_SCHEMA)
