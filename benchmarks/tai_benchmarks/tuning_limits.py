"""Why tuning on sentences does what it does to the embedded model: three measurements for `tuning_table`.

    python -m tai_benchmarks.tuning_limits [--scenes 2000] [--work FOLDER]

*Wordings*: how far apart the model keeps ImageNet's 80 templates of one class, and the classes that no drawing shows.
*Gap*: cosines of sentences and of scenes with the classes that they hold and with the others.
*Ceiling*: contexts tuned on labelled scenes of the unseen style, half of them, and scored on the other half: what these
contexts could reach at all, were they told the answers. Nothing here is chosen by what comes out.

Shape legend: N items, L rows of an item, C classes, D embedding size, P templates.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tai_benchmarks.tuning_data import Scenes, encode_scenes, scene_styles
from tai_engine.demo.embedded_clip import load_embedded_clip
from tai_engine.demo.recipe import INITIAL_WORDS, tuning_recipe
from tai_engine.demo.sentences import DRAWN_CLASSES
from tai_engine.demo.tuned import cache_demo_sentences, sentences_path
from tai_engine.encoders import Encoder
from tai_engine.evaluation.measures import mean_average_precision
from tai_engine.features import FeatureBatch
from tai_engine.prompts.learner import ClassVectors, PromptLearner
from tai_engine.prompts.prompt_set import zero_shot_prompts
from tai_engine.store import FeatureStore
from tai_engine.tuning import TuningConfig, TuningTask
from tai_engine.tuning.held_out import SentenceScores, tuning_loss
from tai_engine.vocabulary import Vocabulary, imagenet_templates, load_vocabulary
from tai_kernels.scoring import ops

SENTENCES = 5000
CEILING_STEPS = 150
CEILING_RATES = {"shared": 1e-2, "class-specific": 1e-1}


@dataclass(frozen=True)
class Gap:
    """Cosines of items with class vectors.

    Attributes:
        held: mean over the classes that an item holds.
        others: mean over the rest.
        spread: standard deviation of the latter.
        mean_length: of the mean of all items' vectors; 0 where they point everywhere, 1 where all are the same.
    """

    held: float
    others: float
    spread: float
    mean_length: float


def wordings(encoder: Encoder, vocabulary: Vocabulary) -> tuple[float, float]:
    """Mean cosine of a drawn class's 80 templates with "a photo of a ...", and of two classes that no drawing shows."""
    plain_CD = zero_shot_prompts(encoder, vocabulary).global_vectors
    is_drawn = torch.tensor([name in DRAWN_CLASSES for name in vocabulary.names])
    cosines = []
    for template in imagenet_templates():
        vectors_CD = encoder.encode_class_texts([template.replace("{}", name) for name in vocabulary.names])
        cosines.append((vectors_CD * plain_CD).sum(dim=1)[is_drawn].mean())
    other_CD = plain_CD[~is_drawn]
    pairs_CC = (other_CD @ other_CD.T).triu(1)
    count = len(other_CD) * (len(other_CD) - 1) / 2
    return float(torch.stack(cosines).mean()), float(pairs_CC.sum() / count)


def gap(coarse_ND: Tensor, holds_NC: Tensor, class_CD: Tensor) -> Gap:
    """Of coarse vectors with class vectors, both of unit length."""
    cosine_NC = coarse_ND.float() @ class_CD.T
    others = cosine_NC[~holds_NC]
    return Gap(
        float(cosine_NC[holds_NC].mean()),
        float(others.mean()),
        float(others.std()),
        float(coarse_ND.float().mean(dim=0).norm()),
    )


def ceiling(
    task: TuningTask, batch: FeatureBatch, holds_NC: Tensor, config: TuningConfig
) -> tuple[float, float, float]:
    """mAP in percent (coarse, fine, merged) of the second half of the items, after tuning on the first with labels."""
    half = len(batch) // 2
    learner: PromptLearner = task.learner(config.seed)
    optimizer = torch.optim.SGD(learner.parameters(), lr=config.learning_rate, momentum=config.momentum)
    for step in range(CEILING_STEPS):
        chosen = torch.randperm(half, generator=torch.Generator().manual_seed(step))[: config.batch_size]
        scores = image_scores(batch.select(chosen.tolist()), learner.class_vectors(), config)
        optimizer.zero_grad()
        tuning_loss(scores, holds_NC[chosen], config).backward()
        optimizer.step()
    with torch.no_grad():
        return image_precisions(batch[half:], holds_NC[half:], learner.class_vectors(), config)


