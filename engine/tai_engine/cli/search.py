"""``tai search``: pictures of a store by words, or by a picture that they are like."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tai_engine.cli.named_places import refuse_picture
from tai_engine.cli.options import AsJson, Device, EncoderChoice, Precision
from tai_engine.cli.output import print_json, print_table, progress_bar, remarks
from tai_engine.cli.results_option import OR_RESULTS, picture_folder_of, results_at, store_at
from tai_engine.errors import UserError, unknown_choice
from tai_engine.files import check_place

if TYPE_CHECKING:
    from tai_engine.searching.search import Hit

NO_BACKGROUND = "none"
USUAL = "coco80"
# What people type is a sentence or a word: each is taken as it stands and as a caption.
TEMPLATES = ("{}", "a photo of {}.")


def search(
    store: Annotated[
        str, typer.Argument(help=f"A store that `tai cache images` made, its folder or address, {OR_RESULTS}.")
    ],
    words: Annotated[list[str] | None, typer.Argument(help="Such as 'a dog on a beach'; several in turn.")] = None,
    like: Annotated[
        list[str] | None,
        typer.Option("--like", help="A picture file, or an id of the store; repeat for several."),
    ] = None,
    top: Annotated[int, typer.Option("--top", help="How many pictures for each.")] = 20,
    which: Annotated[
        str | None,
        typer.Option(
            "--score", help="Of words: coarse (the default) is fast; merged reads the patches too, for small things."
        ),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(
            "--background",
            help=f"Words that tell what is usual for a picture; default {USUAL}; {NO_BACKGROUND!r} gives raw scores.",
        ),
    ] = None,
    images: Annotated[Path | None, typer.Option("--images", help="The folder of the pictures, for --sheet.")] = None,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Draw what was found into this PNG.")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Find pictures by words or by likeness, from the cache."""
    from tai_engine.encoders.devices import resolve_device
    from tai_engine.searching.likeness import vectors_like
    from tai_engine.searching.search import search_like, search_words
    from tai_engine.searching.search_sheet import draw_found
    from tai_engine.store import FeatureStore
    from tai_engine.tagging.scoring import SCORES
    from tai_engine.vocabulary import Vocabulary, VocabularyClass, load_vocabulary

    if not words and not like:
        raise UserError("Say what to look for: words, such as 'a dog on a beach', or --like with a picture.")
    for option, value in {"--score": which, "--background": background}.items():
        if value is not None and not words:
            raise UserError(f"{option} is about words that are looked for: add some, or leave it out with --like.")
    which, background = which or "coarse", background or USUAL
    if which not in SCORES:
        raise unknown_choice("score", which, SCORES)
    if images is not None and sheet is None:
        raise UserError("--images is where the pictures of a sheet come from: add --sheet, or leave --images out.")
    images = picture_folder_of(images, results_at(store))
    if sheet is not None and images is None:
        raise UserError("A sheet needs the pictures themselves: name their folder with --images.")
    if sheet is not None:
        check_place(sheet)
    features = FeatureStore.open(store_at(store))
    if sheet is not None:
        refuse_picture("--sheet", sheet, images, features)
    encoder = EncoderChoice(None, "", device, precision).of(features)
    found: list[tuple[str, list[Hit]]] = []
    with progress_bar("Searching") as bar:
        if words:
            asked = tuple(dict.fromkeys(words))
            queries = encoder.zero_shot(Vocabulary("search", tuple(map(VocabularyClass, asked))), TEMPLATES)
            usual = None if background == NO_BACKGROUND else encoder.zero_shot(load_vocabulary(background))
            by_words = search_words(
                features,
                queries,
                usual,
                top=top,
                which=which,
                device=str(resolve_device(device)),
                progress=bar.update,
            )
            found += zip(asked, by_words, strict=True)
        if like:
            vectors = vectors_like(like, features, encoder.encoder)
            found += zip(like, search_like(features, vectors, top=top, progress=bar.update), strict=True)
    if as_json:
        print_json(
            [{"query": query, "rank": n, **asdict(hit)} for query, hits in found for n, hit in enumerate(hits, 1)]
        )
    else:
        for query, hits in found:
            print_table(query, ("", "picture", "score"), [(n, hit.id, hit.score) for n, hit in enumerate(hits, 1)])
    if sheet is not None and images is not None:
        missing = draw_found(found, images, sheet)
        if missing:
            remarks.print(f"{missing:,} of the pictures are not in '{images}', and have empty frames.")
