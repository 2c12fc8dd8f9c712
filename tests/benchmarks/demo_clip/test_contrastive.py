import math

import pytest
import torch

from tai_benchmarks.demo_clip.contrastive import contrast_loss, multi_label_loss, pooled_cosine
from tai_benchmarks.demo_clip.data import IGNORED


def test_multi_label_loss_by_hand() -> None:
    logit_NC = torch.tensor([[2.0, -1.0], [0.0, 0.0]])
    target_NC = torch.tensor([[1.0, 0.0], [0.0, 0.0]])

    # sigmoid: -log s(2) - log(1 - s(-1)); then 2 log 2. softmax of the first item: -log(e^2 / (e^2 + e^-1))
    sigmoid = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1)) + 2 * math.log(2)) / 2
    softmax = math.log1p(math.exp(-3)) / 2
    assert multi_label_loss(logit_NC, target_NC, share=0.0).item() == pytest.approx(sigmoid, rel=1e-6)
    assert multi_label_loss(logit_NC, target_NC, share=2.0).item() == pytest.approx(sigmoid + 2 * softmax, rel=1e-6)


def test_ignored_targets_do_not_count() -> None:
    logit_NC = torch.tensor([[2.0, -1.0, 3.0]], requires_grad=True)
    loss = multi_label_loss(logit_NC, torch.tensor([[1.0, 0.0, IGNORED]]))
    (gradient,) = torch.autograd.grad(loss, logit_NC)

    assert loss.item() == pytest.approx(
        multi_label_loss(torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.0]])).item(), rel=1e-6
    )
    assert gradient[0, 2] == 0.0


def test_softmax_part_shares_between_present_classes() -> None:
    logit_NC = torch.tensor([[1.0, 0.0, -2.0]])
    log_softmax = torch.log_softmax(logit_NC[0].double(), 0)
    with_part = multi_label_loss(logit_NC, torch.tensor([[1.0, 1.0, 0.0]]), share=1.0)
    without = multi_label_loss(logit_NC, torch.tensor([[1.0, 1.0, 0.0]]), share=0.0)

    assert (with_part - without).item() == pytest.approx(-(log_softmax[0] + log_softmax[1]).item() / 2, rel=1e-5)


def test_pooled_cosine_by_hand_and_under_a_mask() -> None:
    local_NLD = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]])
    text_CD = torch.tensor([[1.0, 0.0]])
    cosines = [1.0, 0.0, 0.6]
    weights = [math.exp(3 * value) for value in cosines]
    wanted = sum(w * c for w, c in zip(weights, cosines, strict=True)) / sum(weights)
    kept = (weights[1] * 0.0 + weights[2] * 0.6) / (weights[1] + weights[2])

    assert pooled_cosine(local_NLD, text_CD, 3.0).item() == pytest.approx(wanted, rel=1e-6)
    mask_NL = torch.tensor([[False, True, True]])
    assert pooled_cosine(local_NLD, text_CD, 3.0, mask_NL).item() == pytest.approx(kept, rel=1e-6)


def test_contrast_of_equal_scenes_shares_the_target() -> None:
    feature_ND = torch.eye(3)
    present_NC = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    scale = torch.tensor(4.0)
    own, other = math.exp(4.0), 1.0
    total = own + 2 * other
    # items 0 and 1 show the same: each is as right for the other as for itself; item 2 shows more
    pair = -0.5 * (math.log(own / total) + math.log(other / total))
    wanted = (2 * pair - math.log(own / total)) / 3

    assert contrast_loss(feature_ND, feature_ND, present_NC, scale).item() == pytest.approx(wanted, rel=1e-6)
