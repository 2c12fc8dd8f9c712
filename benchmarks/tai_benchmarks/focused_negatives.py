"""What negatives do for photographs if their pairs weigh more: mined sentences count for the class they were mined for.

    python -m tai_benchmarks.focused_negatives [--data DATA --work WORK] [--run none "hard sentence 20" ...]

In `tai tune` a mined sentence trains as any other: with every class that it does not name, of which the one that it
was mined for is one in many. Here a quarter of each batch is mined pairs of a sentence and a class, and the loss is
the ranking loss of the others plus a weight times the mean hinge of the pairs: each class that the sentence names
should beat the mined one by the margin. A run is ``none``, or a strategy, who does not name the class of what is mined
(``sentence``, or ``photograph``: no caption of the sentence's photograph), the weight, and settings of
`NegativeConfig`.

Prints Markdown: mean average precision, and paired 95 % intervals of what the seeds' averaged scores gain on the run
before with none. With DATA and WORK, those of `tai_benchmarks.photo_tuning_choice`, it is of held-out photographs of
Flickr8k, by which the weight is chosen; otherwise of the 152 of COCO that come with the engine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_benchmarks.negatives_study import photograph_holders, photograph_keys
from tai_benchmarks.photo_tuning import (
    MODEL,
    LabelledFeatures,
    Scores,
    labelled_captions,
    parse_changes,
    ready_photographs,
    recipe,
)
from tai_benchmarks.photo_tuning_choice import held_out_photographs
from tai_engine.encoders import Encoder, load_encoder
from tai_engine.encoders.embedded import constants_of
from tai_engine.errors import UserError
from tai_engine.prompts.learner import ClassVectors, DualVectors
from tai_engine.prompts.losses import ranking_loss
from tai_engine.prompts.prompt_set import PromptSet, zero_shot_prompts
from tai_engine.store import FeatureStore
from tai_engine.tagging.scoring import SCORES
from tai_engine.tuning import NegativeConfig, TuningConfig, TuningTask
from tai_engine.tuning.negatives.holders import Holders
from tai_engine.tuning.negatives.strategies import MinedNegatives, Strategy, make_strategy
from tai_engine.tuning.objective import disturbed, score_sentences
from tai_engine.tuning.sentence_table import MIX, NOISE, EpochOrder, StoredVectors, generator_of
from tai_engine.vocabulary import Vocabulary, load_vocabulary

WHO = ("sentence", "photograph")
_PAIR_NOISE = NOISE + MIX + 1  # of the mined sentences, so that it is not that of the others


@dataclass(frozen=True)
class FocusedRun:
    """One kind of run.

    Attributes:
        title: as the user wrote it.
        who: does not name the class of what is mined, one of `WHO`.
        weight: of the mined pairs; without any where the strategy is ``none``.
        negatives: how they are mined.
    """

    title: str
    who: str
    weight: float
    negatives: NegativeConfig

    @classmethod
    def parse(cls, text: str) -> FocusedRun:
        """``none``, or such as ``hard photograph 20 margin=0.3``.

        Raises:
            UserError: for anything else.
        """
        words = text.split()
        if words == ["none"]:
            return cls(text, WHO[0], 0.0, NegativeConfig(strategy="none"))
        if len(words) < 3 or words[1] not in WHO:
            raise UserError(f"{text!r} is no run: write none, or a strategy, {' or '.join(WHO)}, and a weight.")
        changes = parse_changes(" ".join(words[3:]))
        return cls(text, words[1], float(words[2]), NegativeConfig(strategy=words[0], **changes))


def drawn_pairs(mined: MinedNegatives, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """[count] sentences and [count] the classes that they were mined for; every class with any is equally likely."""
    counts_C = mined.offsets.diff()
    with_any = counts_C.nonzero().flatten()
    classes = with_any[torch.randint(len(with_any), (count,), generator=generator)]
    places = (torch.rand(count, generator=generator, dtype=torch.float64) * counts_C[classes]).long()
    return mined.sentences[mined.offsets[:-1][classes] + places], classes


def pair_loss(scores_PC: Tensor, labels_PC: Tensor, classes_P: Tensor) -> Tensor:
    """``1/P · Σ_p Σ_{i: y_pi=1} max(0, 1 − s_pi + s_pc)`` of P pairs of a sentence and the class c it was mined for."""
    mined_P1 = scores_PC.gather(1, classes_P[:, None])
    return ((1 - scores_PC + mined_P1).clamp(min=0) * labels_PC).sum() / len(classes_P)


@dataclass(frozen=True, eq=False)
class FocusedTuning:
    """Runs over the same sentences.

    Attributes:
        task: sentences, text tower and vocabulary.
        config: the recipe.
        start: zero-shot prompts.
        by_photograph: who holds what by its photograph's captions, of the training sentences.
    """

    task: TuningTask
    config: TuningConfig
    start: PromptSet
    by_photograph: Holders

    @classmethod
    def prepare(cls, store: FeatureStore, encoder: Encoder, vocabulary: Vocabulary) -> FocusedTuning:
        """With the recipe that lies beside the model."""
        constants = constants_of(MODEL)
        assert constants is not None
        task = TuningTask.prepare(store, encoder, vocabulary, recipe(), constants.initial_words)
        keys = photograph_keys(store, task.split.training)
        held = photograph_holders(task.split.training, keys)
        return cls(task, recipe(), zero_shot_prompts(encoder, vocabulary), held)

    def prompts(self, run: FocusedRun, seed: int) -> PromptSet:
        """Of one run, to the bit as `tai tune` makes them where there are no negatives."""
        config = replace(self.config, seed=seed)
        learner, training = self.task.start.learner(seed), self.task.split.training
        optimizer = torch.optim.SGD(
            learner.parameters(), lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
        strategy = self._strategy(run, seed)
        order = EpochOrder(training, config)
        with torch.no_grad():
            first = learner.class_vectors()
        step = 0
        for epoch in range(config.epochs):
            mined = None
            if strategy is not None:
                with torch.no_grad():
                    mined = strategy.mine(learner.class_vectors().global_vectors, epoch)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate_of(epoch)
            for batch, indices_B in order.batches(epoch, 0):
                pairs = 0 if mined is None else round(run.negatives.share * len(indices_B))
                kept = len(indices_B) - pairs
                noisy = disturbed(batch[:kept], config.noise, generator_of(seed, NOISE, step))
                vectors = learner.class_vectors()
                found = score_sentences(noisy, vectors, config)
                labels_BC = training.labels(indices_B[:kept])
                loss = ranking_loss(found.coarse, labels_BC) + ranking_loss(found.fine, labels_BC)
                if mined is not None:
                    loss = loss + run.weight * self._pair_losses(mined, pairs, vectors, config, step)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                step += 1
        with torch.no_grad():
            last, share = learner.class_vectors(), config.start_share
            both = [normalize(share * old + (1 - share) * new, dim=1) for old, new in zip(first, last, strict=True)]
        return replace(self.start, global_vectors=both[0], local_vectors=both[1])

    def _strategy(self, run: FocusedRun, seed: int) -> Strategy | None:
        if run.negatives.strategy == "none":
            return None
        training = self.task.split.training
        holders = training.holders() if run.who == "sentence" else self.by_photograph
        vectors = StoredVectors(training)
        return make_strategy(replace(run.negatives, seed=seed), vectors, holders, device="cpu")

    def _pair_losses(
        self,
        mined: MinedNegatives,
        count: int,
        vectors: ClassVectors | DualVectors,
        config: TuningConfig,
        step: int,
    ) -> Tensor:
        """Of coarse and of fine scores."""
        training = self.task.split.training
        sentences, classes = drawn_pairs(mined, count, generator_of(config.seed, MIX, step))
        read, places = torch.unique(sentences, return_inverse=True)  # a batch holds a sentence once
        batch = training.store.read_items(training.positions[read])
        noisy = disturbed(batch, config.noise, generator_of(config.seed, _PAIR_NOISE, step))
        found, labels = score_sentences(noisy, vectors, config), training.labels(sentences)
        return pair_loss(found.coarse[places], labels, classes) + pair_loss(found.fine[places], labels, classes)


def focused_table(
    judge: LabelledFeatures, tuning: FocusedTuning, runs: Sequence[FocusedRun], seeds: Sequence[int]
) -> Iterator[str]:
    """Lines of Markdown, as they are found: a line for each run and seed, and one of the seeds' averaged scores."""
    yield "| negatives | seed | coarse | fine | merged | merged, against none | fine | coarse |"
    yield "|---|---|---|---|---|---|---|---|"
    without: dict[str, Scores] = {}
    for run in runs:
        found = {str(seed): judge.scores(tuning.prompts(run, seed), "standard") for seed in seeds}
        found["all"] = {which: np.mean([one[which] for one in found.values()], axis=0) for which in SCORES}
        for name, scores in found.items():
            cells = [run.title, name, *(f"{judge.precision(scores, which):.1f}" for which in SCORES)]
            for which in ("merged", "fine", "coarse"):
                gain = judge.against(without[name], scores, which) if name in without else None
                cells.append("" if gain is None else f"{gain.value:+.1f} [{gain.low:.1f}, {gain.high:.1f}]")
            yield "| " + " | ".join(cells) + " |"
        if run.negatives.strategy == "none":
            without = found


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tai_benchmarks.focused_negatives",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="folder of photographs and captions of Flickr8k")
    parser.add_argument("--work", type=Path, help="folder for what is computed; default a passing one")
    parser.add_argument("--run", nargs="+", default=["none", "hard photograph 20"], help="kinds of runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of tuning")
    options = parser.parse_args(arguments)
    runs = [FocusedRun.parse(text) for text in options.run]
    encoder, vocabulary = load_encoder(MODEL, "", device="cpu", precision="fp32"), load_vocabulary("coco80")
    with tempfile.TemporaryDirectory() as passing:
        work = options.work or Path(passing)
        judge = ready_photographs(vocabulary)
        if options.data is not None:
            judge = held_out_photographs(options.data, work, encoder, vocabulary)
        tuning = FocusedTuning.prepare(labelled_captions(work, encoder, vocabulary), encoder, vocabulary)
        for line in focused_table(judge, tuning, runs, options.seeds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
