"""What tuning on sentences does for photographs: the model of photographs on 152 photographs of COCO val2017.

    python -m tai_benchmarks.photo_tuning [--work FOLDER] [--seeds 1 2 3] [--negatives none random "hard margin=0.7"]

Prints a table in Markdown: mean average precision of zero-shot CLIP (the coarse score), CLIP-DPT (its merged score),
TaI and TaI-DPT (coarse and merged score of tuned prompts, Guo et al., arXiv 2211.12739), the latter with negatives of
each kind and each seed, the seeds' scores averaged, and a control whose sentences have one another's labels; with
paired 95 % intervals of the differences over the photographs. Negatives are a strategy and what is changed of
`NegativeConfig`; those after ``none`` are also held against it, merged scores. What is tuned with lies beside the model
(``constants.toml``) and was chosen by held-out photographs of another collection
(`tai_benchmarks.photo_tuning_choice`); none of these 152, and none of their captions, is looked at before the table.
All that it needs comes with the engine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tai_engine.caching.texts import cache_corpus
from tai_engine.encoders import Encoder, load_encoder
from tai_engine.encoders.embedded import constants_of, embedded_folder
from tai_engine.errors import UserError
from tai_engine.evaluation.bootstrap import Interval, compare
from tai_engine.evaluation.truth import load_truth
from tai_engine.features import FeatureBatch, offsets_from_counts
from tai_engine.prompts.prompt_set import PromptSet, zero_shot_prompts
from tai_engine.sentences.built_in import built_in_captions
from tai_engine.sentences.corpus import CorpusOptions, LabelledCorpus, published_templates
from tai_engine.store import FeatureStore
from tai_engine.tagging.scoring import SCORES, default_scoring, score
from tai_engine.tuning import NegativeConfig, TuningConfig, TuningTask, tune
from tai_engine.tuning.config import STRATEGIES
from tai_engine.tuning.sentence_table import SentenceTable
from tai_engine.vocabulary import Vocabulary, load_vocabulary

MODEL = "photos"
SHUFFLED = "none, labels shuffled"
Scores = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """Pictures by which prompts are judged.

    Attributes:
        features: of N pictures.
        labels: [N, C] int8: +1 there, -1 not there.
    """

    features: FeatureBatch
    labels: NDArray[np.int8]

    def scores(self, prompts: PromptSet, normalise: str | None = None) -> Scores:
        """[N, C] of each kind of score, as the prompts want to be scored, or normalised otherwise."""
        found: Scores = {}
        for which in SCORES:
            config = default_scoring(prompts, which)
            config = config if normalise is None else replace(config, normalise=normalise)
            found[which] = score(self.features, prompts, config, device="cpu").scores.numpy()
        return found

    def against(self, first: Scores, second: Scores, which: str) -> Interval:
        """How much better the second is, in points of mean average precision."""
        found = compare(first[which], second[which], self.labels).difference
        return Interval(100 * found.value, 100 * found.low, 100 * found.high)

    def precision(self, scores: Scores, which: str) -> float:
        """Mean average precision in percent, over the classes that occur."""
        return 100 * compare(scores[which], scores[which], self.labels, draws=1).first.value


def ready_photographs(vocabulary: Vocabulary) -> LabelledFeatures:
    """Those that come with the engine, and which of COCO's objects they show."""
    folder = embedded_folder(MODEL)
    assert folder is not None
    features = FeatureBatch.concatenate(list(FeatureStore.open(folder / "coco_photographs.zarr").iter_batches()))
    truth = load_truth(folder / "coco_photographs.jsonl", vocabulary.names)
    row_of = {name: row for row, name in enumerate(truth.ids)}
    return LabelledFeatures(features, truth.labels[[row_of[name] for name in features.ids]])


def labelled_captions(work: Path, encoder: Encoder, vocabulary: Vocabulary) -> FeatureStore:
    """The built-in captions and templates as `tai tune --sentences builtin` stores them; made once."""
    options = CorpusOptions(templates=vocabulary.templates or published_templates())
    place = work / f"{vocabulary.name}-captions.zarr"
    cache_corpus(LabelledCorpus(built_in_captions(), vocabulary, options), encoder, place)
    return FeatureStore.open(place)


def with_shuffled_labels(table: SentenceTable, seed: int) -> SentenceTable:
    """The same sentences, each with the labels of another one."""
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))
    starts, counts = table.label_offsets[:-1][order], table.label_offsets.diff()[order]
    offsets = offsets_from_counts(counts)
    places = torch.arange(int(offsets[-1])) + torch.repeat_interleave(starts - offsets[:-1], counts)
    return replace(table, label_offsets=offsets, label_classes=table.label_classes[places])


