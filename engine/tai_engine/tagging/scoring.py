"""Features against a prompt set: coarse, fine and merged scores."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tai_engine.errors import UserError, unknown_choice
from tai_engine.features import FeatureBatch, offsets_from_counts
from tai_engine.prompts.dual_scores import dual_scores
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.spaces import require_same_space
from tai_engine.tagging import normalisation
from tai_engine.tagging.normalisation import NORMALISATIONS, normalise
from tai_engine.tagging.score_batch import ScoreBatch, SparseScoreBatch
from tai_kernels.scoring import ops, selection
from tai_kernels.scoring.library import SLICE_BYTES
from tai_kernels.scoring.pooling import POOLING_MODES

Which = Literal["coarse", "fine", "merged"]
SCORES: tuple[Which, ...] = ("coarse", "fine", "merged")

# The constants of the paper's recipe (Guo et al., arXiv 2211.12739): k, and the softmax temperature over image patches.
TUNED_SCALE = 4.0
TUNED_IMAGE_TEMPERATURE = 40.0


@dataclass(frozen=True)
class ScoringConfig:
    """How features become one score per class.

    Attributes:
        which: ``"coarse"``, ``"fine"`` or ``"merged"``.
        pooling: over an item's fine rows, ``"softmax"`` or ``"max"``.
        temperature: tau of the softmax pooling.
        scale: k, the factor on every cosine.
        mix: the share of the coarse score in the merged one.
        clip_coarse: use CLIP's own image vector where the features carry it beside TaI-DPT's.
        normalise: one of `normalisation.NORMALISATIONS`; nothing is done with fewer than
            `normalisation.FEWEST_CLASSES` classes.

    Raises:
        UserError: for an unknown name or a number out of range.
    """

    which: Which = "merged"
    pooling: str = "softmax"
    temperature: float = TUNED_IMAGE_TEMPERATURE
    scale: float = TUNED_SCALE
    mix: float = 0.5
    clip_coarse: bool = False
    normalise: str = "none"

    def __post_init__(self) -> None:
        if self.which not in SCORES:
            raise unknown_choice("score", self.which, SCORES)
        if self.pooling not in POOLING_MODES:
            raise unknown_choice("pooling", self.pooling, POOLING_MODES)
        if self.normalise not in NORMALISATIONS:
            raise unknown_choice("normalisation", self.normalise, NORMALISATIONS)
        if not self.temperature > 0:
            raise UserError(f"The temperature is {self.temperature}; it must be above 0.")
        if not 0 <= self.mix <= 1:
            raise UserError(f"The mix is {self.mix}; it is the share of the coarse score, between 0 and 1.")


def default_scoring(prompts: PromptSet, which: Which = "merged") -> ScoringConfig:
    """The constants and the normalisation that belong to a prompt set.

    Tuned prompts are scored with the constants that they were tuned with, or with the paper's where they name none, and
    normalised as their metadata says under ``normalise``, if it does.
    Hand-written ones as CLIP does: its own image vector, its own logit scale, and that scale as the temperature of the
    fine score ("CLIP-DPT" in the paper when merged, plain zero-shot CLIP when coarse); their scores are standardised.
    """
    if prompts.method != "tuned" and prompts.constants is None:
        scale = prompts.logit_scale
        return ScoringConfig(which=which, temperature=scale, scale=scale, clip_coarse=True, normalise="standard")
    config = ScoringConfig(which=which, normalise=prompts.metadata.get("normalise", "none"))
    if prompts.constants is None:
        return config
    return replace(config, temperature=prompts.constants.image_temperature, scale=prompts.constants.scale)


def in_effect(config: ScoringConfig, prompts: PromptSet) -> ScoringConfig:
    """What a configuration comes to with these prompts: too few classes are not normalised."""
    return replace(config, normalise=normalisation.in_effect(config.normalise, len(prompts.class_names)))


def default_device() -> torch.device:
    """Where scores are computed unless a caller says otherwise: the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def score(
    batch: FeatureBatch,
    prompts: PromptSet,
    config: ScoringConfig | None = None,
    *,
    device: torch.device | str = "auto",
) -> ScoreBatch:
    """Score every class of ``prompts`` for every item of ``batch``.

    Scores are ``s_g = k cos(g, Tg)``, ``s_l = k sum_l softmax_l(tau s) s`` with ``s = cos(P, Tl)``, and their mix; all
    in fp32, normalised as ``config`` says.
    Memory: the scores [N, C] and what the kernel needs per block of rows, never [N, L, C].

    Args:
        batch: the features.
        prompts: the class vectors, of the same space.
        config: how to score; by default as the prompt set was made.
        device: where; ``auto`` is where the batch is, or else the GPU where there is one.

    Raises:
        UserError: when batch and prompts are of different spaces, or the fine score is asked of coarse-only features.
    """
    ready = _Ready.of(batch, prompts, config, device)
    return ScoreBatch(batch.ids, prompts.class_names, ready.scores(ready.batch).cpu())


