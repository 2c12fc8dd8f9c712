"""``tai review`` and ``tai report``: tags looked at, corrected, and shown."""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tai_engine.cli.options import SOME_ITEMS_FAILED, AsJson, Workers
from tai_engine.cli.output import print_json, progress_bar, remarks, results
from tai_engine.cli.results_option import OR_RESULTS, images_of, results_at, store_at, tags_at
from tai_engine.errors import UserError
from tai_engine.files import human_bytes
from tai_engine.json_documents import parse_json

if TYPE_CHECKING:
    from tai_engine.annotating.results_folder import ResultsFolder
    from tai_engine.review.collection import Collection
    from tai_engine.review.heatmaps import Heatmaps

DEFAULT_PORT = 8770

Tags = Annotated[Path, typer.Argument(help=f"A file of tags that `tai tag` made, {OR_RESULTS}.")]
Images = Annotated[
    str | None,
    typer.Option(
        "--images", help="The folder, list or archive that `tai cache images` was given; default what was annotated."
    ),
]
Most = Annotated[
    int | None,
    typer.Option(
        "--most", min=1, max=1000, help="Suggestions per picture; default 32, or 8 where every tag was written."
    ),
]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Also show pictures that are links to files outside of the folder.")
]


def review(
    tags: Tags,
    images: Images = None,
    store: Annotated[str | None, typer.Option("--store", help="The store that was tagged, for heatmaps.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help="The prompt set that was tagged with; default zero-shot, made anew."),
    ] = None,
    journal: Annotated[
        Path | None, typer.Option("--journal", help="Where decisions go; default TAGS.decisions.jsonl beside the tags.")
    ] = None,
    carry_over: Annotated[
        bool, typer.Option("--carry-over", help="Go on with a journal although the pictures were tagged anew.")
    ] = False,
    free_words: Annotated[
        bool, typer.Option("--free-words", help="Tags may be words outside of the vocabulary.")
    ] = False,
    reviewer: Annotated[str, typer.Option("--reviewer", help="Who decides; default your user name.")] = "",
    most: Most = None,
    follow_links: FollowLinks = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="To serve the page on; 0 takes a free one.")] = (
        DEFAULT_PORT
    ),
    cache: Annotated[
        Path | None, typer.Option("--thumbnail-cache", help="Folder for thumbnails; default in your cache folder.")
    ] = None,
    cache_megabytes: Annotated[
        int, typer.Option("--thumbnail-cache-size", min=0, help="Megabytes of thumbnails kept at most.")
    ] = 2000,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Look at tags in a browser and correct them, unsure ones first; every decision is kept in a journal."""
    _require_extra()
    from platformdirs import user_cache_path

    from tai_engine.disk_cache import DiskCache
    from tai_engine.review.guard import Guard
    from tai_engine.review.journal import Journal, default_journal
    from tai_engine.review.server import review_app
    from tai_engine.review.serving import LOOPBACK, listen, serve
    from tai_engine.review.session import ReviewSession
    from tai_engine.review.thumbnails import Thumbnails

    with ExitStack() as stack:
        listener = stack.enter_context(listen(port))
        port = listener.getsockname()[1]
        folder = results_at(tags)
        title = tags.stem if folder is None else folder.title
        tags = tags_at(tags)
        collection = _open(tags, images_of(images, folder), most, follow_links)
        if folder is not None and store is None and prompts is None:
            heatmaps = _own_heatmaps(collection, folder)
        else:
            heatmaps = _heatmaps(collection, store, prompts)
        journal = journal or default_journal(tags)
        entries = stack.enter_context(
            closing(
                Journal(
                    journal,
                    tags_file=tags.name,
                    tags_sha256=collection.suggestions.sha256,
                    by=reviewer or _user_name(),
                    carry_over=carry_over or folder is not None,  # there tags are made anew of the same pictures
                )
            )
        )
        if entries.cut_bytes:
            remarks.print(
                f"The last line of {journal} was cut short by a crash; it was never confirmed and is left out.",
            )
        kept = DiskCache(cache or user_cache_path("tai-engine") / "thumbnails", cache_megabytes * 1_000_000)
        thumbnails = stack.enter_context(closing(Thumbnails(collection, kept, workers)))
        session = ReviewSession(collection, entries, free_words=free_words)
        guard = Guard(port)
        app = review_app(session, thumbnails, guard, title=title, heatmaps=heatmaps)
        address = f"http://{LOOPBACK}:{port}/?token={guard.token}"

        def say() -> None:
            if as_json:
                print_json({"address": address, "pictures": len(collection), "journal": str(journal)})
            else:
                results.print(address)
                remarks.print(f"Open this address in a browser; Ctrl-C ends it. Decisions go to {journal}.")
            results.file.flush()

        thumbnails.make_first()
        serve(app, listener, say)


def report(
    tags: Tags,
    images: Images = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The folder that is written; default the report of a folder of `tai annotate`."),
    ] = None,
    decisions: Annotated[
        Path | None,
        typer.Option("--decisions", help="The journal of a review; default the one beside the tags, if any."),
    ] = None,
    side: Annotated[int, typer.Option("--thumbnail-size", min=64, max=2048, help="Pixels of the longer side.")] = 384,
    most: Most = None,
    follow_links: FollowLinks = False,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Write the page of a review as a folder to keep or to share: it opens without a server and changes nothing."""
    from tai_engine.review.decisions import Decisions
    from tai_engine.review.journal import default_journal, read_decisions
    from tai_engine.review.report_folder import check_report_place, estimate_report, write_report

    workers = workers or min(8, os.cpu_count() or 1)
    folder = results_at(tags)
    title = tags.stem if folder is None else folder.title
    out = out or (None if folder is None else folder.report)
    if out is None:
        raise UserError("Say where to write the page, with --out.")
    check_report_place(out)
    tags = tags_at(tags)
    collection = _open(tags, images_of(images, folder), most, follow_links)
    beside = default_journal(tags)
    if decisions is None and beside.exists():
        decisions = beside
    decided = Decisions() if decisions is None else read_decisions(decisions)
    estimate = estimate_report(collection, side, workers)
    remarks.print(
        f"The report will have {estimate.pictures:,} pictures and take about {human_bytes(estimate.bytes)}"
        f"{f' with the decisions of {decisions}' if decisions else ''}.",
    )
    with progress_bar("Thumbnails") as bar:
        result = write_report(
            collection,
            out,
            decided,
            title=title,
            side=side,
            workers=workers,
            estimate=estimate,
            progress=bar.update,
        )
    if as_json:
        print_json({**asdict(result), "estimated_bytes": estimate.bytes})
    else:
        results.print(f"{result.pictures:,} pictures, {human_bytes(result.bytes)} -> {result.page}")
        for item_id, reason in result.failed:
            remarks.print(f"{item_id}: {reason}")
        if result.failed_count:
            remarks.print(f"{result.failed_count:,} pictures cannot be shown.")
    if result.failed_count:
        raise typer.Exit(SOME_ITEMS_FAILED)