@dataclass(frozen=True, eq=False)
class PhotoTuning:
    """Runs over the same sentences.

    Attributes:
        encoder: the model of photographs.
        vocabulary: C classes.
        store: labelled sentences.
        config: the recipe, for each run with a seed and negatives of its own.
    """

    encoder: Encoder
    vocabulary: Vocabulary
    store: FeatureStore
    config: TuningConfig

    def prompts(self, negatives: str, seed: int) -> PromptSet:
        """Of one run; ``negatives`` is for `negatives_of`, or `SHUFFLED`."""
        constants = constants_of(MODEL)
        assert constants is not None
        mining = negatives_of("none" if negatives == SHUFFLED else negatives)
        config = replace(self.config, seed=seed, negatives=replace(mining, seed=seed))
        task = TuningTask.prepare(self.store, self.encoder, self.vocabulary, config, constants.initial_words)
        if negatives == SHUFFLED:
            training = with_shuffled_labels(task.split.training, seed)
            task = replace(task, split=task.split._replace(training=training))
        return tune(task, config).prompts


def parse_changes(text: str) -> dict[str, Any]:
    """Settings by name, their values as JSON has them: ``noise=2 loss=asl``.

    Raises:
        UserError: for what is no list of settings.
    """
    changes = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word!r} is no setting: write NAME=VALUE, such as noise=2.")
        try:
            changes[name] = json.loads(value)
        except ValueError:
            changes[name] = value
    return changes


def negatives_of(text: str) -> NegativeConfig:
    """A strategy, and settings of `NegativeConfig`: ``hard margin=0.7``.

    Raises:
        UserError: for an unknown strategy, and as `parse_changes` and `NegativeConfig`.
    """
    strategy, _, settings = text.strip().partition(" ")
    return NegativeConfig(strategy=strategy, **parse_changes(settings))


def recipe() -> TuningConfig:
    """As it lies beside the model."""
    constants = constants_of(MODEL)
    assert constants is not None
    return TuningConfig(**constants.tuning)


def table(
    judge: LabelledFeatures,
    zero_shot: Scores,
    tuned: Callable[[str, int], Scores],
    negatives: Sequence[str],
    seeds: Sequence[int],
) -> Iterator[str]:
    """Lines of Markdown, as they are found.

    Args:
        judge: the photographs.
        zero_shot: scores of prompts that are not tuned.
        tuned: scores of a run, by negatives and seed.
        negatives: for `negatives_of`; runs after one with none are also held against that one of their seed. The
            control follows by itself.
        seeds: of the runs.
    """
    against = "merged, against CLIP-DPT | fine | coarse | merged, against none"
    yield f"| prompts | negatives | seed | coarse | fine | merged | {against} |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    yield _line(judge, ("zero-shot CLIP (coarse), CLIP-DPT (merged)", "-", "-"), zero_shot)
    without: dict[str, Scores] = {}
    for strategy in (*negatives, SHUFFLED):
        runs: dict[str, Scores] = {}
        for seed in seeds:
            name = str(seed)
            runs[name] = tuned(strategy, seed)
            what = "TaI (coarse), TaI-DPT (merged)", strategy, name
            yield _line(judge, what, runs[name], zero_shot, without.get(name))
        if len(runs) > 1:
            runs["all"] = {which: np.mean([run[which] for run in runs.values()], axis=0) for which in SCORES}
            what = "the same, scores averaged", strategy, "all"
            yield _line(judge, what, runs["all"], zero_shot, without.get("all"))
        if strategy == "none":
            without = runs


def _line(
    judge: LabelledFeatures,
    what: Sequence[str],
    scores: Scores,
    zero_shot: Scores | None = None,
    without: Scores | None = None,
) -> str:
    """A line of Markdown: what was done, how good it is, and how much better than what it is held against."""
    cells = [*what, *(f"{judge.precision(scores, which):.1f}" for which in SCORES)]
    for first, which in ((zero_shot, "merged"), (zero_shot, "fine"), (zero_shot, "coarse"), (without, "merged")):
        found = None if first is None else judge.against(first, scores, which)
        cells.append("" if found is None else f"{found.value:+.1f} [{found.low:.1f}, {found.high:.1f}]")
    return "| " + " | ".join(cells) + " |"


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tai_benchmarks.photo_tuning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--work", type=Path, help="folder where sentences stay encoded; default a passing one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of tuning")
    parser.add_argument(
        "--negatives", nargs="+", default=list(STRATEGIES), help='such as none random "hard margin=0.7"'
    )
    options = parser.parse_args(arguments)
    encoder, vocabulary = load_encoder(MODEL, "", device="cpu", precision="fp32"), load_vocabulary("coco80")
    judge = ready_photographs(vocabulary)
    zero_shot = judge.scores(zero_shot_prompts(encoder, vocabulary))
    with tempfile.TemporaryDirectory() as passing:
        store = labelled_captions(options.work or Path(passing), encoder, vocabulary)
        runs = PhotoTuning(encoder, vocabulary, store, recipe())
        tuned = partial(_tuned_scores, judge, runs)
        for line in table(judge, zero_shot, tuned, options.negatives, options.seeds):
            print(line, flush=True)


def _tuned_scores(judge: LabelledFeatures, runs: PhotoTuning, negatives: str, seed: int) -> Scores:
    return judge.scores(runs.prompts(negatives, seed))


if __name__ == "__main__":
    main()
