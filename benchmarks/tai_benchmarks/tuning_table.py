"""What tuning on sentences does for pictures: the embedded model on drawn scenes of a style that it never saw.

    python -m tai_benchmarks.tuning_table [--scenes 2000] [--sprites FOLDER] [--work FOLDER] [--results FOLDER]

Mean average precision of zero-shot CLIP, CLIP-DPT, TaI and TaI-DPT (Guo et al., arXiv 2211.12739), the tuned ones with
every strategy for negatives and several seeds. TaI is the coarse score of the prompts whose merged score is TaI-DPT's:
the two sets of contexts meet neither in the loss nor in the gradient. The constants are those of ``tai demo``, which
held-out sentences have chosen (`tuning_search`); what that is worth is told in ``benchmarks/results/tuning.md``.

Then the same with class-specific contexts, which do best on disturbed sentences; and with names that the model has
never read ("article 101" for a person), as a list of tags may have them: sentences still call things by the words of
the vocabulary, and every class has contexts of its own, all from chance.

Scenes of the unseen style ship with the engine; ``--sprites`` names the training styles' sheets for the known styles.
Scenes and sentences are encoded once into the work folder and tuned prompts kept there, so a second call is quick.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from tai_benchmarks.machine import environment, slug
from tai_benchmarks.protocol import BenchRow, Value, json_line, record
from tai_benchmarks.tuning_data import Scenes, encode_scenes, scene_styles
from tai_engine.demo.embedded_clip import load_embedded_clip
from tai_engine.demo.recipe import INITIAL_WORDS, own_names, own_names_recipe, tuning_recipe
from tai_engine.demo.tuned import cache_demo_sentences, sentences_path, untuned_prompts
from tai_engine.encoders import Encoder
from tai_engine.errors import UserError, unknown_choice
from tai_engine.prompts.learner import ClassVectors
from tai_engine.prompts.prompt_set import PromptSet, zero_shot_prompts
from tai_engine.store import FeatureStore
from tai_engine.tagging.scoring import SCORES, Which
from tai_engine.tuning import NegativeConfig, TuningConfig, TuningTask, tune
from tai_engine.tuning.config import STRATEGIES
from tai_engine.tuning.held_out import evaluate
from tai_engine.vocabulary import Vocabulary, load_vocabulary

BENCH = "tuning-table"
ZERO_SHOT, UNTUNED = "zero-shot", "before tuning"


@dataclass(frozen=True)
class TableConfig:
    """What to measure.

    Attributes:
        work: folder of stores and runs.
        scenes: of each style.
        sentences: to tune on, at most the 5,000 embedded ones.
        negatives: strategies.
        seeds: of tuning.
        sprites: folder of the training styles' sheets; None leaves the known styles out.
        recipe: of tuning; strategy and seed are set for each run.
        own_names_recipe: of tuning for names that the model has never read.

    Raises:
        UserError: for an unknown strategy, or nothing to measure.
    """

    work: Path
    scenes: int = 2000
    sentences: int = 5000
    negatives: tuple[str, ...] = tuple(STRATEGIES)
    seeds: tuple[int, ...] = (1, 2, 3)
    sprites: Path | None = None
    recipe: TuningConfig = field(default_factory=tuning_recipe)
    own_names_recipe: TuningConfig = field(default_factory=own_names_recipe)

    def __post_init__(self) -> None:
        for name in self.negatives:
            if name not in STRATEGIES:
                raise unknown_choice("strategy for negatives", name, STRATEGIES)
        if self.scenes < 1 or self.sentences < 1 or not self.negatives or not self.seeds:
            raise UserError("The table needs at least one scene, one sentence, one strategy and one seed.")


@dataclass(frozen=True)
class TuningCase:
    """A vocabulary and how prompts for it are tuned.

    Attributes:
        title: is added to the names of what is scored.
        vocabulary: C classes, in the order of the scenes' truth.
        recipe: strategy and seed are set for each run.
        start: words that contexts start from.
        negatives: strategies.
    """

    title: str
    vocabulary: Vocabulary
    recipe: TuningConfig
    start: str | None
    negatives: tuple[str, ...]


def problems(config: TableConfig, vocabulary: Vocabulary) -> Iterator[TuningCase]:
    """The vocabulary as it is, with shared and with class-specific contexts, and under names that say nothing."""
    yield TuningCase("", vocabulary, config.recipe, INITIAL_WORDS, config.negatives)
    specific = replace(config.recipe, class_specific=True, negatives=NegativeConfig(strategy="none"))
    yield TuningCase(", class-specific contexts", vocabulary, specific, INITIAL_WORDS, ("none",))
    recipe = config.own_names_recipe
    yield TuningCase(", names unknown to the model", own_names(vocabulary), recipe, None, (recipe.negatives.strategy,))


def run(config: TableConfig, remark: Callable[[str], None] = lambda _: None) -> Iterator[BenchRow]:
    """Encode what is not encoded, tune what is not tuned, and yield the rows of every set, the sentences' last.

    Args:
        config: what to measure.
        remark: told what is being done.
    """
    encoder, vocabulary = load_embedded_clip(device="cpu"), load_vocabulary("coco80")
    sets = []
    for name, sheets in scene_styles(config.sprites):
        remark(f"{config.scenes} {name}")
        place = config.work / f"{slug(name)}-{config.scenes}"
        sets.append(encode_scenes(place, name, sheets, config.scenes, encoder, vocabulary))
    for problem in problems(config, vocabulary):
        yield from _rows_of_problem(config, problem, encoder, sets, remark)


def _rows_of_problem(
    config: TableConfig,
    problem: TuningCase,
    encoder: Encoder,
    sets: Sequence[Scenes],
    remark: Callable[[str], None],
) -> Iterator[BenchRow]:
    remark(f"{config.sentences} sentences{problem.title}")
    folder = config.work / f"sentences-{config.sentences}-{problem.vocabulary.fingerprint}"
    cache_demo_sentences(folder, config.sentences, encoder, problem.vocabulary)
    sentences = FeatureStore.open(sentences_path(folder))
    task = TuningTask.prepare(sentences, encoder, problem.vocabulary, problem.recipe, problem.start)
    starts = [replace(problem.recipe, seed=seed) for seed in config.seeds]
    prompts = {
        ZERO_SHOT: [zero_shot_prompts(encoder, problem.vocabulary)],
        UNTUNED: [untuned_prompts(task, recipe) for recipe in starts],
    }
    for strategy in problem.negatives:
        prompts[strategy] = []
        for seed in config.seeds:
            remark(f"tuning with {strategy} negatives, seed {seed}{problem.title}")
            negatives = replace(problem.recipe.negatives, strategy=strategy, seed=seed)
            recipe = replace(problem.recipe, negatives=negatives, seed=seed)
            prompts[strategy].append(_tuned(task, recipe, config.work / "runs"))
    facts: dict[str, Value] = {
        "training_sentences": len(task.split.training),
        "seeds": " ".join(map(str, config.seeds)),
        "recipe": json.dumps(problem.recipe.as_recipe(), sort_keys=True),
        **environment(torch.device("cpu")),
    }
    for scenes in sets:
        found = {name: [scenes.precisions(one) for one in group] for name, group in prompts.items()}
        yield from rows_of(scenes.name + problem.title, scenes.classes, found, facts | {"items": config.scenes})
    held_out = task.split.held_out
    classes, facts = int((held_out.class_counts() > 0).sum()), facts | {"items": len(held_out)}
    found = {name: [_on_sentences(task, problem.recipe, one) for one in group] for name, group in prompts.items()}
    yield from rows_of(f"held-out sentences{problem.title}", classes, found, facts)


def _tuned(task: TuningTask, recipe: TuningConfig, runs: Path) -> PromptSet:
    """Prompts of one run, which is not run again when it is in the folder of runs."""
    identity = json.dumps(task.identity(recipe), sort_keys=True)
    folder = runs / f"{recipe.negatives.strategy}-{recipe.seed}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    return tune(task, recipe, folder).prompts


def _on_sentences(task: TuningTask, recipe: TuningConfig, prompts: PromptSet) -> dict[Which, float]:
    vectors = ClassVectors(prompts.global_vectors, prompts.local_vectors)
    found = evaluate(task.store, task.split.held_out, vectors, recipe)
    return {"coarse": 100 * found.coarse.mean, "fine": 100 * found.fine.mean, "merged": 100 * found.merged.mean}


# Rows and the table of them


def rows_of(
    items: str, classes: int, found: Mapping[str, Sequence[Mapping[Which, float]]], facts: Mapping[str, Value]
) -> Iterator[BenchRow]:
    """A row for each method and kind of score: coarse alone is zero-shot CLIP or TaI, with fine it is DPT.

    Args:
        items: what was scored.
        classes: that the mean is over.
        found: mAP in percent by kind of score, one a seed; of ``ZERO_SHOT``, ``UNTUNED`` and each strategy.
        facts: further fields.
    """
    for name, seeds in found.items():
        for which in SCORES:
            values = [one[which] for one in seeds]
            plain = "zero-shot CLIP" if which == "coarse" else "CLIP-DPT"
            tuned = f"{'TaI' if which == 'coarse' else 'TaI-DPT'}/{name}"
            yield BenchRow(
                bench=BENCH,
                case=f"{items}/{which}",
                classes=classes,
                candidate=plain if name == ZERO_SHOT else tuned,
                baseline=plain,
                value=statistics.fmean(values),
                unit="mAP %",
                p20=float(np.quantile(values, 0.2)),
                p80=float(np.quantile(values, 0.8)),
                ratio=statistics.fmean(values) / found[ZERO_SHOT][0][which],
                extra={
                    "deviation": statistics.stdev(values) if len(values) > 1 else None,
                    "values": " ".join(f"{value:.2f}" for value in values),
                    **facts,
                },
            )


def table(rows: Sequence[BenchRow]) -> str:
    """Rows of all sets as Markdown: a table a set, a line for each method, mean ± standard deviation over the seeds."""
    sets: dict[str, dict[str, dict[str, BenchRow]]] = {}
    for row in rows:
        items, which = row.case.rsplit("/", 1)
        method, _, strategy = row.candidate.partition("/")
        sets.setdefault(items, {}).setdefault(f"{method} | {strategy or '-'}", {})[which] = row
    parts = []
    for items, methods in sets.items():
        first = next(iter(next(iter(methods.values())).values()))
        head = f"{first.extra['items']} {items}, {first.classes} classes"
        parts.append(f"| {head} | negatives | {' | '.join(SCORES)} |\n|---|---|{'---|' * len(SCORES)}")
        for name, cells in methods.items():
            parts.append(f"| {name} | {' | '.join(_cell(cells.get(which)) for which in SCORES)} |")
        parts.append("")
    return "\n".join(parts).rstrip()


def _cell(row: BenchRow | None) -> str:
    if row is None:
        return ""
    deviation = row.extra["deviation"]
    return f"{row.value:.1f}" if deviation is None else f"{row.value:.1f} ± {deviation:.1f}"


def main(arguments: list[str] | None = None) -> int:
    """Measure, record and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tai_benchmarks.tuning_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scenes", type=int, default=2000, help="of each style (default 2000)")
    parser.add_argument("--sentences", type=int, default=5000, help="to tune on (default: the 5000 embedded ones)")
    parser.add_argument("--sprites", type=Path, help="folder of the training styles' sheets, for the known styles")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--negatives", nargs="+", default=list(STRATEGIES), help="strategies (default: all)")
    parser.add_argument("--work", type=Path, help="keep stores and runs in this folder (default: a temporary one)")
    parser.add_argument("--results", type=Path, help="record the rows in this folder, in place of older ones")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON lines")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        try:
            config = TableConfig(
                work=options.work or Path(temporary),
                scenes=options.scenes,
                sentences=options.sentences,
                negatives=tuple(options.negatives),
                seeds=tuple(options.seeds),
                sprites=options.sprites,
            )
            rows = list(run(config, lambda text: print(text, file=sys.stderr, flush=True)))
            if options.results is not None:
                print(record(rows, options.results, slug(str(rows[0].extra["device"]))), file=sys.stderr)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
    print("".join(json_line(row.as_dict()) for row in rows) if options.json else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
