"""``tai annotate``: from pictures to tags, a page to look at them and a place that every other command knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tai_engine.cli.cache_output import describe as describe_caching
from tai_engine.cli.cache_output import say_failed, show, warnings_of
from tai_engine.cli.options import (
    DEFAULT_MODEL,
    DEFAULT_PRETRAINED,
    EVERYDAY,
    SOME_ITEMS_FAILED,
    USAGE_OR_ENVIRONMENT,
    AsJson,
    BatchSize,
    Device,
    Fast,
    MergeDuplicates,
    Precision,
    VocabularyChoice,
    VocabularyColumn,
    Workers,
    open_encoder,
    say_unread,
)
from tai_engine.cli.output import print_json, progress_bar, remarks, results
from tai_engine.cli.results_option import prompts_of
from tai_engine.cli.runners import place_of, real_place
from tai_engine.cli.tag import describe as describe_tagging
from tai_engine.cli.tag import templates_of
from tai_engine.errors import UserError
from tai_engine.files import human_bytes

if TYPE_CHECKING:
    from tai_engine.annotating.annotate import AnnotateReport
    from tai_engine.annotating.results_folder import ResultsFolder
    from tai_engine.caching.report import CacheProgress


def annotate(
    source: Annotated[
        str,
        typer.Argument(metavar="SRC", help="A folder, a list, tar archives or an address, as for `tai cache images`."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder of results; it is made, or brought up to date.")],
    vocabulary: Annotated[
        str | None,
        typer.Option(
            "--vocabulary",
            help="Words, as for `tai tag`; default those of the folder, else 'everyday' (409 common ones).",
        ),
    ] = None,
    vocabulary_column: VocabularyColumn = None,
    merge_duplicates: MergeDuplicates = False,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="Of `tai calibrate`: probabilities; else standardised scores.")
    ] = None,
    min_precision: Annotated[
        float | None, typer.Option("--min-precision", help="Only tags that the calibration promises so much of.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="The least score of a tag; default none, or what an embedded model has."),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", help="At most so many tags per picture.")] = 5,
    page: Annotated[bool, typer.Option("--report/--no-report", help="Write the page to look at, with thumbnails.")] = (
        True
    ),
    moved: Annotated[bool, typer.Option("--moved", help="SRC is the folder's collection, at another place now.")] = (
        False
    ),
    delete_missing: Annotated[
        bool, typer.Option("--delete-missing", help="Drop what is not in SRC any more, unless that is a large part.")
    ] = False,
    delete_many: Annotated[bool, typer.Option("--delete-many", help="Drop it even then.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try pictures again that failed.")] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", help=f"As for `tai cache images`; default that of the folder, else {DEFAULT_MODEL!r}."),
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option("--pretrained", help=f"Its weights; likewise, else {DEFAULT_PRETRAINED!r}.")
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    fast: Fast = True,
    batch_size: BatchSize = 0,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Tag pictures with your words, all in one: features, tags and a page to look at, in one folder.

    Run it again for new pictures, or after a stop: what is there is used, and decisions of people stay.
    """
    from tai_engine.annotating.annotate import AnnotateOptions
    from tai_engine.annotating.annotate import annotate as run
    from tai_engine.annotating.results_folder import ResultsFolder
    from tai_engine.caching.report import CacheOptions
    from tai_engine.calibration.calibration import Calibration
    from tai_engine.decoding.decode import DecodeOptions
    from tai_engine.decoding.process import spare
    from tai_engine.encoders.devices import resolve_device
    from tai_engine.encoders.embedded import constants_of
    from tai_engine.prompts.prompt_set import PromptSet, zero_shot_prompts
    from tai_engine.sources import open_source
    from tai_engine.tagging.normalisation import FEWEST_CLASSES
    from tai_engine.tagging.tag_selection import Selection

    if vocabulary is None and (vocabulary_column is not None or merge_duplicates):
        option = "--merge-duplicates" if vocabulary_column is None else "--vocabulary-column"
        raise UserError(f"{option} is about the words of --vocabulary: give that as well, or leave it out.")
    folder = ResultsFolder.to_fill(
        out, real_place(source), model, pretrained, (DEFAULT_MODEL, DEFAULT_PRETRAINED), has_moved=moved
    )
    saved = prompts_of(folder) if vocabulary is None else None
    words = None
    if saved is None:
        words = VocabularyChoice(vocabulary or EVERYDAY, merge_duplicates, vocabulary_column).load()
    calibrated = None if calibration is None else Calibration.load(calibration)
    selection = Selection(top_k, threshold, min_precision)
    scored_on = device if device == "auto" else str(resolve_device(device))
    cache = CacheOptions(
        workers=workers,
        retry_failed=retry_failed,
        delete_missing=delete_missing or delete_many,
        delete_many=delete_many,
        origin=place_of(source),
        has_moved=moved,
    )
    pictures = open_source(real_place(source))
    spare.start()  # while the model is loaded
    encoder = open_encoder(
        folder.about.model,
        folder.about.pretrained,
        device=device,
        precision=precision,
        fast=fast,
        batch_size=batch_size,
        decoding=DecodeOptions().recipe,
    )
    if words is None:
        prompts = PromptSet.load(folder.prompts)
    else:
        say_unread(encoder.unread_words(words.prompt_names), words)
        prompts = zero_shot_prompts(encoder, words, templates_of(None, words))
    own = constants_of(folder.about.model)
    if own is not None and calibrated is None and threshold is None:
        if len(prompts.class_names) >= FEWEST_CLASSES:
            selection = replace(selection, threshold=own.tag_threshold)
        else:
            remarks.print(
                f"Of fewer than {FEWEST_CLASSES} words no least score is known for this model: every picture gets its "
                f"best {min(top_k, len(prompts.class_names))}, right or not. Give more words (even such as you do not "
                "look for), or a --threshold of your own.",
                style="yellow",
            )
    options = AnnotateOptions(cache, selection, calibrated, page, scored_on)
    report = run(pictures, encoder, prompts, folder, options, _AnnotateBars())
    if as_json:
        print_json(_summary(report, folder))
    else:
        for line in _described(report, folder):
            results.print(line)
    for warning in warnings_of(report.caching):
        remarks.print(warning, style="yellow")
    if report.caching.kept_because:
        raise typer.Exit(USAGE_OR_ENVIRONMENT)  # what was asked for was not done
    if report.caching.failed:
        say_failed(report.caching, str(folder.path))
        raise typer.Exit(SOME_ITEMS_FAILED)


