"""The losses of the demonstration CLIP, all on cosines between normalised features.

Legend of shapes: N items, L locations or tokens, D joint embedding size, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn

from tai_benchmarks.demo_clip.data import IGNORED
from tai_benchmarks.demo_clip.model import ImageFeatures, SentenceFeatures


class ScoreBiases(nn.Module):
    """The learned offsets of the sigmoid losses (Zhai et al., SigLIP, 2023); training only, rankings do without."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse = nn.Parameter(torch.tensor(-5.0))
        self.local = nn.Parameter(torch.tensor(-6.0))
        self.pooled = nn.Parameter(torch.tensor(-6.0))
        self.sentence = nn.Parameter(torch.tensor(-5.0))
        self.token = nn.Parameter(torch.tensor(-6.0))


@dataclass(frozen=True)
class LossWeights:
    """How much each part counts."""

    coarse: float = 1.0
    local: float = 2.0
    pooled: float = 0.5
    sentence: float = 0.4
    token: float = 0.4
    contrast: float = 0.5


def multi_label_loss(logit_NC: Tensor, target_NC: Tensor, share: float = 0.5) -> Tensor:
    """Sigmoid loss summed over classes plus ``share`` x softmax loss against the present classes; mean over items.

    Targets are 1, 0 or ``IGNORED``; items without a present class have no softmax part.
    """
    kept_NC = (target_NC != IGNORED).to(logit_NC.dtype)
    clean_NC = target_NC.clamp(min=0)
    sigmoid_N = (F.binary_cross_entropy_with_logits(logit_NC, clean_NC, reduction="none") * kept_NC).sum(dim=-1)
    present_N = clean_NC.sum(dim=-1)
    hidden_NC = logit_NC.masked_fill(target_NC == IGNORED, -1e4)
    softmax_N = -(F.log_softmax(hidden_NC, dim=-1) * clean_NC).sum(dim=-1) / present_N.clamp(min=1)
    return (sigmoid_N + share * softmax_N).mean()


def pooled_cosine(local_NLD: Tensor, text_CD: Tensor, tau: Tensor | float, mask_NL: Tensor | None = None) -> Tensor:
    """[N, C]: cosines of all locations with the class, averaged with weights softmax(tau x cosine)."""
    cosine_NLC = local_NLD @ text_CD.T
    scaled_NLC = tau * cosine_NLC
    if mask_NL is not None:
        scaled_NLC = scaled_NLC.masked_fill(~mask_NL[..., None], float("-inf"))
    return (scaled_NLC.softmax(dim=1) * cosine_NLC).sum(dim=1)


def contrast_loss(image_ND: Tensor, sentence_ND: Tensor, present_NC: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric loss; items that show the same classes share the target in equal parts."""
    same_NN = (present_NC @ present_NC.T == present_NC.sum(dim=1)[:, None]) & (
        present_NC.sum(dim=1)[:, None] == present_NC.sum(dim=1)[None, :]
    )
    target_NN = same_NN.to(image_ND.dtype)
    target_NN = target_NN / target_NN.sum(dim=1, keepdim=True)
    logit_NN = scale * image_ND @ sentence_ND.T
    return 0.5 * (F.cross_entropy(logit_NN, target_NN) + F.cross_entropy(logit_NN.T, target_NN))


def sentence_losses(
    scale: Tensor,
    biases: ScoreBiases,
    caption: SentenceFeatures,
    prompt_CD: Tensor,
    spoken_NC: Tensor,
    caption_NT: Tensor,
    caption_class_NT: Tensor,
    weights: LossWeights,
) -> dict[str, Tensor]:
    """The parts that need no picture: sentences and their words against the prompts of the classes."""
    end_N = caption_NT.argmax(dim=1)
    mask_NL = torch.arange(caption_NT.shape[1])[None, :] <= end_N[:, None]
    named = caption_class_NT >= 0
    token_target = F.one_hot(caption_class_NT[named], spoken_NC.shape[1]).to(prompt_CD.dtype)
    whole_NC = scale * caption.coarse @ prompt_CD.T + biases.sentence
    pooled_NC = scale * pooled_cosine(caption.tokens, prompt_CD, scale, mask_NL) + biases.token
    words = scale * caption.tokens[named] @ prompt_CD.T + biases.token
    sentence = multi_label_loss(whole_NC, spoken_NC) + 0.5 * multi_label_loss(pooled_NC, spoken_NC)
    return {"sentence": weights.sentence * sentence, "token": weights.token * multi_label_loss(words, token_target)}


def image_losses(
    scale: Tensor,
    biases: ScoreBiases,
    image: ImageFeatures,
    caption: SentenceFeatures,
    prompt_CD: Tensor,
    present_NC: Tensor,
    location_NLC: Tensor,
    weights: LossWeights,
) -> dict[str, Tensor]:
    """The parts about pictures; the sentences may be those of the first pictures only."""
    count = len(caption.coarse)
    coarse, contrast = [], []
    for image_ND in (image.with_position, image.without_position):
        coarse.append(multi_label_loss(scale * image_ND @ prompt_CD.T + biases.coarse, present_NC))
        contrast.append(contrast_loss(image_ND[:count], caption.coarse, present_NC[:count], scale))
    local_NLC = scale * image.local @ prompt_CD.T + biases.local
    pooled_NC = scale * pooled_cosine(image.local, prompt_CD, scale) + biases.pooled
    return {
        "coarse": weights.coarse * 0.5 * (coarse[0] + coarse[1]),
        "local": weights.local * multi_label_loss(local_NLC.flatten(0, 1), location_NLC.flatten(0, 1), share=1.5),
        "pooled": weights.pooled * multi_label_loss(pooled_NC, present_NC),
        "contrast": weights.contrast * 0.5 * (contrast[0] + contrast[1]),
    }


def training_loss(
    model: CLIP,
    biases: ScoreBiases,
    image: ImageFeatures | None,
    caption: SentenceFeatures,
    prompt_CD: Tensor,
    present_NC: Tensor,
    location_NLC: Tensor,
    caption_NT: Tensor,
    caption_class_NT: Tensor,
    weights: LossWeights,
) -> tuple[Tensor, dict[str, float]]:
    """The weighted sum of all parts, and each part's value."""
    scale = model.logit_scale.exp()
    spoken_NC = present_NC[: len(caption_NT)]
    parts = sentence_losses(scale, biases, caption, prompt_CD, spoken_NC, caption_NT, caption_class_NT, weights)
    if image is not None:
        parts |= image_losses(scale, biases, image, caption, prompt_CD, present_NC, location_NLC, weights)
    total = torch.stack(list(parts.values())).sum()
    return total, {name: float(value.detach()) for name, value in parts.items()}
