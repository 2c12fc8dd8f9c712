"""Features against a prompt set: coarse, fine and merged scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from tai_engine.errors import UserError, unknown_choice
from tai_engine.features import FeatureBatch, ScoreBatch, require_same_space
from tai_engine.prompts.prompt_set import PromptSet
from tai_kernels.scoring import ops
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
        centre: subtract each item's mean over the classes.

    Raises:
        UserError: for an unknown name or a number out of range.
    """

    which: Which = "merged"
    pooling: str = "softmax"
    temperature: float = TUNED_IMAGE_TEMPERATURE
    scale: float = TUNED_SCALE
    mix: float = 0.5
    clip_coarse: bool = False
    centre: bool = False

    def __post_init__(self) -> None:
        if self.which not in SCORES:
            raise unknown_choice("score", self.which, SCORES)
        if self.pooling not in POOLING_MODES:
            raise unknown_choice("pooling", self.pooling, POOLING_MODES)
        if not self.temperature > 0:
            raise UserError(f"The temperature is {self.temperature}; it must be above 0.")
        if not 0 <= self.mix <= 1:
            raise UserError(f"The mix is {self.mix}; it is the share of the coarse score, between 0 and 1.")


def default_scoring(prompts: PromptSet, which: Which = "merged") -> ScoringConfig:
    """The constants that belong to a prompt set.

    Tuned prompts are scored with the constants that they were tuned with, or with the paper's where they name none.
    Hand-written ones as CLIP does: its own image vector, its own logit scale, and that scale as the temperature of the
    fine score ("CLIP-DPT" in the paper when merged, plain zero-shot CLIP when coarse).
    """
    if prompts.constants is not None:
        return ScoringConfig(
            which=which, temperature=prompts.constants.image_temperature, scale=prompts.constants.scale
        )
    if prompts.method == "tuned":
        return ScoringConfig(which=which)
    return ScoringConfig(which=which, temperature=prompts.logit_scale, scale=prompts.logit_scale, clip_coarse=True)


def score(batch: FeatureBatch, prompts: PromptSet, config: ScoringConfig | None = None) -> ScoreBatch:
    """Score every class of ``prompts`` for every item of ``batch``.

    Scores are ``s_g = k cos(g, Tg)``, ``s_l = k sum_l softmax_l(tau s) s`` with ``s = cos(P, Tl)``, and their mix; all
    in fp32.
    Memory: the scores [N, C] and what the kernel needs per block of rows, never [N, L, C].

    Raises:
        UserError: when batch and prompts are of different spaces, or the fine score is asked of coarse-only features.
    """
    config = config or default_scoring(prompts)
    require_same_space(batch.space_key, prompts.space_key, "the features", "the prompt set")
    coarse = batch.coarse_clip if config.clip_coarse and batch.coarse_clip is not None else batch.coarse
    device = coarse.device
    class_global, class_local = prompts.global_vectors.to(device), prompts.local_vectors.to(device)
    if config.which != "coarse" and len(batch) and batch.fine.shape[0] == 0:
        raise UserError(
            f"These features are coarse only, so there is no {config.which} score: take the coarse one "
            "(--score coarse), or make the store again without --coarse-only."
        )
    if config.which == "coarse":
        scores = ops.score_coarse(coarse, class_global, scale=config.scale)
    else:
        all_scores = ops.score(
            coarse,
            batch.fine,
            batch.offsets,
            class_global,
            class_local,
            pooling=config.pooling,
            temperature=config.temperature,
            scale=config.scale,
            mix=config.mix,
            empty="coarse",
            fine_scales=batch.fine_scales,
        )
        scores = all_scores.fine if config.which == "fine" else all_scores.merged
    result = ScoreBatch(batch.ids, prompts.class_names, scores.to("cpu", torch.float32))
    return result.centred() if config.centre else result
