"""The whole way on the embedded model: photographs encoded, tagged, explained; prompts tuned on captions, measured."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tai_engine.caching.images import cache_images
from tai_engine.caching.report import CacheOptions, CacheReport, ProgressCallback
from tai_engine.decoding.decode import DecodeOptions
from tai_engine.demo.contact_sheet import TaggedPhotograph, draw_contact_sheet
from tai_engine.demo.everyday_tags import tag_with_everyday_words
from tai_engine.demo.heatmap_sheet import best_pairs, draw_heatmaps
from tai_engine.demo.material import MODEL, copy_photographs
from tai_engine.demo.tuned import ReadyPhotographs, cache_captions, captions_place, tuning_settings
from tai_engine.encoders import Encoder, load_encoder
from tai_engine.evaluation.bootstrap import Comparison
from tai_engine.processors import available_cpus
from tai_engine.prompts.prompt_set import zero_shot_prompts
from tai_engine.review.collection import Collection
from tai_engine.review.decisions import Decisions
from tai_engine.review.report_folder import ReportResult, estimate_report, write_report
from tai_engine.review.suggestions import read_suggestions
from tai_engine.review.thumbnails import THUMBNAIL_SIDE
from tai_engine.sources import open_source
from tai_engine.store import FeatureStore
from tai_engine.tagging.batch_loop import TagReport
from tai_engine.tagging.scoring import Which
from tai_engine.tagging.tag_rows import iter_tag_rows
from tai_engine.tuning import StepProgress, TuningResult, TuningTask, tune
from tai_engine.vocabulary import Vocabulary, load_vocabulary

HEATMAPS = 12
MEASURED = "coco80"


class Watch(Protocol):
    """Shows how each stage gets on; every method opens a display that lasts as long as the stage."""

    def caching(self, what: str, store: Path) -> AbstractContextManager[ProgressCallback]:
        """``what`` (photographs, captions) go into a store."""
        ...

    def tagging(self) -> AbstractContextManager[Callable[[int, int | None], None]]:
        """The store is tagged: items done, and in all."""
        ...

    def tuning(self) -> AbstractContextManager[Callable[[StepProgress], None]]:
        """Prompts are tuned."""
        ...


@dataclass(frozen=True)
class Learned:
    """What came of the captions.

    Attributes:
        caching: of the captions.
        store: their features.
        result: of the tuning.
        prompts: where the tuned prompts are.
        folder: figures of the run.
        worth: zero-shot prompts (first) against tuned ones (second) on the labelled photographs, by each kind of score.
        classes: how many of the words are on any of these photographs.
    """

    caching: CacheReport
    store: Path
    result: TuningResult
    prompts: Path
    folder: Path
    worth: dict[Which, Comparison]
    classes: int


@dataclass(frozen=True)
class DemoResult:
    """What was made and how right it is.

    Attributes:
        caching: of the photographs.
        store: their features.
        tagging: with the file of tags.
        photographs: with their tags.
        contact_sheet: the picture of these.
        heatmaps: where some of the tags are.
        page: the report to look at.
        learned: from captions.
        seconds: all of it took.
    """

    caching: CacheReport
    store: Path
    tagging: TagReport
    photographs: tuple[TaggedPhotograph, ...]
    contact_sheet: Path
    heatmaps: Path
    page: ReportResult
    learned: Learned
    seconds: float


def run_demo(out: Path, captions: int, watch: Watch) -> DemoResult:
    """Do everything below ``out``; what an earlier run has done there is not done again.

    Memory: as `cache_images`, `tune` and the sheets; the photographs are few.

    Args:
        out: a folder.
        captions: so many of the built-in ones.
        watch: is told of the progress.

    Raises:
        UserError: when ``out`` cannot be written.
    """
    begun = time.perf_counter()
    folder, store_path, tags_path = out / "photographs", out / "features.zarr", out / "tags.parquet"
    files = copy_photographs(folder)
    encoder = load_encoder(MODEL)
    with watch.caching("photographs", store_path) as progress:
        caching = cache_images(
            open_source(str(folder)),
            encoder,
            store_path,
            decoding=DecodeOptions(),
            options=CacheOptions(),
            progress=progress,
        )
    store = FeatureStore.open(store_path)
    with watch.tagging() as update:
        everyday = tag_with_everyday_words(store, encoder, tags_path, update)
    photographs = _tagged(files, tags_path)
    sheet, heatmaps = out / "contact-sheet.jpg", out / "heatmaps.jpg"
    draw_contact_sheet(photographs, sheet, f"{len(files)} photographs and how likely everyday words are there")
    pairs = best_pairs(photographs, HEATMAPS)
    draw_heatmaps(pairs, store, everyday.prompts, heatmaps, "Where in the photographs some of these tags are")
    page = _write_page(folder, tags_path, out / "report")
    learned = _learn(out, captions, encoder, load_vocabulary(MEASURED), watch)
    return DemoResult(
        caching,
        store_path,
        everyday.tagging,
        photographs,
        sheet,
        heatmaps,
        page,
        learned,
        seconds=time.perf_counter() - begun,
    )


def _tagged(files: list[Path], tags: Path) -> tuple[TaggedPhotograph, ...]:
    found: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for batch in iter_tag_rows(tags, ["id", "tag", "probability"]):
        for row in batch.to_pylist():
            found[row["id"]].append((row["tag"], row["probability"]))
    return tuple(TaggedPhotograph(file, tuple(found[file.name])) for file in files)


def _write_page(folder: Path, tags: Path, out: Path) -> ReportResult:
    collection, workers = Collection(read_suggestions(tags), open_source(str(folder))), available_cpus()
    estimate = estimate_report(collection, THUMBNAIL_SIDE, workers)
    title = "Photographs of the demonstration"
    return write_report(
        collection, out, Decisions(), title=title, side=THUMBNAIL_SIDE, workers=workers, estimate=estimate
    )


def _learn(out: Path, captions: int, encoder: Encoder, vocabulary: Vocabulary, watch: Watch) -> Learned:
    run, prompts_path, place = out / "tuning", out / "prompts.safetensors", captions_place(out)
    with watch.caching("captions", place) as progress:
        caching = cache_captions(out, captions, encoder, vocabulary, progress)
    config, words = tuning_settings()
    task = TuningTask.prepare(FeatureStore.open(place), encoder, vocabulary, config, words)
    with watch.tuning() as update:
        result = tune(task, config, run, update)
    result.prompts.save(prompts_path)
    judges = ReadyPhotographs.ready(vocabulary)
    worth = judges.compare(zero_shot_prompts(encoder, vocabulary), result.prompts)
    return Learned(caching, place, result, prompts_path, run, worth, int((judges.labels > 0).any(axis=0).sum()))
