"""What a run counts, and whom it tells."""

from __future__ import annotations

import time
from collections import Counter

from tai_engine.caching.report import CacheProgress, CacheReport, ProgressCallback
from tai_engine.caching.stages import Stages
from tai_engine.decoding.decode import METADATA_REMARK
from tai_engine.store.layout.commits import CommitRecord

_PROGRESS_EVERY = 1000  # skipped items


class RunCounter:
    """Counts what becomes of the items of a run, and tells how far it is.

    Attributes:
        stages: seconds of each stage.
        estimated_bytes: what the run will add on disk, None if that is not known.
    """

    def __init__(self, progress: ProgressCallback | None, total: int | None) -> None:
        """Args: what is called as the run goes on, and how many items there are, if that is known."""
        self.stages = Stages()
        self.estimated_bytes: int | None = None
        self._begun = time.perf_counter()
        self._progress = progress
        self._total = total
        self._encoded: Counter[str] = Counter()  # done and failed, committed or not
        self._committed: Counter[str] = Counter()
        self._selected: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._kept_because = ""

    def selected(self, verdict: str) -> None:
        """Count an item of the source: ``"new"``, ``"changed"``, ``"retried"`` or ``"skipped"``."""
        self._selected[verdict] += 1
        if verdict == "skipped" and self._selected["skipped"] % _PROGRESS_EVERY == 0:
            self.tell()

    def encoded(self, done: int, failed: int) -> None:
        """Count items that were encoded."""
        self._encoded.update(done=done, failed=failed)
        self.tell()

    def committed(self, record: CommitRecord) -> None:
        """Count a group that is in the store now."""
        self._committed.update(done=record.done, failed=len(record.failed), bytes=record.bytes)
        self._reasons.update(reason.partition(":")[0] for reason in record.failed.values())

    def missing(self, count: int, deleted: int, kept_because: str) -> None:
        """Count items of the store that were not in the source, and those of them that were deleted, or say why not."""
        self._selected.update(missing=count, deleted=deleted)
        self._kept_because = kept_because

    def tell(self) -> None:
        """Call whoever wants to know."""
        if self._progress is not None:
            self._progress(
                CacheProgress(
                    done=self._encoded["done"],
                    failed=self._encoded["failed"],
                    skipped=self._selected["skipped"],
                    total=self._total,
                    seconds=time.perf_counter() - self._begun,
                    stage_seconds=dict(self.stages.seconds),
                    estimated_bytes=self.estimated_bytes,
                )
            )

    def report(self) -> CacheReport:
        """What was done."""
        self.tell()
        done, failed, selected = self._committed["done"], self._committed["failed"], self._selected
        return CacheReport(
            items=done + failed + selected["skipped"],
            done=done,
            failed=failed,
            skipped=selected["skipped"],
            new=selected["new"],
            changed=selected["changed"],
            retried=selected["retried"],
            missing=selected["missing"],
            deleted=selected["deleted"],
            kept_because=self._kept_because,
            seconds=time.perf_counter() - self._begun,
            stage_seconds=dict(self.stages.seconds),
            bytes_written=self._committed["bytes"],
            reasons=dict(self._reasons.most_common()),
            remarks=tuple(_sentence(kind, count) for kind, count in self.stages.remarks.most_common()),
        )


def _sentence(kind: str, count: int) -> str:
    if kind == METADATA_REMARK:
        return f"{count:,} encoded without their metadata, which is damaged or larger than a decoder takes."
    return f"{count:,} {kind}."
