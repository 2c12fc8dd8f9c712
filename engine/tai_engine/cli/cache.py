"""``tai cache``: features are computed once and kept."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from tai_engine.cli.cache_output import finish, show, warnings_of
from tai_engine.cli.options import (
    DEFAULT_MODEL,
    DEFAULT_PRETRAINED,
    USAGE_OR_ENVIRONMENT,
    AsJson,
    BatchSize,
    Device,
    Fast,
    MergeDuplicates,
    Model,
    Precision,
    Pretrained,
    VocabularyChoice,
    VocabularyColumn,
    Workers,
    open_encoder,
)
from tai_engine.cli.output import progress_bar
from tai_engine.cli.runners import Devices, Processes, RayAddress, Runner, cache_elsewhere, place_of, workplaces
from tai_engine.cli.source_options import Allow, Exclude, ListColumn
from tai_engine.cli.table_options import Encoding, Format, Header, Separator
from tai_engine.errors import UserError, unknown_choice
from tai_engine.files import check_place

app = typer.Typer(help="Compute features once and keep them in a store.", no_args_is_help=True)

ROW_DTYPES = {"fp16": "float16", "fp32": "float32", "int8": "int8"}
DRAFT = 1.5
"""Times the model's size that a JPEG keeps when it is decoded at a smaller scale."""

Store = Annotated[str, typer.Argument(help="The store, a folder or an address; it is made, or brought up to date.")]
Rows = Annotated[str, typer.Option("--rows", help="How features are kept: fp16, fp32, or int8 (half of fp16's space).")]


@app.command("images")
def images(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="A folder, a picture, a JSONL, CSV or Parquet list, tar archives, or an address of one of these.",
        ),
    ],
    store: Store,
    model: Model = DEFAULT_MODEL,
    pretrained: Pretrained = DEFAULT_PRETRAINED,
    exclude: Exclude = None,
    column: ListColumn = None,
    format_: Format = None,
    separator: Separator = None,
    header: Header = None,
    encoding: Encoding = "utf-8",
    allow: Allow = None,
    image_size: Annotated[int | None, typer.Option("--image-size", help="Pixels a side; default the model's.")] = None,
    dense: Annotated[str, typer.Option("--dense", help="Patch features: auto, or value (MaskCLIP's).")] = "auto",
    coarse_only: Annotated[bool, typer.Option("--coarse-only", help="Keep no patch features: small stores.")] = False,
    rows: Rows = "fp16",
    max_megapixels: Annotated[
        float | None, typer.Option("--max-megapixels", help="Larger pictures are entered as failed; default 128.")
    ] = None,
    draft: Annotated[
        bool,
        typer.Option("--draft", help=f"Decode large JPEGs at a smaller scale, {DRAFT:g} times the model's or more."),
    ] = False,
    check: Annotated[
        str,
        typer.Option("--check", help="What tells that a picture has changed: stat (size and time), or content (hash)."),
    ] = "stat",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try pictures again that failed.")] = False,
    delete_missing: Annotated[
        bool, typer.Option("--delete-missing", help="Delete what is in the store and not in SRC any more.")
    ] = False,
    delete_many: Annotated[
        bool,
        typer.Option(
            "--delete-many", help="With --delete-missing: even if more than a fifth goes, or whole folders are empty."
        ),
    ] = False,
    id_prefix: Annotated[
        str,
        typer.Option("--id-prefix", help="Put this before the ids, such as cam2/: several sources in one store."),
    ] = "",
    moved: Annotated[
        bool, typer.Option("--moved", help="SRC is what the store was made from, at another place now.")
    ] = False,
    device: Device = "auto",
    devices: Devices = "",
    processes: Processes = 0,
    runner: Runner = "local",
    ray_address: RayAddress = "",
    precision: Precision = "auto",
    fast: Fast = True,
    batch_size: BatchSize = 0,
    workers: Workers = 0,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0, help="Seconds that a picture may take to decode; 0 is no limit.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Bring a store up to date with pictures: new and changed ones are encoded, the others skipped."""
    from tai_engine.addresses import is_address
    from tai_engine.caching.images import cache_images
    from tai_engine.caching.report import CacheOptions
    from tai_engine.decoding.decode import DecodeOptions
    from tai_engine.decoding.process import spare
    from tai_engine.sources import SourceOptions, open_source
    from tai_engine.sources.prefixed import PrefixedSource
    from tai_engine.tables import TableOptions

    options = CacheOptions(
        row_dtype=_row_dtype(rows),
        workers=workers,
        timeout_seconds=timeout,
        check=check,
        retry_failed=retry_failed,
        delete_missing=delete_missing or delete_many,
        delete_many=delete_many,
        origin=place_of(source),
        id_prefix=id_prefix,
        has_moved=moved,
    )
    decoding = DecodeOptions(draft=DRAFT if draft else 0.0)
    if max_megapixels is not None:
        decoding = replace(decoding, max_megapixels=max_megapixels)
    if coarse_only and dense != "auto":
        raise UserError("--coarse-only keeps no patch features: leave --dense out, or that.")
    places = workplaces(runner, devices, processes, ray_address, device)
    encoder_options = {
        "precision": precision,
        "fast": fast,
        "image_size": image_size,
        "dense": "none" if coarse_only else dense,
        "batch_size": batch_size,
        "images_only": True,
    }
    require_place(store)
    table = TableOptions(format_, separator, header, encoding)
    source_options = SourceOptions(tuple(exclude or ()), column, table, tuple(allow or ()))
    if places.are_elsewhere and not is_address(source):
        source = os.path.abspath(source)  # noqa: PTH100 - may be a pattern; other machines have another working folder
    with progress_bar("Encoding pictures") as bar:
        shown = show(bar, store)
        pictures = open_source(source, source_options)
        if id_prefix:
            pictures = PrefixedSource(pictures, id_prefix)
        if places.are_elsewhere:
            report = cache_elsewhere(
                places, pictures, store, model, pretrained, encoder_options, decoding, options, progress=shown
            )
        else:
            spare.start()  # while the model is loaded
            encoder = open_encoder(model, pretrained, device=places.device, decoding=decoding.recipe, **encoder_options)
            report = cache_images(pictures, encoder, store, decoding=decoding, options=options, progress=shown)
    finish(report, store, "pictures", as_json, warnings=warnings_of(report))
    if report.kept_because:
        # What was asked for was not done.
        raise typer.Exit(USAGE_OR_ENVIRONMENT)


