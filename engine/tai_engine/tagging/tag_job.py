"""What a tagging run does: which store, which prompts, scored how, which tags kept; and its parts, one a commit group.

A part is a Parquet file of the tags of one group. It carries the digest of its job, so that parts of two runs are never
mixed.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tai_engine.calibration.calibration import Calibration
from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch
from tai_engine.json_documents import parse_json
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.spaces import require_same_space
from tai_engine.store import FeatureStore
from tai_engine.tagging.arrow_columns import number_column, text_column
from tai_engine.tagging.choosing import TagRules
from tai_engine.tagging.exporters.tag_table import TAG_SCHEMA
from tai_engine.tagging.score_batch import SparseScoreBatch
from tai_engine.tagging.scoring import ScoringConfig, default_device, default_scoring, in_effect, score, score_tags
from tai_engine.tagging.tag_selection import Selection

UNTAGGED = "untagged"
"""Key of a part's metadata: ids of the items that were scored and have no tag, as JSON."""

SLICE_ITEMS = 256
_RULES_BYTES = 8 << 20


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
            "id": text_column(tags.ids).take(number_column(np.repeat(np.arange(len(counts)), counts), pa.int32())),
            "tag": text_column(tags.class_names).take(number_column(tags.class_indices.numpy(), pa.int32())),
            "score": number_column(tags.scores.numpy(), pa.float32()),
            "probability": pa.nulls(rows, pa.float32()),
            "threshold": pa.nulls(rows, pa.float32())
            if threshold is None
            else number_column(np.full(rows, threshold), pa.float32()),
        },
        schema=TAG_SCHEMA,
    )


