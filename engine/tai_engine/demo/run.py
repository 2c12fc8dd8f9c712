"""The work of ``tai demo``; it stands apart so that the command line starts without loading all this."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from tai_engine.caching.images import cache_images
from tai_engine.caching.report import CacheOptions, CacheReport
from tai_engine.cli.cache import describe as describe_caching
from tai_engine.cli.cache import show
from tai_engine.cli.options import open_encoder
from tai_engine.cli.output import print_json, print_table, progress_bar, results
from tai_engine.cli.tag import describe as describe_tagging
from tai_engine.cli.tune import show_steps
from tai_engine.decoding.decode import DecodeOptions
from tai_engine.demo.contact_sheet import Entry, draw_contact_sheet
from tai_engine.demo.pictures import TRUTH_NAME, draw_pictures
from tai_engine.demo.recipe import INITIAL_WORDS, own_names, own_names_recipe, tuning_recipe
from tai_engine.demo.tuned import cache_demo_sentences, precisions, sentences_path, untuned_prompts
from tai_engine.encoders import Encoder
from tai_engine.evaluation.tag_evaluation import evaluate_tags
from tai_engine.evaluation.truth import load_truth
from tai_engine.prompts.prompt_set import PromptSet, zero_shot_prompts
from tai_engine.sources import open_source
from tai_engine.store import FeatureStore
from tai_engine.tagging.batch_loop import tag_store
from tai_engine.tagging.scoring import SCORES
from tai_engine.tagging.tag_file import TagFile, read_tag_file
from tai_engine.tuning import TuningConfig, TuningResult, TuningTask, tune_task
from tai_engine.tuning.run_folder import CURVE, MINED
from tai_engine.vocabulary import Vocabulary, load_vocabulary

SENTENCES = 2000
SHOWN_PICTURES = 8
SHOWN_TAGS = 3
WITHIN_CHANCE = 0.01
"""A difference in mAP that other pictures may turn round."""


def run_demo(out: Path, pictures: int, seed: int, as_json: bool) -> None:
    """Draw, cache, tag and evaluate; tune on sentences, evaluate again and show. Everything goes below ``out``."""
    begun = time.perf_counter()
    # One folder for each set of pictures, so that a second run with other options is not mistaken for a resumed one.
    run = out / f"pictures-{pictures}-seed-{seed}"
    picture_folder, store_path, tags_path = run / "pictures", run / "features.zarr", run / "tags.parquet"
    sheet_path, truth_path = run / "contact-sheet.png", picture_folder / TRUTH_NAME
    vocabulary = load_vocabulary("coco80")
    truth = draw_pictures(picture_folder, pictures, seed)
    encoder = open_encoder("demo", "")
    decoding = DecodeOptions()
    with progress_bar("Encoding pictures") as bar:
        caching = cache_images(
            open_source(str(picture_folder)),
            encoder,
            store_path,
            decoding=decoding,
            options=CacheOptions(),
            progress=show(bar, store_path),
        )
    store = FeatureStore.open(store_path)
    prompts = zero_shot_prompts(encoder, vocabulary)
    with progress_bar("Tagging") as bar:
        tagging = tag_store(store, prompts, tags_path, progress=bar.update)
    evaluation = evaluate_tags(tags_path, truth_path)
    entries = _entries(read_tag_file(tags_path), dict(truth), picture_folder)
    mean = evaluation.precisions.mean
    draw_contact_sheet(entries, sheet_path, f"{pictures} pictures, zero-shot tags, mAP {100 * mean:.1f} %")
    learned = _learn(out, encoder, vocabulary, tuning_recipe(), INITIAL_WORDS)
    renamed = own_names(vocabulary)
    learned_own = _learn(out / "own-names", encoder, renamed, own_names_recipe(), None)
    known = load_truth(truth_path, vocabulary.names)
    compared = {
        name: precisions(store, known, one)
        for name, one in (
            ("zero-shot", prompts),
            ("before tuning", learned.untuned),
            ("tuned", learned.result.prompts),
            ("zero-shot, own names", zero_shot_prompts(encoder, renamed)),
            ("tuned, own names", learned_own.result.prompts),
        )
    }
    seconds = time.perf_counter() - begun
    if as_json:
        print_json(
            {
                "pictures": pictures,
                "map_zero_shot": mean,
                "map_untuned": compared["before tuning"]["merged"],
                "map_tuned": compared["tuned"]["merged"],
                "map_zero_shot_own_names": compared["zero-shot, own names"]["merged"],
                "map_tuned_own_names": compared["tuned, own names"]["merged"],
                "sentences": learned.result.training_sentences + learned.result.held_out_sentences,
                "steps": learned.result.steps,
                "seconds": seconds,
                "store": str(store_path),
                "tags": str(tags_path),
                "contact_sheet": str(sheet_path),
                "sentence_store": str(sentences_path(out)),
                "prompts": str(learned.prompts_path),
                "tuning": str(learned.folder),
                "prompts_own_names": str(learned_own.prompts_path),
            }
        )
        return
    rows = [(e.picture.name, ", ".join(e.tags), ", ".join(sorted(e.truth))) for e in entries[:SHOWN_PICTURES]]
    print_table(f"The first {len(rows)} of {pictures} pictures", ("picture", "tags", "truth"), rows)
    _say(
        describe_caching(caching, store_path, "pictures"),
        describe_tagging(tagging),
        describe_caching(learned.caching, sentences_path(out), "sentences"),
        f"{learned.result.steps} steps on {learned.result.training_sentences:,} sentences, no picture seen -> "
        f"{learned.prompts_path}",
    )
    print_table(
        f"mAP % of {pictures} pictures, {len(evaluation.precisions.per_class)} classes",
        ("prompts", *SCORES),
        [(name, *(round(100 * found[which], 1) for which in SCORES)) for name, found in compared.items()],
    )
    _say(
        describe_change(mean, compared["tuned"]["merged"]),
        f'Own names are "{renamed.names[0]}" for {vocabulary.names[0]} and so on, which the model has never read: '
        "zero-shot prompts guess, and tuned ones have learned from sentences what the names mean.",
        "The drawings are of a style that the embedded model never saw.",
        f"To look at: {sheet_path}, {learned.folder / CURVE}, {learned.folder / MINED}",
        f"All of it took {seconds:.1f} s.",
    )


def _say(*lines: str) -> None:
    for line in lines:
        results.print(line, highlight=False, markup=False)


def describe_change(zero_shot: float, tuned: float) -> str:
    """What tuning did to the mAP of the pictures, and why there is no more to be had from this model."""
    change = 100 * (tuned - zero_shot)
    if abs(tuned - zero_shot) <= WITHIN_CHANCE:
        outcome = f"Tuned prompts are as good as zero-shot ones here ({change:+.1f} points)"
    else:
        outcome = (
            f"Tuned prompts are {'better' if change > 0 else 'worse'} than zero-shot ones here ({change:+.1f} points)"
        )
    return (
        f"{outcome}. The embedded model was trained with prompts for these very words, so that every wording means the "
        "same to it: sentences can lead contexts to where zero-shot prompts are, and hardly further."
    )


class _Learned(NamedTuple):
    """What came of the sentences."""

    untuned: PromptSet
    result: TuningResult
    caching: CacheReport
    prompts_path: Path
    folder: Path


def _learn(folder: Path, encoder: Encoder, vocabulary: Vocabulary, recipe: TuningConfig, start: str | None) -> _Learned:
    """Tune prompts on embedded sentences; what an earlier run has done is not done again."""
    run, prompts_path = folder / "tuning", folder / "prompts.safetensors"
    with progress_bar("Encoding sentences") as bar:
        progress = show(bar, sentences_path(folder))
        caching = cache_demo_sentences(folder, SENTENCES, encoder, vocabulary, progress)
    task = TuningTask.prepare(FeatureStore.open(sentences_path(folder)), encoder, vocabulary, recipe)
    with progress_bar("Tuning") as bar:
        result = tune_task(task, recipe, start, run, show_steps(bar))
    result.prompts.save(prompts_path)
    return _Learned(untuned_prompts(task, recipe, start), result, caching, prompts_path, run)


def _entries(file: TagFile, truth: dict[str, frozenset[str]], folder: Path) -> list[Entry]:
    best = file.scores.top_k(SHOWN_TAGS)
    offsets = best.offsets.tolist()
    names = [file.scores.class_names[c] for c in best.class_indices.tolist()]
    return [
        Entry(folder / name, tuple(names[offsets[n] : offsets[n + 1]]), truth[name])
        for n, name in enumerate(file.scores.ids)
    ]