def score_tags(
    batch: FeatureBatch,
    prompts: PromptSet,
    config: ScoringConfig | None = None,
    *,
    top_k: int | None = None,
    threshold: float | None = None,
    device: torch.device | str = "auto",
) -> SparseScoreBatch:
    """The classes of each item that are kept, best first, equal scores in class order; as ``score`` scores them.

    Memory: what is kept, and at most 32 MiB of scores at a time (one item's, if those are more), whatever the number of
    items and classes. A normalisation takes all of an item's scores, so those of some items are held as a whole then.

    Args:
        batch: the features.
        prompts: the class vectors, of the same space.
        config: how to score; by default as the prompt set was made.
        top_k: at most so many per item; None means all.
        threshold: the least score that is kept, after normalising; None for no limit.
        device: as for ``score``.

    Raises:
        UserError: as ``score``.
    """
    ready = _Ready.of(batch, prompts, config, device)
    classes = len(prompts.class_names)
    k = classes if top_k is None else min(top_k, classes)
    is_plain = ready.config.normalise == "none" and ready.class_negative is None
    if is_plain and ready.config.which != "coarse" and (k < classes or threshold is not None):
        kept = ready.kept_by_kernel(k, threshold)
    else:
        step = max(1, SLICE_BYTES // (4 * classes))
        starts = range(0, max(len(batch), 1), step)
        parts = [_kept(ready.scores(ready.batch[start : start + step]), k, threshold) for start in starts]
        kept = _Kept(*(torch.cat(column) for column in zip(*parts, strict=True)))
    counts = kept.counts.cpu()
    return SparseScoreBatch(
        batch.ids, prompts.class_names, kept.classes.cpu(), kept.scores.cpu(), offsets_from_counts(counts)
    )


class _Kept(NamedTuple):
    """Scores [M] fp32 and class indices [M] int64, best first per item; how many of each item, [N] int64."""

    scores: Tensor
    classes: Tensor
    counts: Tensor


def _kept(scores_NC: Tensor, k: int, threshold: float | None) -> _Kept:
    if threshold is not None and k == scores_NC.shape[1]:
        return _Kept(*selection.above(scores_NC, scores_NC.new_full((k,), threshold)))
    return _reaching(*selection.top_k(scores_NC, k), threshold)


def _reaching(scores_NK: Tensor, classes_NK: Tensor, threshold: float | None) -> _Kept:
    keep_NK = scores_NK >= (float("-inf") if threshold is None else threshold)
    return _Kept(scores_NK[keep_NK], classes_NK[keep_NK], keep_NK.sum(dim=1))


@dataclass(frozen=True, eq=False)
class _Ready:
    """Features and class vectors on the device where they are scored, and the configuration in effect."""

    batch: FeatureBatch
    class_global: Tensor
    class_local: Tensor
    class_negative: Tensor | None
    config: ScoringConfig

    @staticmethod
    def of(batch: FeatureBatch, prompts: PromptSet, config: ScoringConfig | None, device: torch.device | str) -> _Ready:
        """Check that all of it fits, and move it."""
        config = in_effect(config or default_scoring(prompts), prompts)
        require_same_space(batch, prompts, "the features", "the prompt set")
        if config.which != "coarse" and len(batch) and batch.fine.shape[0] == 0:
            raise UserError(
                f"These features are coarse only, so there is no {config.which} score: take the coarse one "
                "(--score coarse), or make the store again without --coarse-only."
            )
        if device == "auto":
            device = default_device() if batch.coarse.device.type == "cpu" else batch.coarse.device
        negative = prompts.negative_vectors
        if negative is not None and config.pooling != "softmax" and config.which != "coarse":
            raise UserError(
                f"Dual prompts choose patches by a softmax, and were tuned so: leave --pooling {config.pooling} out."
            )
        return _Ready(
            batch.to(device),
            prompts.global_vectors.to(device),
            prompts.local_vectors.to(device),
            None if negative is None else negative.to(device),
            config,
        )

    def scores(self, batch: FeatureBatch) -> Tensor:
        """All scores of this batch or a part of it: [N, C] fp32 on the device."""
        config = self.config
        if self.class_negative is not None:
            scores_NC = self._dual_scores(batch, self.class_negative)
        elif config.which == "coarse":
            scores_NC = ops.score_coarse(self._coarse(batch), self.class_global, scale=config.scale)
        else:
            found = ops.score(*self._operands(batch), **self._settings(batch, config.mix))
            scores_NC = found.fine if config.which == "fine" else found.merged
        return normalise(scores_NC, config.normalise, config.scale)

    def _dual_scores(self, batch: FeatureBatch, negative_CD: Tensor) -> Tensor:
        """[N, C]: presence over absence.

        Rows are weighed by one vector and measured by two, which no fused kernel does. So items are taken a few at a
        time, and their [T, C] similarities stay within `SLICE_BYTES`.
        """
        config = self.config
        coarse_NC = ops.score_coarse(self._coarse(batch), self.class_global - negative_CD, scale=config.scale)
        if config.which == "coarse":
            return coarse_NC
        factors = math.log(config.scale), math.log(config.temperature)
        most = max(1, SLICE_BYTES // (4 * len(negative_CD)))
        step = max(1, most // max(1, int(batch.counts.max()) if len(batch) else 1))
        fine = []
        for start in range(0, max(len(batch), 1), step):
            part = batch[start : start + step].dequantised()
            rows = part.coarse.float(), part.fine.float()
            found = dual_scores(*rows, part.offsets, self.class_local, negative_CD, *factors)
            # As with other prompts: an item without rows has its coarse score.
            empty_N1 = (part.counts == 0).to(coarse_NC.device)[:, None]
            fine.append(torch.where(empty_N1, found.coarse, found.fine))
        fine_NC = torch.cat(fine)
        return fine_NC if config.which == "fine" else config.mix * coarse_NC + (1 - config.mix) * fine_NC

    def kept_by_kernel(self, k: int, threshold: float | None) -> _Kept:
        """What is kept of fine or merged scores that are not normalised; the kernels hold a slice of them at a time."""
        classes = len(self.class_global)
        # The merged score without a share of the coarse one is the fine score.
        settings = self._settings(self.batch, 0.0 if self.config.which == "fine" else self.config.mix)
        if threshold is None or k < classes:
            return _reaching(*ops.score_top_k(*self._operands(self.batch), k=k, **settings), threshold)
        thresholds = torch.full((classes,), threshold)
        scores, indices, offsets = ops.score_above(*self._operands(self.batch), thresholds=thresholds, **settings)
        return _Kept(scores, indices, offsets.diff())

    def _coarse(self, batch: FeatureBatch) -> Tensor:
        return batch.coarse_clip if self.config.clip_coarse and batch.coarse_clip is not None else batch.coarse

    def _operands(self, batch: FeatureBatch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self._coarse(batch), batch.fine, batch.offsets, self.class_global, self.class_local

    def _settings(self, batch: FeatureBatch, mix: float) -> ops.Settings:
        config = self.config
        return {
            "pooling": config.pooling, "temperature": config.temperature, "scale": config.scale, "mix": mix,
            "empty": "coarse", "fine_scales": batch.fine_scales,
        }  # fmt: skip