@dataclass(frozen=True, eq=False)
class TagJob:
    """One tagging run.

    Attributes:
        store: the features.
        prompts: the class vectors, of the same space.
        scoring: how to score, as it is in effect.
        selection: which tags to keep.
        calibration: of these very scores; None for none.
    """

    store: FeatureStore
    prompts: PromptSet
    scoring: ScoringConfig
    selection: Selection
    calibration: Calibration | None = None

    @staticmethod
    def of(
        store: FeatureStore,
        prompts: PromptSet,
        scoring: ScoringConfig | None = None,
        selection: Selection | None = None,
        calibration: Calibration | None = None,
    ) -> TagJob:
        """The job with what was left out filled in: scored as the prompt set was made, all tags kept.

        Raises:
            UserError: for prompts of another space than the store's, a calibration of other scores, or a selection that
                needs a calibration and has none.
        """
        require_same_space(store.spec, prompts, f"the store '{store.path}'", "the prompt set")
        scoring = scoring or default_scoring(prompts, "merged" if store.spec.has_fine else "coarse")
        selection = selection or Selection()
        require_fit(prompts, scoring, selection, calibration)
        return TagJob(store, prompts, in_effect(scoring, prompts), selection, calibration)

    @cached_property
    def rules(self) -> TagRules | None:
        """How tags are chosen, where the kernels cannot do it alone."""
        if self.selection.is_plain and self.calibration is None:
            return None
        return TagRules.of(
            self.prompts.class_names,
            never=self.selection.never,
            threshold=self.selection.threshold,
            min_precision=self.selection.min_precision,
            min_probability=self.selection.min_probability,
            always_top=self.selection.always_top,
            top_k=self.selection.top_k,
            calibration=self.calibration,
        )

    @cached_property
    def provenance(self) -> dict[str, str]:
        """Where the tags come from, in words that a file of them carries."""
        store, prompts, scoring, selection = self.store, self.prompts, self.scoring, self.selection
        return {
            "space_key": store.spec.space_key,
            "recipe_key": store.spec.recipe_key,
            "encoder": json.dumps(dict(store.spec.provenance), sort_keys=True),
            "class_names": json.dumps(prompts.class_names),
            "prompts_method": prompts.method,
            "prompts": json.dumps(dict(prompts.metadata), sort_keys=True),
            "prompts_sha256": vectors_digest(prompts),
            "scoring": json.dumps(asdict(scoring), sort_keys=True),
            "selection": json.dumps(selection.said, sort_keys=True),
            "complete": json.dumps(selection.is_complete),
        } | ({} if self.calibration is None else {"calibration": self.calibration.digest})

    @cached_property
    def text(self) -> str:
        """All that decides the tags: equal for the same job, another time or elsewhere."""
        return json.dumps({**self.provenance, "store": self.store.fingerprint}, sort_keys=True)

    @cached_property
    def digest(self) -> str:
        """The text in short."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def tag_group(self, group: int, device: str = "auto", slice_items: int = SLICE_ITEMS) -> tuple[bytes, TagPart]:
        """Tag the items of one commit group: its part, and what is in it.

        Memory: features of ``slice_items`` items, 32 MiB of scores (``score_tags``) and the tags of the group.

        Raises:
            UserError: if the group is damaged.
        """
        items, tables = 0, [pa.Table.from_batches([], TAG_SCHEMA)]
        untagged: list[str] = []
        with_fine = self.scoring.which != "coarse"
        where = default_device() if device == "auto" else device
        negative = self.prompts.negative_vectors
        prompts = replace(
            self.prompts,
            global_vectors=self.prompts.global_vectors.to(where),
            local_vectors=self.prompts.local_vectors.to(where),
            negative_vectors=None if negative is None else negative.to(where),
        )
        for batch in self.store.iter_batches(slice_items, with_fine=with_fine, groups=[group]):
            for rows, without in self._tables(batch, prompts, where):
                tables.append(rows)
                untagged += without
            items += len(batch)
        buffer = io.BytesIO()
        table = pa.concat_tables(tables)
        facts = {"items": str(items), "rows": str(table.num_rows), "job": self.digest, UNTAGGED: json.dumps(untagged)}
        pq.write_table(table.replace_schema_metadata(facts), buffer, compression="zstd")
        return buffer.getvalue(), TagPart(group, items, table.num_rows)

    def _tables(
        self, batch: FeatureBatch, prompts: PromptSet, where: torch.device | str
    ) -> Iterator[tuple[pa.Table, list[str]]]:
        """The rows of some items, and the ids of those that have none."""
        if self.rules is None:
            tags = tag_batch(batch, prompts, self.scoring, self.selection, device=where)
            bare = [tags.ids[n] for n in np.flatnonzero(tags.offsets.diff().numpy() == 0)]
            yield tag_table(tags, self.selection.threshold), bare
            return
        step = max(1, _RULES_BYTES // (8 * len(prompts.class_names)))
        for start in range(0, len(batch), step):
            with torch.inference_mode():
                found = score(batch[start : start + step], prompts, self.scoring, device=where)
            table = self.rules.table(found.ids, found.scores.cpu().numpy())
            tagged = set(table["id"].to_pylist())
            yield table, [name for name in found.ids if name not in tagged]

    def read_part(self, file: Path | BinaryIO, group: int) -> TagPart:
        """What is in a part; its tags are not read.

        Raises:
            ValueError: if it is no part of this job, or not whole.
            OSError: if it cannot be read.
        """
        try:
            found = pq.read_metadata(file)
            facts = {key.decode(): value.decode() for key, value in (found.metadata or {}).items()}
            part = TagPart(group, int(facts["items"]), int(facts["rows"]))
            _ids(facts)
        except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"it is not a whole file of tags ({type(error).__name__}: {error})") from error
        if facts.get("job") != self.digest:
            raise ValueError("it is of another run")
        most = part.items * min(len(self.prompts.class_names), self.selection.top_k or len(self.prompts.class_names))
        is_exact = self.selection.threshold is None and self.selection.is_plain
        if found.num_rows != part.tags or part.tags > most or (is_exact and part.tags != most):
            raise ValueError(f"it has {found.num_rows:,} tags of {part.items:,} pictures")
        if not found.schema.to_arrow_schema().remove_metadata().equals(TAG_SCHEMA):
            raise ValueError("its columns are other ones")
        return part

    def untagged_of(self, file: Path) -> list[str]:
        """The items of a part that were scored and have no tag.

        Raises:
            ValueError: if it does not list them.
            OSError: if it cannot be read.
        """
        found = pq.read_metadata(file).metadata or {}
        return _ids({key.decode(): value.decode() for key, value in found.items()})


def _ids(facts: Mapping[str, str]) -> list[str]:
    ids = parse_json(facts[UNTAGGED])
    if not isinstance(ids, list) or not all(isinstance(item_id, str) for item_id in ids):
        raise ValueError("its items without a tag are no list of ids")
    return ids


def require_fit(
    prompts: PromptSet, scoring: ScoringConfig, selection: Selection, calibration: Calibration | None
) -> None:
    """Refuse a calibration of other scores than these, and a promise that there is no calibration for.

    Raises:
        UserError: says what is missing or differs.
    """
    if selection.min_precision is not None:
        if calibration is None:
            raise UserError(
                "--min-precision needs --calibration: only scores that were held against labels can promise it."
            )
        calibration.promise("precision", selection.min_precision)
    if selection.min_probability is not None and calibration is None:
        raise UserError("--min-probability needs --calibration: scores alone are no probabilities.")
    if calibration is not None:
        settled = asdict(in_effect(scoring, prompts))
        calibration.require_fits(prompts.class_names, vectors_digest(prompts), settled)


def vectors_digest(prompts: PromptSet) -> str:
    """The SHA-256 of class vectors: what tags and calibrations know prompts by."""
    matrices = (prompts.global_vectors, prompts.local_vectors, prompts.negative_vectors)
    data = b"".join(rows.cpu().numpy().tobytes() for rows in matrices if rows is not None)
    return hashlib.sha256(data).hexdigest()


def part_name(group: int) -> str:
    """Which file of a folder of parts holds the tags of a commit group."""
    return f"{group:08d}.parquet"
