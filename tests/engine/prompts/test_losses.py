import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from tai_engine.prompts import losses

GOLDEN = Path(os.environ.get("TAI_GOLDEN", Path(__file__).parents[2] / "golden"))


def plain_ranking(scores_NC: Tensor, labels_NC: Tensor, margin: float = 1.0, scale: float = 1.0) -> Tensor:
    """Every pair written out: [N, C, C]."""
    hinge_NCC = torch.relu(margin - scale * scores_NC[:, :, None] + scale * scores_NC[:, None, :])
    return (hinge_NCC * labels_NC[:, :, None] * (1 - labels_NC[:, None, :])).sum(dim=(1, 2)).mean()


def random_batch(n: int, c: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores_NC = torch.randn(n, c, generator=generator, dtype=dtype) * 2
    labels_NC = (torch.rand(n, c, generator=generator) < 0.3).to(dtype)
    return scores_NC, labels_NC


# Hand-computed cases


def test_ranking_by_hand() -> None:
    # Item 0: pairs (0, 1): 1 - 2 + 0.5 < 0; (0, 2): 1 - 2 + 3 = 2. Item 1: (1, 0): 1 - 0 + 0 = 1; (2, 0): 1 - 1 = 0.
    scores = torch.tensor([[2.0, 0.5, 3.0], [0.0, 0.0, 1.0]])
    labels = torch.tensor([[1, 0, 0], [0, 1, 1]])
    assert losses.ranking_loss(scores, labels).item() == pytest.approx((2.0 + 1.0) / 2)
    # margin 0.5, scale 2: item 0 (0, 2): 0.5 - 4 + 6 = 2.5; item 1 (1, 0): 0.5, (2, 0): 0.5 - 2 < 0.
    assert losses.ranking_loss(scores, labels, margin=0.5, scale=2).item() == pytest.approx((2.5 + 0.5) / 2)


def test_ranking_gradient_by_hand() -> None:
    scores = torch.tensor([[2.0, 0.5, 3.0], [0.0, 0.0, 1.0]], requires_grad=True)
    losses.ranking_loss(scores, torch.tensor([[1, 0, 0], [0, 1, 1]])).backward()
    # Item 1: pair (2, 0) lies exactly at the kink, where the gradient is 0.
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, torch.tensor([[-0.5, 0.0, 0.5], [0.5, -0.5, 0.0]]))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_ranking_without_pairs_is_zero_with_zero_gradient(value: float) -> None:
    scores = torch.tensor([[3.0, -2.0, 7.0]], requires_grad=True)
    loss = losses.ranking_loss(scores, torch.full((1, 3), value))
    loss.backward()
    assert loss.item() == 0.0
    assert scores.grad is not None
    assert scores.grad.tolist() == [[0.0, 0.0, 0.0]]


def test_sigmoid_losses_by_hand() -> None:
    scores = torch.tensor([[0.0, math.log(3.0)]], dtype=torch.float64)  # probabilities 1/2 and 3/4
    labels = torch.tensor([[1, 0]])
    assert losses.binary_cross_entropy(scores, labels).item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert losses.focal_loss(scores, labels).item() == pytest.approx((math.log(2) / 4 + math.log(4) * 9 / 16) / 2)
    present, absent = math.log(2) * 0.5, -math.log(0.3) * 0.7**2
    assert losses.asymmetric_loss(scores, labels).item() == pytest.approx((present + absent) / 2)
    partial = torch.tensor([[1, 0], [0, -1], [0, 0]])
    loss = losses.partial_asymmetric_loss(scores.expand(3, 2), partial)
    assert loss.item() == pytest.approx((present + absent) / 3)


def test_absent_class_below_the_clip_costs_nothing() -> None:
    scores = torch.tensor([[-4.0]], dtype=torch.float64, requires_grad=True)  # probability 0.018
    for gradient in (False, True):
        loss = losses.asymmetric_loss(scores, torch.zeros(1, 1), weight_gradient=gradient)
        (slope,) = torch.autograd.grad(loss, scores)
        assert loss.item() == 0.0
        assert slope.item() == 0.0


