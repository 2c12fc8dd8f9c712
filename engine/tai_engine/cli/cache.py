"""``tai cache``: features are computed once and kept."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tai_engine.caching import CacheOptions, CacheProgress, CacheReport, cache_images, cache_sentences
from tai_engine.cli.options import (
    DEFAULT_MODEL,
    DEFAULT_PRETRAINED,
    SOME_ITEMS_FAILED,
    AsJson,
    BatchSize,
    Device,
    Model,
    Precision,
    Pretrained,
    Workers,
    open_encoder,
)
from tai_engine.cli.output import ProgressBar, human_bytes, print_json, progress_bar, remarks, results
from tai_engine.decoding import DecodeOptions, decode_image
from tai_engine.errors import unknown_choice
from tai_engine.sentences import SentenceOptions, read_sentences
from tai_engine.sources import open_source

app = typer.Typer(help="Compute features once and keep them in a store.", no_args_is_help=True)

ROW_DTYPES = {"fp16": "float16", "fp32": "float32"}
Store = Annotated[Path, typer.Argument(help="The store; it is made, or gone on with.")]
Rows = Annotated[str, typer.Option("--rows", help="How features are kept: fp16 or fp32.")]


@app.command("images")
def images(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A folder, a picture, or a JSONL, CSV or Parquet list.")],
    store: Store,
    model: Model = DEFAULT_MODEL,
    pretrained: Pretrained = DEFAULT_PRETRAINED,
    image_size: Annotated[int | None, typer.Option("--image-size", help="Pixels a side; default the model's.")] = None,
    dense: Annotated[str, typer.Option("--dense", help="Patch features: auto, or value (MaskCLIP's).")] = "auto",
    coarse_only: Annotated[bool, typer.Option("--coarse-only", help="Keep no patch features: small stores.")] = False,
    rows: Rows = "fp16",
    max_megapixels: Annotated[
        float, typer.Option("--max-megapixels", help="Larger pictures are entered as failed.")
    ] = DecodeOptions.max_megapixels,
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: BatchSize = 0,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Encode pictures into a store; what is in it already is skipped."""
    pictures = open_source(source)
    decoding = DecodeOptions(max_megapixels=max_megapixels)
    options = CacheOptions(row_dtype=_row_dtype(rows), workers=workers)
    encoder = open_encoder(
        model,
        pretrained,
        device=device,
        precision=precision,
        image_size=image_size,
        dense="none" if coarse_only else dense,
        batch_size=batch_size,
        decoding=decoding.recipe,
    )
    with progress_bar("Encoding pictures") as bar:
        report = cache_images(
            pictures,
            encoder,
            store,
            decode=functools.partial(decode_image, options=decoding),
            options=options,
            progress=show(bar),
        )
    finish(report, store, "pictures", as_json)


@app.command("texts")
def texts(
    file: Annotated[Path, typer.Argument(help="Sentences: text, JSONL, CSV, TSV, Parquet or COCO's captions JSON.")],
    store: Store,
    model: Model = DEFAULT_MODEL,
    pretrained: Pretrained = DEFAULT_PRETRAINED,
    column: Annotated[str | None, typer.Option("--column", help="Column or key of the sentence.")] = None,
    encoding: Annotated[str, typer.Option("--encoding", help="Of text files.")] = "utf-8",
    rows: Rows = "fp16",
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: BatchSize = 0,
    as_json: AsJson = False,
) -> None:
    """Encode sentences into a store, to be used as if they were pictures."""
    sentences = read_sentences(file, SentenceOptions(text_column=column, encoding=encoding))
    options = CacheOptions(row_dtype=_row_dtype(rows))
    encoder = open_encoder(model, pretrained, device=device, precision=precision, dense="none", batch_size=batch_size)
    with progress_bar("Encoding sentences") as bar:
        report = cache_sentences(
            ((sentence.id, sentence.text) for sentence in sentences if sentence.text),
            encoder,
            store,
            options=options,
            progress=show(bar),
        )
    finish(report, store, "sentences", as_json)


def show(bar: ProgressBar) -> Callable[[CacheProgress], None]:
    """A callback that draws the progress of caching."""

    def update(progress: CacheProgress) -> None:
        through = progress.done + progress.failed + progress.skipped
        note = f"{progress.failed} failed" if progress.failed else ""
        if progress.estimated_bytes is not None:
            note += f" (about {human_bytes(progress.estimated_bytes)} in all)"
        bar.update(through, progress.total, note.strip())

    return update


def describe(report: CacheReport, store: Path, what: str) -> str:
    """The outcome in a sentence or two."""
    text = (
        f"{report.done:,} {what} encoded in {report.seconds:.1f} s ({report.items_per_second:,.1f}/s), "
        f"{human_bytes(report.bytes_written)} written -> {store}"
    )
    if report.skipped:
        text += f"\n{report.skipped:,} were in the store already."
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.stage_seconds.items())
    return f"{text}\nSeconds per stage: {stages}"


def finish(report: CacheReport, store: Path, what: str, as_json: bool) -> None:
    """Say what happened; leave with status 1 if items failed."""
    if as_json:
        print_json({**asdict(report), "items_per_second": report.items_per_second, "store": str(store)})
    else:
        results.print(describe(report, store, what), highlight=False, markup=False)
    if report.failed:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in report.reasons.items())
        remarks.print(
            f"{report.failed:,} failed ({reasons}); `tai info {store} --failed` lists them.",
            highlight=False,
            markup=False,
        )
        raise typer.Exit(SOME_ITEMS_FAILED)


def _row_dtype(rows: str) -> str:
    if rows not in ROW_DTYPES:
        raise unknown_choice("kind of rows", rows, ROW_DTYPES)
    return ROW_DTYPES[rows]