class _AnnotateBars:
    """A bar for each stage."""

    @contextmanager
    def caching(self, folder: ResultsFolder) -> Iterator[Callable[[CacheProgress], None]]:
        with progress_bar("Encoding pictures") as bar:
            yield show(bar, folder.store)

    @contextmanager
    def tagging(self) -> Iterator[Callable[[int, int], None]]:
        with progress_bar("Tagging") as bar:
            yield bar.update

    @contextmanager
    def reporting(self, bytes_: int) -> Iterator[Callable[[int, int], None]]:
        remarks.print(f"The page and its thumbnails will take about {human_bytes(bytes_)}; --no-report leaves it out.")
        with progress_bar("Thumbnails") as bar:
            yield bar.update


def _described(report: AnnotateReport, folder: ResultsFolder) -> list[str]:
    """What was made, and what to do next."""
    lines = [*describe_caching(report.caching, folder.store, "pictures")[:-1], *describe_tagging(report.tagging)[:1]]
    if report.page is not None:
        lines.append(f"{report.page.pictures:,} pictures, {human_bytes(report.page.bytes)} -> {report.page.page}")
    if report.decisions:
        lines.append(f"What people decided about {report.decisions:,} pictures stays as it is.")
    next_ = (
        f"Next: `tai review {folder.path}` to correct them, "
        f"`tai export {folder.path} --to ...` for other programs (`tai export --formats`)."
    )
    nothing = "No tag reaches what was asked for: lower --threshold or --min-precision."
    return [*lines, next_ if report.tagging.tags else nothing]


def _summary(report: AnnotateReport, folder: ResultsFolder) -> dict[str, object]:
    return {
        "results": str(folder.path),
        "pictures": report.tagging.items,
        "encoded": report.caching.done,
        "failed": report.caching.failed,
        "tags": report.tagging.tags,
        "decided": report.decisions,
        "store": str(folder.store),
        "tags_file": str(folder.tags),
        "page": None if report.page is None else report.page.page,
        "caching": asdict(report.caching),
    }
