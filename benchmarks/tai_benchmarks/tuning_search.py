"""Constants of tuning for the embedded model, chosen by held-out sentences alone.

    python -m tai_benchmarks.tuning_search [--own-names] [--work FOLDER]

Sentences that name a class outright are too easy a test: after tuning, and with zero-shot prompts as well, their mean
average precision is 100 % whatever the constants. So each held-out vector is disturbed first: Gaussian noise of
``NOISE`` times its length is added, and the sum brought back to unit length, see `tai_engine.tuning.noise`; no picture
takes part. First learning rates are tried with both ways to start, then everything else around the best of
these, one at a time.

Shape legend: H held-out sentences, C classes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tai_engine.demo.embedded_clip import load_embedded_clip
from tai_engine.demo.recipe import own_names, own_names_recipe, tuning_recipe
from tai_engine.demo.tuned import cache_demo_sentences, sentences_path
from tai_engine.evaluation.measures import mean_average_precision
from tai_engine.features import FeatureBatch
from tai_engine.prompts.learner import ClassVectors
from tai_engine.prompts.prompt_set import zero_shot_prompts
from tai_engine.store import FeatureStore
from tai_engine.tuning import NegativeConfig, Tuner, TuningConfig, TuningTask
from tai_engine.tuning.held_out import score_sentences
from tai_engine.tuning.noise import disturbed
from tai_engine.vocabulary import load_vocabulary

SENTENCES = 5000
NOISE = 3.0
DRAWS = 4
"""How often each sentence is disturbed anew."""
LEARNING_RATES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
STARTS = (None, "a photo of a")
CHANGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("temperature 12.5", {"text_temperature": 12.5}),
    ("temperature 25", {"text_temperature": 25.0}),
    ("temperature 100", {"text_temperature": 100.0}),
    ("scale 1", {"scale": 1.0}),
    ("scale 16", {"scale": 16.0}),
    ("noise 1", {"noise": 1.0}),
    ("noise 2", {"noise": 2.0}),
    ("noise 4", {"noise": 4.0}),
    ("class-specific contexts", {"class_specific": True}),
    ("class-specific contexts, noise 2", {"class_specific": True, "noise": 2.0}),
    ("no weight decay", {"weight_decay": 0.0}),
    ("weight decay 5e-3", {"weight_decay": 5e-3}),
    ("5 epochs", {"epochs": 5}),
    ("60 epochs", {"epochs": 60}),
    ("hard negatives", {"negatives": NegativeConfig(strategy="hard")}),
    ("hard negatives, share 0.5", {"negatives": NegativeConfig(strategy="hard", share=0.5)}),
    ("random negatives, noise 2", {"negatives": NegativeConfig(strategy="random"), "noise": 2.0}),
    ("hard negatives, noise 2", {"negatives": NegativeConfig(strategy="hard"), "noise": 2.0}),
    ("hard negatives, no guards", {"negatives": NegativeConfig(margin=0.0, skip_top=0, random_share=0.0)}),
)


@dataclass(frozen=True)
class Verdict:
    """mAP in percent of held-out sentences.

    Attributes:
        clean: coarse, fine and merged, as they are.
        noisy: the same, disturbed.
    """

    clean: tuple[float, float, float]
    noisy: tuple[float, float, float]


class Judge:
    """Scores class vectors on the held-out sentences of a task, plain and disturbed, the same way each time."""

    def __init__(self, task: TuningTask) -> None:
        held_out = task.split.held_out
        self._batch = task.store.read_items(held_out.positions).dequantised()
        self._labels_HC = held_out.labels(torch.arange(len(held_out)))

    def __call__(self, vectors: ClassVectors, config: TuningConfig) -> Verdict:
        """Memory: ``DRAWS`` times the scores [H, C]."""
        noisy = [disturbed(self._batch, NOISE, torch.Generator().manual_seed(seed)) for seed in range(DRAWS)]
        return Verdict(self._precisions([self._batch], vectors, config), self._precisions(noisy, vectors, config))

    def _precisions(
        self, batches: list[FeatureBatch], vectors: ClassVectors, config: TuningConfig
    ) -> tuple[float, float, float]:
        with torch.inference_mode():
            scores = [score_sentences(batch, vectors, config) for batch in batches]
        labels = torch.cat([self._labels_HC] * len(batches))
        coarse, fine = torch.cat([one.coarse for one in scores]), torch.cat([one.fine for one in scores])
        first, second, third = (
            100 * mean_average_precision(values, labels).mean for values in (coarse, fine, (coarse + fine) / 2)
        )
        return first, second, third


def search(
    task: TuningTask,
    recipe: TuningConfig,
    starts: Sequence[str | None] = STARTS,
    changes: Sequence[tuple[str, Mapping[str, Any]]] = CHANGES,
) -> Iterator[tuple[str, Verdict]]:
    """Every trial with what came of it; ``changes`` are tried around the best of the others."""
    judge = Judge(task)
    zero_shot = zero_shot_prompts(task.text_model, task.vocabulary)  # type: ignore[arg-type]  # an Encoder has both
    yield "zero-shot", judge(ClassVectors(zero_shot.global_vectors, zero_shot.local_vectors), recipe)
    best: tuple[float, TuningConfig, str | None] | None = None
    for start in starts:
        for rate in LEARNING_RATES:
            config = replace(recipe, learning_rate=rate, warmup_learning_rate=rate / 10)
            found = _try(task, config, start, judge)
            yield f"{start or 'random'}, learning rate {rate:g}", found
            if best is None or found.noisy[2] > best[0]:
                best = found.noisy[2], config, start
    assert best is not None
    for name, change in changes:
        config = replace(best[1], **change)
        yield (
            f"{best[2] or 'random'}, learning rate {config.learning_rate:g}, {name}",
            _try(task, config, best[2], judge),
        )


def _try(task: TuningTask, config: TuningConfig, start: str | None, judge: Judge) -> Verdict:
    task = TuningTask.prepare(task.store, task.text_model, task.vocabulary, config, start)
    tuner = Tuner(task.store, task.split, task.learner(config.seed), config, evaluate_epochs=False)
    tuner.run()
    return judge(tuner.class_vectors(), config)


def main(arguments: list[str] | None = None) -> None:
    """Print a line a trial as a Markdown table."""
    parser = argparse.ArgumentParser(
        prog="python -m tai_benchmarks.tuning_search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--own-names", action="store_true", help="for names that the model has never read")
    parser.add_argument("--work", type=Path, help="keep the store in this folder (default: a temporary one)")
    options = parser.parse_args(arguments)
    recipe = replace(tuning_recipe(), noise=0.0, negatives=NegativeConfig(strategy="none"))
    encoder, vocabulary = load_embedded_clip(device="cpu"), load_vocabulary("coco80")
    if options.own_names:
        recipe, vocabulary = own_names_recipe(), own_names(vocabulary)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.work or Path(temporary)) / vocabulary.fingerprint
        cache_demo_sentences(folder, SENTENCES, encoder, vocabulary)
        task = TuningTask.prepare(FeatureStore.open(sentences_path(folder)), encoder, vocabulary, recipe)
        columns = "coarse | fine | merged"
        print(f"| {len(task.split.held_out)} held-out sentences | {columns} | disturbed: {columns} |")
        print("|---|---|---|---|---|---|---|")
        trials = search(task, recipe, (None,), ()) if options.own_names else search(task, recipe)
        for name, found in trials:
            print(f"| {name} | {' | '.join(f'{value:.2f}' for value in (*found.clean, *found.noisy))} |", flush=True)


if __name__ == "__main__":
    main()
