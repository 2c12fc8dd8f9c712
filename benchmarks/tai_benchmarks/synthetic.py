"""Features and class vectors that look like CLIP's without a model: never zeros, never independent noise.

CLIP's vectors of one kind share a strong common direction (the 1,203 LVIS class texts have a mean cosine of 0.75), fall
into clusters, and are not of unit length as they come. Real class texts are used where they are at hand.

Shape legend: N items, L rows per item, D embedding size, C classes, T rows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tai_engine.errors import UserError

DATA_VARIABLE = "TAI_DATA"
LVIS_FILE = "lvis1203_clip_vitb32_text.npy"
LVIS_CLASSES = 1203

_CLUSTERS = 64
_CLUSTERS_PER_ITEM = 4
_BLOCK_ITEMS = 64


@dataclass(frozen=True, eq=False)
class RawFeatures:
    """Features as encoders give them, fp32, not of unit length.

    Attributes:
        coarse: [N, D].
        fine: [N, L, D].
        class_global: [C, D].
        class_local: [C, D].
        class_source: ``"lvis"`` when the class vectors are real, else ``"random"``.
    """

    coarse: Tensor
    fine: Tensor
    class_global: Tensor
    class_local: Tensor
    class_source: str


def make_features(items: int, rows: int, dim: int, classes: int, device: torch.device, seed: int = 0) -> RawFeatures:
    """Clustered features of ``items`` items; the same seed and device give the same numbers.

    Holds little beside the result: the rows of ``_BLOCK_ITEMS`` items at most are in two places at a time.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    centres_KD = torch.nn.functional.normalize(noise(_CLUSTERS, dim) + 0.5 * noise(1, dim), dim=1)
    class_local_CD, source = _class_vectors(classes, dim, centres_KD, generator)
    class_global_CD = class_local_CD + 0.3 * class_local_CD.norm(dim=1, keepdim=True) * noise(classes, dim) / dim**0.5
    if source == "lvis":  # pictures lie near the directions of the class texts
        centres_KD = class_local_CD[:: max(1, classes // _CLUSTERS)][:_CLUSTERS]
        centres_KD = torch.nn.functional.normalize(centres_KD, dim=1)
    shape = (items, _CLUSTERS_PER_ITEM)
    chosen_NK = torch.randint(centres_KD.shape[0], shape, generator=generator, device=device)
    fine_NLD = torch.empty(items, rows, dim, device=device)
    for start in range(0, items, _BLOCK_ITEMS):
        block_NLD = fine_NLD[start : start + _BLOCK_ITEMS].normal_(generator=generator).mul_(1.5 / dim**0.5)
        which_NL = torch.randint(_CLUSTERS_PER_ITEM, block_NLD.shape[:2], generator=generator, device=device)
        block_NLD.add_(centres_KD[chosen_NK[start : start + _BLOCK_ITEMS].gather(1, which_NL)])
    coarse_ND = fine_NLD.mean(dim=1) + 0.5 * noise(items, dim) / dim**0.5
    # Lengths vary from vector to vector as they do in CLIP.
    fine_NLD.mul_(torch.rand(items, rows, 1, generator=generator, device=device).mul_(8).add_(4))
    return RawFeatures(10 * coarse_ND, fine_NLD, class_global_CD, class_local_CD, source)


def _class_vectors(classes: int, dim: int, centres_KD: Tensor, generator: torch.Generator) -> tuple[Tensor, str]:
    device = centres_KD.device
    lvis_CD = lvis_vectors() if classes == LVIS_CLASSES else None
    if lvis_CD is not None and lvis_CD.shape[1] == dim:
        return lvis_CD.to(device), "lvis"
    which_C = torch.randint(centres_KD.shape[0], (classes,), generator=generator, device=device)
    noise_CD = torch.randn(classes, dim, generator=generator, device=device) / dim**0.5
    return 10 * (centres_KD[which_C] + 0.8 * noise_CD), "random"


@cache
def lvis_vectors() -> Tensor | None:
    """[1203, 512] fp32 text vectors of the LVIS classes from the data folder, or None without it.

    Raises:
        UserError: when the file there is not what it should be.
    """
    path = Path(os.environ.get(DATA_VARIABLE, "")) / LVIS_FILE
    if not os.environ.get(DATA_VARIABLE) or not path.is_file():
        return None
    try:
        vectors_CD = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise UserError(f"'{path}' is not a NumPy file of class vectors ({error}); fetch it again.") from error
    if vectors_CD.ndim != 2 or vectors_CD.shape[0] != LVIS_CLASSES:
        raise UserError(f"'{path}' has shape {vectors_CD.shape}, expected ({LVIS_CLASSES}, D); fetch it again.")
    return torch.from_numpy(vectors_CD.astype(np.float32))


def quantise(unit_TD: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as int8 with a scale each, the largest element becoming 127: [T, D] int8 and [T] fp32."""
    scales_T = unit_TD.abs().amax(dim=-1).clamp_(min=torch.finfo(torch.float32).tiny) / 127
    return (unit_TD / scales_T[..., None]).round_().to(torch.int8), scales_T
