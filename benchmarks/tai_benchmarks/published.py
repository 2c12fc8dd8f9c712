"""The published formulation of scoring, written plainly: the baseline that every score benchmark is held against.

As the code of TaI-DPT (Guo et al., arXiv 2211.12739) has it: both sides are normalised in every call, in fp32, the
similarities of all items, rows and classes are one tensor, and sentences are padded to the context length. It takes
features as an encoder gives them, not of unit length. Given fp64 it is the truth that candidates are checked against.

Shape legend: N items, L rows per item (padded), D embedding size, C classes.
"""

from torch import Tensor

from tai_kernels.scoring.ops import Scores
from tai_kernels.scoring.pooling import check_pooling


def published_scores(
    global_ND: Tensor,
    local_NLD: Tensor,
    class_global_CD: Tensor,
    class_local_CD: Tensor,
    *,
    temperature: float,
    scale: float = 4.0,
    pooling: str = "softmax",
    mask_NL: Tensor | None = None,
) -> Scores:
    """Coarse, fine and merged scores [N, C] in the dtype of the features.

    Args:
        global_ND: [N, D] float, any length.
        local_NLD: [N, L, D] image patches, or sentence tokens with ``mask_NL``.
        class_global_CD: [C, D] float, any length.
        class_local_CD: [C, D] float, any length.
        temperature: tau of the softmax over the rows.
        scale: k.
        pooling: ``"softmax"`` as published, or ``"max"``.
        mask_NL: [N, L] bool, True for the tokens of a sentence, False for its padding; None for images.

    Raises:
        ValueError: for an unknown pooling.
    """
    check_pooling(pooling)
    global_ND = global_ND / global_ND.norm(dim=-1, keepdim=True)
    local_NLD = local_NLD / local_NLD.norm(dim=-1, keepdim=True)
    class_global_CD = class_global_CD / class_global_CD.norm(dim=-1, keepdim=True)
    class_local_CD = class_local_CD / class_local_CD.norm(dim=-1, keepdim=True)
    coarse_NC = scale * (global_ND @ class_global_CD.T)
    return Scores(*_merge(coarse_NC, _fine(local_NLD @ class_local_CD.T, temperature, scale, pooling, mask_NL)))


def _fine(similarities_NLC: Tensor, temperature: float, scale: float, pooling: str, mask_NL: Tensor | None) -> Tensor:
    """Pooled similarities times k, [N, C]."""
    if pooling == "max":
        if mask_NL is not None:
            similarities_NLC = similarities_NLC.masked_fill(~mask_NL[:, :, None], float("-inf"))
        return scale * similarities_NLC.amax(dim=1)
    logits_NLC = similarities_NLC * temperature
    if mask_NL is not None:
        logits_NLC = logits_NLC.masked_fill(~mask_NL[:, :, None], float("-inf"))
    weights_NLC = logits_NLC.softmax(dim=1)
    return (scale * similarities_NLC * weights_NLC).sum(dim=1)


def _merge(coarse_NC: Tensor, fine_NC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return coarse_NC, fine_NC, 0.5 * coarse_NC + 0.5 * fine_NC


def prenormalised_scores(
    global_ND: Tensor,
    local_NLD: Tensor,
    class_global_CD: Tensor,
    class_local_CD: Tensor,
    *,
    temperature: float,
    scale: float = 4.0,
    pooling: str = "softmax",
) -> Scores:
    """The same without normalising: all vectors are of unit length already. Arguments as in ``published_scores``."""
    check_pooling(pooling)
    coarse_NC = scale * (global_ND @ class_global_CD.T)
    return Scores(*_merge(coarse_NC, _fine(local_NLD @ class_local_CD.T, temperature, scale, pooling, None)))