@app.command("texts")
def texts(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="Sentences: text, JSONL, CSV, TSV, Parquet, COCO's or Karpathy's JSON, also gzipped."
        ),
    ],
    store: Store,
    vocabulary: Annotated[
        str | None,
        typer.Option("--vocabulary", help="Keep and label the sentences that name a class: coco80, ..., or a file."),
    ] = None,
    vocabulary_column: VocabularyColumn = None,
    merge_duplicates: MergeDuplicates = False,
    language: Annotated[
        str | None, typer.Option("--language", help="Code of the sentences' language, or none; default en.")
    ] = None,
    templates: Annotated[
        bool,
        typer.Option("--templates/--no-templates", help="Add the vocabulary's template sentences, or the paper's 89."),
    ] = True,
    limit_per_rarest_class: Annotated[
        int | None,
        typer.Option(
            "--limit-per-rarest-class", min=1, help="A sentence counts for its rarest class, which keeps so many."
        ),
    ] = None,
    exclude_images: Annotated[
        Path | None, typer.Option("--exclude-images", help="A list of image ids, one a line, not to learn from.")
    ] = None,
    sentences_per_image: Annotated[
        int | None, typer.Option("--sentences-per-image", min=1, help="Keep the first so many of an image.")
    ] = None,
    model: Model = DEFAULT_MODEL,
    pretrained: Pretrained = DEFAULT_PRETRAINED,
    column: Annotated[str | None, typer.Option("--column", help="Column or key of the sentence.")] = None,
    image_column: Annotated[str | None, typer.Option("--image-column", help="Column or key of the image's id.")] = None,
    format_: Format = None,
    separator: Separator = None,
    header: Header = None,
    encoding: Encoding = "utf-8",
    rows: Rows = "fp16",
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: BatchSize = 0,
    as_json: AsJson = False,
) -> None:
    """Encode sentences into a store, labelled with the classes that they name: what prompts are tuned on."""
    from tai_engine.caching.report import CacheOptions
    from tai_engine.caching.texts import cache_corpus, cache_sentences
    from tai_engine.cli.corpus_options import check_files, describe_corpus, open_corpus
    from tai_engine.sentences.read import SentenceOptions, read_sentences
    from tai_engine.store import FeatureStore
    from tai_engine.tables import TableOptions

    if vocabulary is None and (vocabulary_column is not None or merge_duplicates):
        option = "--merge-duplicates" if vocabulary_column is None else "--vocabulary-column"
        raise UserError(f"{option} is about the words of --vocabulary: give that as well, or leave it out.")
    reading = SentenceOptions(column, image_column, TableOptions(format_, separator, header, encoding))
    corpus = open_corpus(
        files,
        None if vocabulary is None else VocabularyChoice(vocabulary, merge_duplicates, vocabulary_column),
        reading,
        language=language,
        templates=templates,
        limit_per_rarest_class=limit_per_rarest_class,
        exclude_images=exclude_images,
        sentences_per_image=sentences_per_image,
    )
    check_files(files, reading)
    require_place(store)
    options = CacheOptions(row_dtype=_row_dtype(rows))
    encoder = open_encoder(model, pretrained, device=device, precision=precision, dense="none", batch_size=batch_size)
    with progress_bar("Encoding sentences") as bar:
        progress = show(bar, store)
        if corpus is None:
            plain = ((one.id, one.text, None) for one in read_sentences(files, reading) if one.text)
            report = cache_sentences(plain, encoder, store, options=options, progress=progress)
        else:
            report = cache_corpus(corpus, encoder, store, options=options, progress=progress)
    filled = FeatureStore.open(store)
    facts: dict[str, Any] = {"data_fingerprint": filled.data_fingerprint}
    warnings = corpus.report.warnings() if corpus is not None else []
    if len(filled) > report.items:
        warnings.append(
            f"The store holds {len(filled) - report.items:,} sentences that these files and options do not give: they "
            "come from an earlier run and stay; choose another store to be without them."
        )
    if corpus is not None:
        facts |= {"vocabulary": corpus.vocabulary.name, "corpus": corpus.report.as_dict()}
    finish(
        report,
        store,
        "sentences",
        as_json,
        facts={**facts, "warnings": warnings},
        lines=describe_corpus(corpus.report) if corpus is not None else (),
        warnings=warnings,
    )


def require_place(store: str) -> None:
    """Find out before an encoder is loaded whether there is a store, or room for one.

    Raises:
        UserError: as `FeatureStore.open`, or if the place cannot be written.
    """
    from tai_engine.addresses import is_address
    from tai_engine.store import FeatureStore

    if not FeatureStore.is_free(store):
        FeatureStore.open(store)
    elif not is_address(store):
        check_place(store, folder=True)


def _row_dtype(rows: str) -> str:
    if rows not in ROW_DTYPES:
        raise unknown_choice("kind of rows", rows, ROW_DTYPES)
    return ROW_DTYPES[rows]
