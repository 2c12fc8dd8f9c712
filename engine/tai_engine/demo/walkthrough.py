"""The whole way on the embedded model: draw, cache, tag and evaluate pictures; tune on sentences and evaluate again."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tai_engine.caching.images import cache_images
from tai_engine.caching.report import CacheOptions, CacheReport, ProgressCallback
from tai_engine.decoding.decode import DecodeOptions
from tai_engine.demo.contact_sheet import Entry, draw_contact_sheet
from tai_engine.demo.embedded_clip import load_embedded_clip
from tai_engine.demo.pictures import TRUTH_NAME, draw_pictures
from tai_engine.demo.recipe import INITIAL_WORDS, own_names, own_names_recipe, tuning_recipe
from tai_engine.demo.tuned import cache_demo_sentences, precisions, sentences_path, untuned_prompts
from tai_engine.encoders import Encoder
from tai_engine.evaluation.measures import AveragePrecisions
from tai_engine.evaluation.tag_evaluation import evaluate_tags
from tai_engine.evaluation.truth import load_truth
from tai_engine.prompts.prompt_set import PromptSet, zero_shot_prompts
from tai_engine.sources import open_source
from tai_engine.store import FeatureStore
from tai_engine.tagging.batch_loop import TagReport, tag_store
from tai_engine.tagging.scoring import Which
from tai_engine.tagging.tag_file import TagFile, read_tag_file
from tai_engine.tuning import StepProgress, TuningConfig, TuningResult, TuningTask, tune
from tai_engine.vocabulary import Vocabulary, load_vocabulary

SENTENCES = 2000
SHOWN_TAGS = 3

ZERO_SHOT, UNTUNED, TUNED = "zero-shot", "before tuning", "tuned"
ZERO_SHOT_OWN, TUNED_OWN = "zero-shot, own names", "tuned, own names"


class Watch(Protocol):
    """Shows how each stage gets on; every method opens a display that lasts as long as the stage."""

    def caching(self, what: str, store: Path) -> AbstractContextManager[ProgressCallback]:
        """``what`` (pictures, sentences) go into a store."""
        ...

    def tagging(self) -> AbstractContextManager[Callable[[int, int | None], None]]:
        """The store is tagged: items done, and in all."""
        ...

    def tuning(self) -> AbstractContextManager[Callable[[StepProgress], None]]:
        """Prompts are tuned."""
        ...


@dataclass(frozen=True)
class Learned:
    """What came of the sentences under one set of names.

    Attributes:
        vocabulary: the names.
        untuned: prompts that tuning started from.
        result: of the tuning.
        caching: of the sentences.
        sentence_store: where their features are.
        prompts_path: where the tuned prompts are.
        folder: figures of the run.
    """

    vocabulary: Vocabulary
    untuned: PromptSet
    result: TuningResult
    caching: CacheReport
    sentence_store: Path
    prompts_path: Path
    folder: Path


@dataclass(frozen=True)
class DemoResult:
    """What was made and how right it is.

    Attributes:
        vocabulary: the words.
        caching: of the pictures.
        store: their features.
        tagging: of the zero-shot tags, with their file.
        entries: pictures with their tags and truth.
        contact_sheet: the picture of these.
        zero_shot: average precisions of the tags.
        learned: from sentences, with the names that the model knows.
        learned_own_names: with names that it has never read.
        compared: by prompts (``ZERO_SHOT`` and so on), the mAP from 0 to 1 of each kind of score.
        seconds: all of it took.
    """

    vocabulary: Vocabulary
    caching: CacheReport
    store: Path
    tagging: TagReport
    entries: tuple[Entry, ...]
    contact_sheet: Path
    zero_shot: AveragePrecisions
    learned: Learned
    learned_own_names: Learned
    compared: dict[str, dict[Which, float]]
    seconds: float


def run_demo(out: Path, pictures: int, seed: int, watch: Watch) -> DemoResult:
    """Do everything below ``out``; what an earlier run has done there is not done again.

    Raises:
        UserError: when ``out`` cannot be written.
    """
    begun = time.perf_counter()
    # One folder for each set of pictures, so that a second run with other options is not mistaken for a resumed one.
    run = out / f"pictures-{pictures}-seed-{seed}"
    picture_folder, store_path, tags_path = run / "pictures", run / "features.zarr", run / "tags.parquet"
    sheet_path, truth_path = run / "contact-sheet.png", picture_folder / TRUTH_NAME
    vocabulary = load_vocabulary("coco80")
    truth = draw_pictures(picture_folder, pictures, seed)
    encoder = load_embedded_clip()
    with watch.caching("pictures", store_path) as progress:
        caching = cache_images(
            open_source(str(picture_folder)),
            encoder,
            store_path,
            decoding=DecodeOptions(),
            options=CacheOptions(),
            progress=progress,
        )
    store = FeatureStore.open(store_path)
    prompts = zero_shot_prompts(encoder, vocabulary)
    with watch.tagging() as update:
        tagging = tag_store(store, prompts, tags_path, progress=update)
    zero_shot = evaluate_tags(tags_path, truth_path).precisions
    entries = _entries(read_tag_file(tags_path), dict(truth), picture_folder)
    draw_contact_sheet(entries, sheet_path, f"{pictures} pictures, zero-shot tags, mAP {100 * zero_shot.mean:.1f} %")
    learned = _learn(out, encoder, vocabulary, tuning_recipe(), INITIAL_WORDS, watch)
    renamed = own_names(vocabulary)
    learned_own = _learn(out / "own-names", encoder, renamed, own_names_recipe(), None, watch)
    known = load_truth(truth_path, vocabulary.names)
    prompt_sets = {
        ZERO_SHOT: prompts,
        UNTUNED: learned.untuned,
        TUNED: learned.result.prompts,
        ZERO_SHOT_OWN: zero_shot_prompts(encoder, renamed),
        TUNED_OWN: learned_own.result.prompts,
    }
    return DemoResult(
        vocabulary=vocabulary,
        caching=caching,
        store=store_path,
        tagging=tagging,
        entries=tuple(entries),
        contact_sheet=sheet_path,
        zero_shot=zero_shot,
        learned=learned,
        learned_own_names=learned_own,
        compared={name: precisions(store, known, one) for name, one in prompt_sets.items()},
        seconds=time.perf_counter() - begun,
    )


def _learn(
    folder: Path, encoder: Encoder, vocabulary: Vocabulary, recipe: TuningConfig, start: str | None, watch: Watch
) -> Learned:
    run, prompts_path, store_path = folder / "tuning", folder / "prompts.safetensors", sentences_path(folder)
    with watch.caching("sentences", store_path) as progress:
        caching = cache_demo_sentences(folder, SENTENCES, encoder, vocabulary, progress)
    task = TuningTask.prepare(FeatureStore.open(store_path), encoder, vocabulary, recipe, start)
    with watch.tuning() as update:
        result = tune(task, recipe, run, update)
    result.prompts.save(prompts_path)
    untuned = untuned_prompts(task, recipe)
    return Learned(vocabulary, untuned, result, caching, store_path, prompts_path, run)


def _entries(file: TagFile, truth: dict[str, frozenset[str]], folder: Path) -> list[Entry]:
    best = file.scores.top_k(SHOWN_TAGS)
    offsets = best.offsets.tolist()
    names = [file.scores.class_names[c] for c in best.class_indices.tolist()]
    return [
        Entry(folder / name, tuple(names[offsets[n] : offsets[n + 1]]), truth[name])
        for n, name in enumerate(file.scores.ids)
    ]
