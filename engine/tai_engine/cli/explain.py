"""``tai explain``: where in a picture a tag is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tai_engine.cli.named_places import refuse_picture
from tai_engine.cli.options import (
    DEFAULT_MODEL,
    DEFAULT_PRETRAINED,
    AsJson,
    Device,
    EncoderChoice,
    MergeDuplicates,
    Precision,
    VocabularyChoice,
    VocabularyColumn,
    open_encoder,
)
from tai_engine.cli.output import print_json, print_table, results
from tai_engine.cli.results_option import OR_RESULTS, picture_folder_of, prompts_of, results_at, store_at
from tai_engine.errors import UserError
from tai_engine.files import check_place

if TYPE_CHECKING:
    from tai_engine.annotating.results_folder import ResultsFolder
    from tai_engine.prompts.prompt_set import PromptSet
    from tai_engine.vocabulary import Vocabulary

DEFAULT_VOCABULARY = "coco80"


def explain(
    picture: Annotated[str, typer.Argument(help="A picture file; with --store also the id of one in it.")],
    out: Annotated[Path, typer.Option("--out", help="The PNG to draw.")],
    tags: Annotated[list[str] | None, typer.Option("--tag", help="Repeat for several; default the best 3.")] = None,
    store: Annotated[
        str | None, typer.Option("--store", help=f"Take the features from this store, {OR_RESULTS}.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="The folder of the store's pictures; default what was annotated.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", help="A saved prompt set in place of zero-shot.")] = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            "--vocabulary",
            help=f"Words, where there is no --prompts; default those that were annotated, else {DEFAULT_VOCABULARY}.",
        ),
    ] = None,
    vocabulary_column: VocabularyColumn = None,
    merge_duplicates: MergeDuplicates = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help=f"As for `tai cache images`; default {DEFAULT_MODEL}, and with --store the one that made it.",
        ),
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option("--pretrained", help=f"Its weights; default {DEFAULT_PRETRAINED}.")
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Draw a heatmap over a picture for each tag: where the patches are most like it."""
    from tai_engine.explain.explained import draw_explained
    from tai_engine.explain.explained import explain as explained
    from tai_engine.prompts.prompt_set import PromptSet, zero_shot_prompts
    from tai_engine.searching.likeness import open_picture
    from tai_engine.sources.ids import picture_path
    from tai_engine.store import FeatureStore

    check_place(out)
    if store is None and images is not None:
        raise UserError("--images is where the pictures of a store lie: add --store, or leave --images out.")
    words = VocabularyChoice(vocabulary or DEFAULT_VOCABULARY, merge_duplicates, vocabulary_column)
    has_words = vocabulary is not None or words != VocabularyChoice(DEFAULT_VOCABULARY)
    if prompts is not None and has_words:
        raise UserError(
            "--vocabulary, --vocabulary-column and --merge-duplicates are for zero-shot words: leave them out with "
            "--prompts."
        )
    folder = results_at(store)
    images = picture_folder_of(images, folder)
    features = None if store is None else FeatureStore.open(store_at(store))
    if features is not None:
        refuse_picture("--out", out, images, features)
    prompt_set = None if prompts is None else PromptSet.load(prompts)
    if prompt_set is None and not has_words:
        prompt_set = _annotated_prompts(folder, tags or ())
    encoder = None
    if features is None:
        weights = DEFAULT_PRETRAINED if pretrained is None else pretrained
        encoder = open_encoder(model or DEFAULT_MODEL, weights, device=device, precision=precision)
    elif prompt_set is not None and (model or pretrained):
        raise UserError(
            "The features are those of --store, and the words are vectors: leave --model and --pretrained out."
        )
    if prompt_set is None:
        named = _with_tags(words.load(), tags or ())
        if features is not None:
            prompt_set = EncoderChoice(model, pretrained or "", device, precision).of(features).zero_shot(named)
        else:
            assert encoder is not None
            prompt_set = zero_shot_prompts(encoder, named)
    if features is None:
        assert encoder is not None
        shown = open_picture(Path(picture))
        item, recipe = encoder.encode_images([shown], [picture]), encoder.recipe
    else:
        item, recipe = features.read_ids([picture]), dict(features.spec.recipe)
        shown = None
        if images is not None:
            try:
                shown = open_picture(picture_path(images, picture), recipe.get("decoding"))
            except ValueError as error:
                raise UserError(f"{error}.") from error
    found = explained(item, prompt_set, tuple(tags or ()))
    draw_explained(found, shown, recipe, picture, out)
    if as_json:
        print_json([{"tag": tag.name, "score": tag.score, "grid": tag.grid.tolist()} for tag in found])
        return
    rows = [(tag.name, tag.score, float(tag.grid.max()), "{} / {}".format(*tag.best_patch)) for tag in found]
    print_table(picture, ("tag", "score", "best patch", "row / column"), rows)
    results.print(f"-> {out}")


def _annotated_prompts(folder: ResultsFolder | None, tags: Sequence[str]) -> PromptSet | None:
    """Those of a folder of results, if it has all the tags."""
    from tai_engine.prompts.prompt_set import PromptSet

    path = prompts_of(folder)
    found = None if path is None else PromptSet.load(path)
    return found if found is not None and set(tags) <= set(found.class_names) else None


def _with_tags(words: Vocabulary, tags: Sequence[str]) -> Vocabulary:
    """The words and, since any will do without tuned prompts, the tags that are none of them."""
    from tai_engine.vocabulary import Vocabulary, VocabularyClass

    others = [tag for tag in dict.fromkeys(tags) if tag not in words.names]
    return Vocabulary("explain", (*words.classes, *map(VocabularyClass, others))) if others else words
