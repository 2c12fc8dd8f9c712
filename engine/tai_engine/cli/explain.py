"""``tai explain``: where in a picture a tag is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tai_engine.cli.options import (
    DEFAULT_MODEL,
    DEFAULT_PRETRAINED,
    AsJson,
    Device,
    EncoderChoice,
    MergeDuplicates,
    Model,
    Precision,
    Pretrained,
    VocabularyChoice,
    VocabularyColumn,
    open_encoder,
)
from tai_engine.cli.output import print_json, print_table, results
from tai_engine.errors import UserError
from tai_engine.files import check_place


def explain(
    picture: Annotated[str, typer.Argument(help="A picture file; with --store also the id of one in it.")],
    out: Annotated[Path, typer.Option("--out", help="The PNG to draw.")],
    tags: Annotated[list[str] | None, typer.Option("--tag", help="Repeat for several; default the best 3.")] = None,
    store: Annotated[str | None, typer.Option("--store", help="Take the features from this store.")] = None,
    images: Annotated[Path | None, typer.Option("--images", help="The folder of the store's pictures.")] = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", help="A saved prompt set in place of zero-shot.")] = None,
    vocabulary: Annotated[str, typer.Option("--vocabulary", help="Words, where there is no --prompts.")] = "coco80",
    vocabulary_column: VocabularyColumn = None,
    merge_duplicates: MergeDuplicates = False,
    model: Model = DEFAULT_MODEL,
    pretrained: Pretrained = DEFAULT_PRETRAINED,
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
    from tai_engine.vocabulary import Vocabulary, VocabularyClass

    check_place(out)
    features = None if store is None else FeatureStore.open(store)
    needs_encoder = features is None or prompts is None
    encoder = None
    if needs_encoder:
        encoder = (
            open_encoder(model, pretrained, device=device, precision=precision)
            if features is None
            else EncoderChoice(None, "", device, precision).open(features)
        )
    if prompts is not None:
        prompt_set = PromptSet.load(prompts)
    else:
        assert encoder is not None
        words = VocabularyChoice(vocabulary, merge_duplicates, vocabulary_column).load()
        unknown = [tag for tag in tags or () if tag not in words.names]
        if unknown:  # any word will do without tuned prompts
            words = Vocabulary("explain", (*words.classes, *map(VocabularyClass, dict.fromkeys(unknown))))
        prompt_set = zero_shot_prompts(encoder, words)
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