def image_scores(batch: FeatureBatch, vectors: ClassVectors, config: TuningConfig) -> SentenceScores:
    """Coarse and fine scores of pictures [N, C] with the temperature for pictures, differentiable."""
    found = ops.score(
        batch.coarse.float(),
        batch.fine.float(),
        batch.offsets,
        vectors.global_vectors,
        vectors.local_vectors,
        temperature=config.temperature_for_images,
        scale=config.scale,
    )
    return SentenceScores(found.coarse, found.fine)


def image_precisions(
    batch: FeatureBatch, holds_NC: Tensor, vectors: ClassVectors, config: TuningConfig
) -> tuple[float, float, float]:
    """mAP in percent of the coarse, fine and merged scores."""
    coarse, fine = image_scores(batch, vectors, config)
    first, second, third = (
        100 * mean_average_precision(scores, holds_NC).mean for scores in (coarse, fine, (coarse + fine) / 2)
    )
    return first, second, third


def report(folder: Path, scenes: int) -> Iterator[str]:
    """Everything, a line at a time."""
    encoder, vocabulary, config = load_embedded_clip(device="cpu"), load_vocabulary("coco80"), tuning_recipe()
    plain_CD = zero_shot_prompts(encoder, vocabulary).global_vectors
    same, blank = wordings(encoder, vocabulary)
    yield f"wordings: cosine of a class's 80 templates with 'a photo of a ...': {same:.4f}"
    yield f"wordings: cosine of two classes that no drawing shows: {blank:.4f}"
    cache_demo_sentences(folder / "sentences", SENTENCES, encoder, vocabulary)
    sentences = FeatureStore.open(sentences_path(folder / "sentences"))
    task = TuningTask.prepare(sentences, encoder, vocabulary, config)
    table = task.split.training
    holds_NC = table.labels(torch.arange(len(table)))
    yield _gap_line("sentences", gap(sentences.read_items(table.positions).coarse, holds_NC, plain_CD))
    ((name, sheets),) = scene_styles(None)
    drawn = encode_scenes(folder / f"scenes-{scenes}", name, sheets, scenes, encoder, vocabulary)
    batch, holds_NC = _all_of(drawn)
    yield _gap_line(name, gap(batch.coarse, holds_NC, plain_CD))
    half = len(batch) // 2
    with torch.no_grad():
        zero_shot = image_precisions(batch[half:], holds_NC[half:], ClassVectors(plain_CD, plain_CD), config)
    yield _ceiling_line("zero-shot, no labels", zero_shot)
    for kind, rate in CEILING_RATES.items():
        changed = replace(config, learning_rate=rate, class_specific=kind == "class-specific")
        prepared = TuningTask.prepare(sentences, encoder, vocabulary, changed, INITIAL_WORDS)
        yield _ceiling_line(f"{kind} contexts, {half} labelled scenes", ceiling(prepared, batch, holds_NC, changed))


def _all_of(scenes: Scenes) -> tuple[FeatureBatch, Tensor]:
    batch = FeatureBatch.concatenate(list(scenes.store.iter_batches()))
    row_of = {name: row for row, name in enumerate(scenes.truth.ids)}
    return batch, torch.from_numpy(scenes.truth.labels[[row_of[name] for name in batch.ids]] == 1)


def _gap_line(name: str, found: Gap) -> str:
    return (
        f"gap: {name}: cosine with own classes {found.held:.3f}, with others {found.others:.3f} ± {found.spread:.3f}, "
        f"length of the mean vector {found.mean_length:.2f}"
    )


def _ceiling_line(name: str, found: tuple[float, float, float]) -> str:
    return f"ceiling: {name}: coarse {found[0]:.1f}, fine {found[1]:.1f}, merged {found[2]:.1f}"


def main(arguments: list[str] | None = None) -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(
        prog="python -m tai_benchmarks.tuning_limits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--work", type=Path, help="keep stores in this folder (default: a temporary one)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        for line in report(options.work or Path(temporary), options.scenes):
            print(line, flush=True)


if __name__ == "__main__":
    main()
