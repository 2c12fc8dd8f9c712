"""What sentences say of class vectors: their scores, the loss of a batch, and the figures of those held out.

Shape legend: B sentences of a batch, H held-out sentences, C classes, N vectors, D embedding size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_engine.evaluation.measures import AveragePrecisions, mean_average_precision
from tai_engine.features import FeatureBatch
from tai_engine.prompts.dual_scores import dual_scores
from tai_engine.prompts.learner import ClassVectors, DualVectors
from tai_engine.prompts.losses import LOSSES
from tai_engine.tuning.config import PARTIAL_LOSS, TuningConfig
from tai_engine.tuning.sentence_table import SentenceTable
from tai_kernels.scoring import ops

_SLICE = 512


class SentenceScores(NamedTuple):
    """Coarse and fine scores [B, C] fp32; both the same where there are no fine rows."""

    coarse: Tensor
    fine: Tensor


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Figures of one set of class vectors.

    Attributes:
        loss: per sentence, of both scores together, as in training.
        coarse: average precisions of the coarse scores.
        fine: of the fine ones.
        merged: of their mean; its mAP decides which epoch is the best.
    """

    loss: float
    coarse: AveragePrecisions
    fine: AveragePrecisions
    merged: AveragePrecisions


def disturbed(batch: FeatureBatch, noise: float, generator: torch.Generator) -> FeatureBatch:
    """The batch with Gaussian noise on every coarse and fine vector, in fp32 and of unit length again.

    A sentence lies closer to its classes than a picture ever does, and what sentences leave undecided, contexts are
    free to drift in. Noise of about the length of the gap takes both away (Nukrai et al., "Text-Only Training for Image
    Captioning using Noise-Injected CLIP", EMNLP Findings 2022).

    Args:
        batch: unit rows on the CPU.
        noise: mean length of what is added to vectors of length 1.
        generator: on the CPU; the only source of chance.
    """
    batch = batch.dequantised()
    both = []
    for rows_ND in (batch.coarse, batch.fine):
        drawn_ND = torch.randn(rows_ND.shape, generator=generator) * (noise / rows_ND.shape[1] ** 0.5)
        both.append(normalize(rows_ND.float() + drawn_ND, dim=1))
    return replace(batch, coarse=both[0], fine=both[1])


def score_sentences(batch: FeatureBatch, vectors: ClassVectors | DualVectors, config: TuningConfig) -> SentenceScores:
    """Scores as tuning sees them, differentiable w.r.t. the class vectors, on their device."""
    device = vectors.global_vectors.device
    batch = batch.dequantised()
    coarse = batch.coarse.to(device, non_blocking=True)
    if isinstance(vectors, DualVectors):
        fine = batch.fine.to(device, non_blocking=True).float()
        dual = dual_scores(coarse.float(), fine, batch.offsets, vectors.global_vectors, *vectors[2:])
        return SentenceScores(dual.coarse, dual.fine if len(fine) else dual.coarse)
    if not len(batch.fine):
        scores = ops.score_coarse(coarse, vectors.global_vectors, scale=config.scale)
        return SentenceScores(scores, scores)
    # Offsets stay on the CPU, where looking at them costs a GPU no wait.
    found = ops.score(
        coarse,
        batch.fine.to(device, non_blocking=True),
        batch.offsets,
        vectors.global_vectors,
        vectors.local_vectors,
        temperature=config.text_temperature,
        scale=config.scale,
        empty="coarse",
    )
    return SentenceScores(found.coarse, found.fine)


def tuning_loss(scores: SentenceScores, labels_BC: Tensor, config: TuningConfig) -> Tensor:
    """The loss of the coarse scores plus that of the fine ones; of the coarse ones alone where there are no others.

    Args:
        scores: of a batch.
        labels_BC: [B, C] bool, or int8 of 1 (there), -1 (not there) and 0 (unknown).
        config: of which the loss counts.
    """
    loss = LOSSES[config.loss]
    if config.loss != PARTIAL_LOSS:
        labels_BC = labels_BC == 1
    elif labels_BC.dtype == torch.bool:
        labels_BC = 2 * labels_BC.to(torch.int8) - 1
    labels_BC = labels_BC.to(scores.coarse.device, non_blocking=True)
    if scores.fine is scores.coarse:
        return loss(scores.coarse, labels_BC)
    return loss(scores.coarse, labels_BC) + loss(scores.fine, labels_BC)


def evaluate(table: SentenceTable, vectors: ClassVectors | DualVectors, config: TuningConfig) -> HeldOut:
    """Figures over the sentences of ``table``, of which there is at least one.

    What is unknown counts neither for nor against a class. Memory: four fp32 [H, C] and the rows of 512 sentences.
    """
    coarse, fine, targets, total = [], [], [], 0.0
    with torch.inference_mode():
        for indices in torch.arange(len(table)).split(_SLICE):
            batch = table.store.read_items(table.positions[indices])
            targets_BC = table.targets(indices)
            scores = score_sentences(batch, vectors, config)
            total += float(tuning_loss(scores, targets_BC, config)) * len(indices)
            coarse.append(scores.coarse.cpu())
            fine.append(scores.fine.cpu())
            targets.append(targets_BC)
    coarse_HC, fine_HC, targets_HC = torch.cat(coarse), torch.cat(fine), torch.cat(targets)

    def precisions(scores_HC: Tensor) -> AveragePrecisions:
        leaves_out = table.known is not None and bool((targets_HC == -1).any())
        rule = "ignore" if leaves_out else "as-negative"
        return mean_average_precision(scores_HC, targets_HC, table.store.class_names, difficult=rule)

    return HeldOut(
        loss=total / len(table),
        coarse=precisions(coarse_HC),
        fine=precisions(fine_HC),
        merged=precisions((coarse_HC + fine_HC) / 2),
    )