def test_soft_cross_entropy_by_hand() -> None:
    scores = torch.tensor([[0.0, math.log(2.0), 0.0], [5.0, 1.0, 2.0]], dtype=torch.float64)  # softmax 1/4, 1/2, 1/4
    labels = torch.tensor([[1, 1, 0], [0, 0, 0]])
    expected = (0.5 * math.log(4) + 0.5 * math.log(2)) / 2  # the item without a class adds 0
    assert losses.soft_cross_entropy(scores, labels).item() == pytest.approx(expected)


# Numbers of the published code


@pytest.mark.golden
def test_golden_losses() -> None:
    golden = load_file(GOLDEN / "expected.safetensors")
    scores, labels = golden["loss_in_logits"], golden["loss_in_labels"]
    found = {
        "loss_ranking": losses.ranking_loss(scores, labels),
        "loss_ranking_scale2": losses.ranking_loss(scores, labels, scale=2.0),
        "loss_asl": losses.LOSSES["asl"](scores, labels),
        "loss_bce": losses.LOSSES["bce"](scores, labels),
        "loss_focal": losses.LOSSES["focal"](scores, labels),
        "loss_dualcoop": losses.LOSSES["asl_partial"](scores, golden["loss_in_partial_labels"]),
    }
    for key, value in found.items():
        assert value.item() == pytest.approx(golden[key].item(), abs=1e-4), key


@pytest.mark.golden
def test_golden_loss_history_starts_with_both_ranking_losses() -> None:
    golden = load_file(GOLDEN / "expected.safetensors")
    both = sum(
        losses.ranking_loss(golden[f"sentence_logits_{kind}"], golden["labels"]).item() for kind in ("global", "local")
    )
    assert both == pytest.approx(golden["ranking_loss_history"][0].item(), abs=1e-4)


# The sorted form equals the pairs


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 5),
    c=st.integers(1, 17),
    seed=st.integers(0, 10_000),
    margin=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
    scale=st.sampled_from([0.5, 1.0, 4.0]),
)
def test_ranking_equals_all_pairs(n: int, c: int, seed: int, margin: float, scale: float) -> None:
    scores, labels = random_batch(n, c, seed)
    fast, plain = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    fast_loss = losses.ranking_loss(fast, labels, margin=margin, scale=scale)
    plain_loss = plain_ranking(plain, labels, margin, scale)
    torch.testing.assert_close(fast_loss, plain_loss, rtol=1e-12, atol=1e-12)
    fast_loss.backward()
    plain_loss.backward()
    torch.testing.assert_close(fast.grad, plain.grad, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), c=st.integers(2, 9))
def test_ranking_with_ties_equals_all_pairs(seed: int, c: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-2, 3, (4, c), generator=generator).double()  # many equal scores, many pairs at the kink
    labels = torch.randint(0, 2, (4, c), generator=generator).double()
    fast, plain = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    losses.ranking_loss(fast, labels).backward()
    plain_ranking(plain, labels).backward()
    assert losses.ranking_loss(scores, labels).item() == pytest.approx(plain_ranking(scores, labels).item(), abs=1e-12)
    torch.testing.assert_close(fast.grad, plain.grad, rtol=0, atol=1e-12)


def test_ranking_in_float32_with_a_large_vocabulary_and_offset() -> None:
    scores, labels = random_batch(3, 1001, dtype=torch.float32)
    shifted = scores + 1000.0  # no pair changes; what is left is the rounding of the input
    expected = plain_ranking(shifted.double(), labels.double())
    assert losses.ranking_loss(shifted, labels).item() == pytest.approx(expected.item(), rel=1e-5)


def test_half_precision_scores_are_computed_in_float32() -> None:
    scores, labels = random_batch(8, 80, dtype=torch.float32)
    half = scores.to(torch.bfloat16)
    for name, loss in losses.LOSSES.items():
        assert loss(half, labels).dtype == torch.float32
        assert loss(half, labels).item() == pytest.approx(loss(half.float(), labels).item()), name


