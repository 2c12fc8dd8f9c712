"""How a run is set up, what it says on its way, and what it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tai_engine.errors import UserError, unknown_choice
from tai_engine.store.spec import ROW_DTYPES


@dataclass(frozen=True)
class CacheOptions:
    """How to fill a store.

    Attributes:
        row_dtype: ``"float16"`` or ``"float32"``, fixed when the store is made.
        group_items: items that are committed together, fixed when the store is made; a run that is stopped loses less
            than so many. 0 is automatic: 1024, or fewer so that their rows stay below 256 MiB.
        slice_items: items handed to the encoder at once, which cuts them further as its memory demands. 0 is automatic:
            128 pictures, or 1024 sentences, so that encoding them sorted by length pays.
        workers: threads that decode; 0 means one per CPU that this process may use.

    Raises:
        UserError: for an unknown row type, or a number that is too small.
    """

    row_dtype: str = "float16"
    group_items: int = 0
    slice_items: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        if self.row_dtype not in ROW_DTYPES:
            raise unknown_choice("row type", self.row_dtype, ROW_DTYPES)
        for name, least in (("group_items", 0), ("slice_items", 0), ("workers", 0)):
            if getattr(self, name) < least:
                raise UserError(f"The option {name} is {getattr(self, name)}; it must be {least} or more.")


@dataclass(frozen=True)
class CacheProgress:
    """How far a run is.

    Attributes:
        done: items encoded by this run.
        failed: items that failed in this run.
        skipped: items that were in the store already.
        total: items of the source, None if not known.
        seconds: since the run began.
        stage_seconds: see `CacheReport`.
        estimated_bytes: what this run will add on disk, None if the total is not known.
    """

    done: int
    failed: int
    skipped: int
    total: int | None
    seconds: float
    stage_seconds: Mapping[str, float]
    estimated_bytes: int | None


@dataclass(frozen=True)
class CacheReport:
    """What a run did.

    Attributes:
        items: inputs seen: done, failed and skipped ones.
        done: encoded and committed by this run.
        failed: failed in this run.
        skipped: in the store already, done or failed.
        seconds: wall time.
        stage_seconds: ``decode`` (reading included) and ``preprocess``, summed over the workers; ``wait`` for them,
            ``encode`` and ``write``, which add up to less than the wall time.
        bytes_written: chunks that this run added.
        reasons: failed items of this run by the reason's category, what stands before its first colon.
    """

    items: int
    done: int
    failed: int
    skipped: int
    seconds: float
    stage_seconds: Mapping[str, float]
    bytes_written: int
    reasons: Mapping[str, int]

    @property
    def items_per_second(self) -> float:
        """Rate of what was not skipped."""
        return (self.done + self.failed) / self.seconds if self.seconds else 0.0


ProgressCallback = Callable[[CacheProgress], None]
