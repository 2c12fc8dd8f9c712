"""The reference by hand, against the published code's numbers, and its gradient."""

import pytest
import torch

from scoring_cases import Case, make_inputs
from tai_kernels.scoring import reference
from tai_kernels.scoring.pooling import POOLING_MODES


def test_two_items_by_hand():
    coarse = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    fine = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    classes = torch.tensor([[1.0, 0.0]])
    scores = reference.score(
        coarse, fine, torch.tensor([0, 2, 3]), classes, classes, pooling="max", temperature=1.0, scale=2.0, mix=0.25
    )
    torch.testing.assert_close(scores.coarse, torch.tensor([[2.0], [1.2]]))
    torch.testing.assert_close(scores.fine, torch.tensor([[2.0], [1.6]]))
    torch.testing.assert_close(scores.merged, torch.tensor([[2.0], [0.25 * 1.2 + 0.75 * 1.6]]))


def test_an_item_without_rows_is_scored_by_its_coarse_vector():
    coarse, classes = torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]])
    scores = reference.score(
        coarse, torch.zeros(0, 2), torch.tensor([0, 0]), classes, classes, pooling="softmax", temperature=50.0
    )
    assert [s.item() for s in scores] == pytest.approx([2.4, 2.4, 2.4])


def test_int8_rows_are_multiplied_by_their_scale():
    classes = torch.tensor([[1.0, 0.0]])
    rows, scales = torch.tensor([[100, 7]], dtype=torch.int8), torch.tensor([0.005])
    scores = reference.score(
        classes,
        rows,
        torch.tensor([0, 1]),
        classes,
        classes,
        pooling="max",
        temperature=1.0,
        scale=1.0,
        fine_scales_T=scales,
    )
    assert scores.fine.item() == pytest.approx(0.5)


@pytest.mark.parametrize("pooling", POOLING_MODES)
def test_gradcheck(pooling):
    inputs = make_inputs(Case(pooling, torch.float32, 6, 0, 3, 4), counts=[2, 0, 5, 1])
    classes = [c.double().requires_grad_() for c in (inputs.class_global, inputs.class_local)]

    def merged(class_global, class_local):
        return reference.score(
            inputs.coarse.double(),
            inputs.fine.double(),
            inputs.offsets,
            class_global,
            class_local,
            pooling=pooling,
            temperature=5.0,
        )

    assert torch.autograd.gradcheck(merged, classes)