MEMORY_PROBE = """
import resource, torch
from tai_engine.prompts import losses
torch.set_num_threads(1)
scores = torch.randn(64, 4585, requires_grad=True)
labels = (torch.rand(64, 4585) < 0.001).float()
losses.ranking_loss(scores[:1], labels[:1]).backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
losses.ranking_loss(scores, labels).backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
@pytest.mark.slow
def test_ranking_memory_does_not_grow_with_the_pairs() -> None:
    # All pairs of 64 items and 4585 classes are 5.4 GB in fp32; one [N, C] matrix is 1.2 MB.
    done = subprocess.run([sys.executable, "-c", MEMORY_PROBE], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64 * 1024, "KiB"


# Gradients

GRADIENT_CASES = {
    "ranking": losses.ranking_loss,
    "asl": lambda s, y: losses.asymmetric_loss(s, y, weight_gradient=True),
    "asl without clip": lambda s, y: losses.asymmetric_loss(s, y, clip=0.0, weight_gradient=True),
    "asl constant weights of 1": lambda s, y: losses.asymmetric_loss(s, y, gamma_negative=0.0, gamma_positive=0.0),
    "bce": losses.binary_cross_entropy,
    "focal": losses.focal_loss,
    "soft_cross_entropy": losses.soft_cross_entropy,
    "asl_partial": lambda s, y: losses.partial_asymmetric_loss(s, 2 * y - 1, weight_gradient=True),
}


@pytest.mark.parametrize("name", GRADIENT_CASES)
def test_gradcheck(name: str) -> None:
    scores, labels = random_batch(4, 6, seed=3)
    loss = GRADIENT_CASES[name]
    assert torch.autograd.gradcheck(lambda s: loss(s, labels), scores.requires_grad_())


def test_published_asl_gradient_takes_the_weights_as_constants() -> None:
    scores, labels = random_batch(4, 6, seed=3)
    scores.requires_grad_()
    (found,) = torch.autograd.grad(losses.asymmetric_loss(scores, labels), scores)
    p = scores.detach().sigmoid()
    q = (p - 0.05).clamp(min=0)
    present = -(1 - p) * (1 - p)  # weight (1 - p) times the slope of -log p
    absent = torch.where(q > 0, q**2 * p * (1 - p) / (1 - q), 0.0)
    torch.testing.assert_close(found, torch.where(labels == 1, present, absent) / scores.numel())


@pytest.mark.parametrize("name", losses.LOSSES)
def test_extreme_scores_stay_finite(name: str) -> None:
    scores = torch.tensor([[-200.0, 200.0, -200.0, 200.0]], requires_grad=True)
    labels = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    loss = losses.LOSSES[name](scores, 2 * labels - 1 if name == "asl_partial" else labels)
    loss.backward()
    assert scores.grad is not None
    assert math.isfinite(loss.item())
    assert loss.item() > 0
    assert bool(scores.grad.isfinite().all())


def test_unknown_labels_have_no_gradient() -> None:
    scores = torch.tensor([[0.5, 1.0, 2.0], [0.0, 1.0, 3.0]], requires_grad=True)
    labels = torch.tensor([[1, 0, -1], [0, 0, 0]])
    losses.partial_asymmetric_loss(scores, labels).backward()
    assert scores.grad is not None
    assert (scores.grad != 0).tolist() == [[True, False, True], [False, False, False]]


# Bad input


@pytest.mark.parametrize("name", losses.LOSSES)
def test_bad_shapes_and_labels_are_refused(name: str) -> None:
    loss = losses.LOSSES[name]
    with pytest.raises(ValueError, match=r"must share one shape"):
        loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"at least one item"):
        loss(torch.zeros(0, 3), torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"labels hold 0\.5"):
        loss(torch.zeros(1, 2), torch.tensor([[0.5, 1.0]]))
    with pytest.raises(ValueError, match=r"floating"):
        loss(torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 2))


def test_bad_constants_are_refused() -> None:
    with pytest.raises(ValueError, match="clip"):
        losses.asymmetric_loss(torch.zeros(1, 1), torch.zeros(1, 1), clip=1.0)
    with pytest.raises(ValueError, match="scale"):
        losses.ranking_loss(torch.zeros(1, 1), torch.zeros(1, 1), scale=0.0)
