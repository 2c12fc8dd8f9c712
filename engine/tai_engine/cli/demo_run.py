"""The work of ``tai demo``; it stands apart so that the command line starts without loading all this."""

from __future__ import annotations

import functools
import time
from pathlib import Path

from tai_engine.caching import CacheOptions, cache_images
from tai_engine.cli.cache import describe as describe_caching
from tai_engine.cli.cache import show
from tai_engine.cli.options import open_encoder
from tai_engine.cli.output import print_json, print_table, progress_bar, results
from tai_engine.cli.tag import describe as describe_tagging
from tai_engine.decoding import DecodeOptions, decode_image
from tai_engine.demo.contact_sheet import Entry, draw_contact_sheet
from tai_engine.demo.pictures import TRUTH_NAME, draw_pictures
from tai_engine.prompts import zero_shot_prompts
from tai_engine.sources import open_source
from tai_engine.store import FeatureStore
from tai_engine.tag_evaluation import evaluate_tags
from tai_engine.tag_file import TagFile, read_tag_file
from tai_engine.tagging import tag_store
from tai_engine.vocabulary import load_vocabulary

SHOWN_PICTURES = 8
SHOWN_TAGS = 3


def run_demo(out: Path, pictures: int, seed: int, as_json: bool) -> None:
    """Draw, cache, tag, evaluate and show; everything goes below ``out``."""
    begun = time.perf_counter()
    # One folder for each set of pictures, so that a second run with other options is not mistaken for a resumed one.
    run = out / f"pictures-{pictures}-seed-{seed}"
    picture_folder, store_path, tags_path = run / "pictures", run / "features.zarr", run / "tags.parquet"
    sheet_path = run / "contact-sheet.png"
    truth = draw_pictures(picture_folder, pictures, seed)
    encoder = open_encoder("demo", "")
    decoding = DecodeOptions()
    with progress_bar("Encoding pictures") as bar:
        caching = cache_images(
            open_source(str(picture_folder)),
            encoder,
            store_path,
            decode=functools.partial(decode_image, options=decoding),
            options=CacheOptions(),
            progress=show(bar, store_path),
        )
    prompts = zero_shot_prompts(encoder, load_vocabulary("coco80"))
    with progress_bar("Tagging") as bar:
        tagging = tag_store(FeatureStore.open(store_path), prompts, tags_path, progress=bar.update)
    evaluation = evaluate_tags(tags_path, picture_folder / TRUTH_NAME)
    entries = _entries(read_tag_file(tags_path), dict(truth), picture_folder)
    mean = evaluation.precisions.mean
    draw_contact_sheet(entries, sheet_path, f"{pictures} pictures, zero-shot tags, mAP {100 * mean:.1f} %")
    seconds = time.perf_counter() - begun
    if as_json:
        print_json(
            {
                "pictures": pictures,
                "map_zero_shot": mean,
                "seconds": seconds,
                "store": str(store_path),
                "tags": str(tags_path),
                "contact_sheet": str(sheet_path),
            }
        )
        return
    rows = [(e.picture.name, ", ".join(e.tags), ", ".join(sorted(e.truth))) for e in entries[:SHOWN_PICTURES]]
    print_table(f"The first {len(rows)} of {pictures} pictures", ("picture", "tags", "truth"), rows)
    for line in (
        describe_caching(caching, store_path, "pictures"),
        describe_tagging(tagging),
        f"Zero-shot mAP {100 * mean:.1f} % over {len(evaluation.precisions.per_class)} classes; the drawings are of a "
        "style that the embedded model never saw.",
        f"To look at: {sheet_path}",
        f"All of it took {seconds:.1f} s.",
    ):
        results.print(line, highlight=False, markup=False)


def _entries(file: TagFile, truth: dict[str, frozenset[str]], folder: Path) -> list[Entry]:
    best = file.scores.top_k(SHOWN_TAGS)
    offsets = best.offsets.tolist()
    names = [file.scores.class_names[c] for c in best.class_indices.tolist()]
    return [
        Entry(folder / name, tuple(names[offsets[n] : offsets[n + 1]]), truth[name])
        for n, name in enumerate(file.scores.ids)
    ]
