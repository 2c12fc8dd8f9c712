"""From a collection of pictures to a folder of results: features, tags and the page to look at, in one run.

Each step goes on from what an earlier run left, whenever that one ended: the store by its commit groups, the tags by
their parts, the page by being whole or not there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from tai_engine.annotating.results_folder import ResultsFolder
from tai_engine.caching.images import ImageEncoder, cache_images
from tai_engine.caching.report import CacheOptions, CacheReport, ProgressCallback
from tai_engine.calibration.calibration import Calibration
from tai_engine.decoding.decode import DecodeOptions
from tai_engine.processors import available_cpus
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.review.collection import Collection
from tai_engine.review.decisions import Decisions
from tai_engine.review.journal import read_decisions
from tai_engine.review.report_folder import ReportResult, check_report_place, estimate_report, write_report
from tai_engine.review.suggestions import read_suggestions
from tai_engine.review.thumbnails import THUMBNAIL_SIDE
from tai_engine.sources.source import Source
from tai_engine.store import FeatureStore
from tai_engine.tagging.batch_loop import TagReport, check_output, tag_store
from tai_engine.tagging.scoring import default_scoring
from tai_engine.tagging.tag_job import require_fit
from tai_engine.tagging.tag_selection import Selection


class AnnotateWatch(Protocol):
    """Who is told how far it is; each method is a context manager around its stage."""

    def caching(self, results: ResultsFolder) -> AbstractContextManager[ProgressCallback]:
        """Pictures are encoded."""
        ...

    def tagging(self) -> AbstractContextManager[Callable[[int, int], None]]:
        """The store is tagged: items done, and in all."""
        ...

    def reporting(self, bytes_: int) -> AbstractContextManager[Callable[[int, int], None]]:
        """The page is written, about so large: pictures done, and in all."""
        ...


@dataclass(frozen=True)
class AnnotateOptions:
    """How pictures are annotated.

    Attributes:
        cache: how the store is filled.
        selection: which tags are written.
        calibration: of these very prompts; None leaves scores as scoring makes them, standardised per picture.
        has_report: whether the page is written.
        device: where scores are computed; ``auto`` is the GPU where there is one.
    """

    cache: CacheOptions = field(default_factory=CacheOptions)
    selection: Selection = field(default_factory=Selection)
    calibration: Calibration | None = None
    has_report: bool = True
    device: str = "auto"


@dataclass(frozen=True)
class AnnotateReport:
    """What a run did.

    Attributes:
        caching: of the pictures.
        tagging: of the store.
        page: that was written; None if none was wanted, or no picture has a tag.
        decisions: pictures that people had decided about, by the journal that lies there.
    """

    caching: CacheReport
    tagging: TagReport
    page: ReportResult | None
    decisions: int


def annotate(
    pictures: Source,
    encoder: ImageEncoder,
    prompts: PromptSet,
    results: ResultsFolder,
    options: AnnotateOptions,
    watch: AnnotateWatch,
) -> AnnotateReport:
    """Bring a folder of results up to date with pictures and words.

    Only new and changed pictures are encoded; tags and page are made anew. Decisions of people are not touched.

    Memory: as `cache_images`, then `tag_store`, then `Collection` and `write_report`.

    Args:
        pictures: of ``results.about.images``.
        encoder: of ``results.about.model``, with a recipe of default decoding.
        prompts: the words, in the encoder's space.
        results: from `ResultsFolder.to_fill`.
        options: what is wanted.
        watch: is told of the progress.

    Raises:
        UserError: before any work, for a calibration of other prompts or a promise that it does not make; then as the
            functions of the steps. What was done so far stays, and another run goes on from there.
    """
    scoring = default_scoring(prompts, "merged" if encoder.rows_per_image else "coarse")
    require_fit(prompts, scoring, options.selection, options.calibration)
    decided = read_decisions(results.journal) if results.journal.exists() else Decisions()
    check_output(results.tags)
    check_report_place(results.report)
    results.save()
    with watch.caching(results) as progress:
        caching = cache_images(
            pictures, encoder, results.store, decoding=DecodeOptions(), options=options.cache, progress=progress
        )
    # Before the tags, so that a run that is cut off here goes on with the same words.
    prompts.save(results.prompts)
    with watch.tagging() as update:
        tagging = tag_store(
            FeatureStore.open(results.store),
            prompts,
            results.tags,
            scoring,
            options.selection,
            calibration=options.calibration,
            device=options.device,
            progress=update,
        )
    page = _write_page(pictures, results, decided, options, watch) if options.has_report and tagging.tags else None
    return AnnotateReport(caching, tagging, page, len(decided))


def _write_page(
    pictures: Source, results: ResultsFolder, decided: Decisions, options: AnnotateOptions, watch: AnnotateWatch
) -> ReportResult:
    workers = options.cache.workers or available_cpus()
    collection = Collection(read_suggestions(results.tags), pictures)
    estimate = estimate_report(collection, THUMBNAIL_SIDE, workers)
    with watch.reporting(estimate.bytes) as update:
        return write_report(
            collection,
            results.report,
            decided,
            title=results.title,
            side=THUMBNAIL_SIDE,
            workers=workers,
            estimate=estimate,
            progress=update,
        )
