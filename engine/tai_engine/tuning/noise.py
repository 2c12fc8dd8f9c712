"""Noise on sentences, so that prompts do not lean on what pictures have not.

A sentence lies closer to its classes than a picture ever does, and what sentences leave undecided, contexts are free to
drift in. Noise of about the length of the gap takes both away (Nukrai et al., "Text-Only Training for Image Captioning
using Noise-Injected CLIP", EMNLP Findings 2022).

Shape legend: N vectors, D embedding size.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_engine.features import FeatureBatch


def disturbed(batch: FeatureBatch, noise: float, generator: torch.Generator) -> FeatureBatch:
    """The batch with Gaussian noise on every coarse and fine vector, in fp32 and of unit length again.

    Args:
        batch: unit rows on the CPU.
        noise: mean length of what is added to vectors of length 1.
        generator: on the CPU; the only source of chance.
    """

    def add(rows_ND: Tensor) -> Tensor:
        drawn_ND = torch.randn(rows_ND.shape, generator=generator) * (noise / rows_ND.shape[1] ** 0.5)
        return normalize(rows_ND.float() + drawn_ND, dim=1)

    batch = batch.dequantised()
    return replace(batch, coarse=add(batch.coarse), fine=add(batch.fine))
