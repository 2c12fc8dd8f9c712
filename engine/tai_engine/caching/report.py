"""How a run is set up, what it says on its way, and what it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tai_engine.errors import UserError, unknown_choice
from tai_engine.store.layout.spec import ROW_DTYPES

CHECKS = ("stat", "content")


@dataclass(frozen=True)
class CacheOptions:
    """How to fill a store.

    Attributes:
        row_dtype: ``"float16"``, ``"float32"`` or ``"int8"``, fixed when the store is made.
        group_items: items that are committed together, fixed when the store is made; a run that is stopped loses less
            than twice so many. 0 is automatic: 1024, or fewer so that their rows stay below 256 MiB.
        slice_items: items handed to the encoder at once, which cuts them further as its memory demands. 0 is automatic:
            128 pictures (32 on a CPU), or 1024 sentences, so that encoding them sorted by length pays.
        workers: how many decode; 0 means one per CPU that this process may use.
        timeout_seconds: a process that takes longer to read and decode a picture is replaced, and the picture failed; 0
            is no limit.
        check: what tells that a picture has changed since it was encoded: ``"stat"`` is its size and time of change,
            ``"content"`` a hash of its bytes, all of which are read for it.
        retry_failed: try pictures again that failed, and are the same as then.
        delete_missing: delete what is in the store and not in the source any more; not if that is more than a fifth of
            what the store has of the source, or lies in folders that are empty now, as those of drives are that are not
            mounted.
        delete_many: with ``delete_missing``, delete it all the same.
        origin: path or address of the source, the same for every spelling of it; empty if it is not known.
        id_prefix: what the ids of the source's items begin with, for a store of several sources.
        has_moved: it is the source that the store knows, at another place.

    Raises:
        UserError: for an unknown choice, or a number that is too small.
    """

    row_dtype: str = "float16"
    group_items: int = 0
    slice_items: int = 0
    workers: int = 0
    timeout_seconds: float = 60.0
    check: str = "stat"
    retry_failed: bool = False
    delete_missing: bool = False
    delete_many: bool = False
    origin: str = ""
    id_prefix: str = ""
    has_moved: bool = False

    def __post_init__(self) -> None:
        for name, what, allowed in (
            ("row_dtype", "row type", tuple(ROW_DTYPES)),
            ("check", "check for changes", CHECKS),
        ):
            if getattr(self, name) not in allowed:
                raise unknown_choice(what, str(getattr(self, name)), allowed)
        for name in ("group_items", "slice_items", "workers", "timeout_seconds"):
            if not getattr(self, name) >= 0:
                raise UserError(f"The option {name} is {getattr(self, name)}; it must be 0 or more.")


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
        skipped: in the store already, done or failed, and the same as then.
        new, changed, retried: what the done and failed ones were: not in the store before, changed since, or failed
            before and tried again.
        missing: items of the store that were not in the source, whether or not they were deleted.
        deleted: those of them that were deleted.
        kept_because: why they were not although that was asked for; empty if it was not, or they were.
        seconds: wall time.
        stage_seconds: see `tai_engine.caching.stages.STAGES`.
        bytes_written: chunks that this run added.
        reasons: failed items of this run by the reason's category, what stands before its first colon.
        remarks: sentences on what was passed over, in the source and in pictures.
    """

    items: int
    done: int
    failed: int
    skipped: int
    new: int
    changed: int
    retried: int
    missing: int
    deleted: int
    kept_because: str
    seconds: float
    stage_seconds: Mapping[str, float]
    bytes_written: int
    reasons: Mapping[str, int]
    remarks: tuple[str, ...] = ()

    @property
    def items_per_second(self) -> float:
        """Rate of what was not skipped."""
        return (self.done + self.failed) / self.seconds if self.seconds else 0.0


ProgressCallback = Callable[[CacheProgress], None]