def _open(tags: Path, images: str, most: int | None, follow_links: bool) -> Collection:
    from tai_engine.review.collection import Collection

    collection = Collection.open(tags, images, most=most, follows_links=follow_links)
    if collection.missing:
        tagged = collection.missing + collection.tagged
        remarks.print(f"Of the {tagged:,} tagged pictures {collection.missing:,} are not in {images}.")
    return collection


def _heatmaps(collection: Collection, store: str | None, prompts: Path | None) -> Heatmaps | None:
    if store is None:
        if prompts is not None:
            raise UserError("--prompts is for heatmaps, which also need --store (the store that was tagged).")
        return None
    from tai_engine.cli.options import EncoderChoice
    from tai_engine.prompts.prompt_set import PromptSet
    from tai_engine.review.heatmaps import Heatmaps
    from tai_engine.store import FeatureStore
    from tai_engine.tagging.tag_job import vectors_digest
    from tai_engine.vocabulary import DEFAULT_TEMPLATE, Vocabulary

    features, provenance = FeatureStore.open(store), collection.suggestions.provenance
    if prompts is not None:
        prompt_set = PromptSet.load(prompts)
        if vectors_digest(prompt_set) != provenance.get("prompts_sha256"):
            raise UserError(f"The pictures were tagged with other prompts than '{prompts}': give those with --prompts.")
    elif provenance.get("prompts_method") == "tuned":
        raise UserError("The pictures were tagged with tuned prompts: give these with --prompts, for their heatmaps.")
    else:
        templates = _templates_of(provenance) or [DEFAULT_TEMPLATE]
        words = Vocabulary.from_names(collection.suggestions.tags)
        prompt_set = EncoderChoice(None, "", "auto", "auto").of(features).zero_shot(words, templates)
    return Heatmaps(features, prompt_set)


def _own_heatmaps(collection: Collection, folder: ResultsFolder) -> Heatmaps | None:
    """Those of a folder of results; None where features have no patches, or a run that was cut off left other words."""
    from tai_engine.prompts.prompt_set import PromptSet
    from tai_engine.review.heatmaps import Heatmaps
    from tai_engine.store import FeatureStore
    from tai_engine.tagging.tag_job import vectors_digest

    features, prompts = FeatureStore.open(store_at(str(folder.path))), PromptSet.load(folder.prompts)
    if not features.spec.has_fine or vectors_digest(prompts) != collection.suggestions.provenance.get("prompts_sha256"):
        return None
    return Heatmaps(features, prompts)


def _templates_of(provenance: Mapping[str, str]) -> list[str]:
    """The templates that the tags were made with, none where it does not say."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        templates = parse_json(parse_json(provenance["prompts"])["templates"])
        if isinstance(templates, list) and all(isinstance(template, str) for template in templates):
            return templates
    return []


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without names for its users
        return "somebody"


def _require_extra() -> None:
    try:
        import starlette
        import uvicorn
    except ImportError as error:
        raise UserError(
            f"The page needs the package {error.name}, which is not installed: pip install 'tai-engine[review]'."
        ) from error
    del starlette, uvicorn
