import pytest
import torch

from tai_benchmarks.score_problem import SCALE, SHAPES, TEMPERATURE, ExactScores, ScoreProblem, Shape, plan_items
from tai_kernels.scoring import reference
from tai_kernels.scoring.pooling import POOLING_MODES
from tai_kernels.scoring.reference import Scores

CPU = torch.device("cpu")


def small(pooling="softmax", items=6):
    return ScoreProblem(Shape(5, 24), items, 9, pooling, CPU)


@pytest.mark.parametrize(
    ("case", "classes", "rate", "items"),
    [
        # 1e11 * 0.1 s / (2 * 49 * 1024 * 80) = 1245 images, but memory ends at 2^25 / 50176 = 668
        ("rn50-224", 80, 1e11, 512),
        ("rn50-224", 80, 1e10, 64),  # 124
        ("rn50-224", 20000, 1e10, 16),  # 0.5, but 512 rows are 10.4 images
        ("vit-b16-448", 20000, 1e10, 1),
        ("vit-b16-448", 20, 1e13, 64),  # 2^25 / 401408 = 83
    ],
)
def test_the_number_of_images_by_hand(case, classes, rate, items):
    assert plan_items(SHAPES[case], classes, "cpu", rate, 0.1) == items


def test_unit_rows_in_every_dtype():
    problem = small()
    for name, itemsize in (("fp32", 4), ("bf16", 2), ("fp16", 2), ("int8", 1)):
        inputs = problem.inputs(name)
        assert inputs.fine.element_size() == itemsize
        rows = inputs.fine.float()
        if inputs.fine_scales is not None:
            rows = rows * inputs.fine_scales.view(6, 5, 1)
        torch.testing.assert_close(rows.norm(dim=-1), torch.ones(6, 5), atol=2e-2, rtol=0)
        true = torch.nn.functional.normalize(problem.raw.fine, dim=-1)
        torch.testing.assert_close(rows, true, atol=5e-3, rtol=0)
    assert problem.inputs("fp16") is problem.inputs("fp16")
    assert problem.inputs("fp32").first(2).fine.shape == (2, 5, 24)


def test_work_by_hand():
    problem = small()
    assert problem.flops == 2 * 6 * (5 + 1) * 24 * 9
    rows, classes, scores = (6 + 6 * 5) * 24, 2 * 9 * 24, 3 * 6 * 9
    assert problem.bytes_moved("fp32") == 4 * (rows + classes + scores)
    assert problem.bytes_moved("fp16") == 2 * (rows + classes) + 4 * scores


@pytest.mark.parametrize("pooling", POOLING_MODES)
def test_the_truth_is_the_kernels_definition_in_fp64(pooling):
    problem = small(pooling)
    truth = ExactScores(problem, flops=1e12)
    assert truth.items_M.tolist() == [0, 1, 2, 3, 4, 5]
    unit = [
        torch.nn.functional.normalize(v.double(), dim=-1)
        for v in (problem.raw.coarse, problem.raw.fine, problem.raw.class_global, problem.raw.class_local)
    ]
    offsets = torch.arange(7) * 5
    expected = reference.score(
        unit[0], unit[1].flatten(0, 1), offsets, *unit[2:], pooling=pooling, temperature=TEMPERATURE, scale=SCALE
    )
    for given, true in zip(truth.scores, expected, strict=True):
        torch.testing.assert_close(given, true, atol=1e-12, rtol=0)


def test_few_operations_leave_the_first_and_the_last_item():
    assert ExactScores(small(items=50), flops=1.0).items_M.tolist() == [0, 49]
    assert ExactScores(small(items=1), flops=1.0).items_M.tolist() == [0]


def test_the_error_is_a_share_of_the_largest_score():
    truth = ExactScores(small(), flops=1e12)
    exact = truth.scores
    assert truth.relative_error(exact) == 0.0
    assert truth.top_k_agreement(exact, 3) == 1.0
    largest = float(exact.fine.abs().max())
    shifted = Scores(exact.coarse, exact.fine + 0.01 * largest, exact.merged)
    assert truth.relative_error(shifted) == pytest.approx(0.01)
    part = Scores(*(s[:1] for s in shifted))
    assert truth.relative_error(part) == pytest.approx(0.01)  # of the first item only
    spoilt = exact.merged.clone()
    spoilt[3, 2] = float("nan")
    assert truth.relative_error(exact._replace(merged=spoilt)) == float("inf")


def test_agreement_by_hand():
    truth = ExactScores(small(), flops=1e12)
    reversed_ = truth.scores._replace(merged=-truth.scores.merged)
    assert truth.top_k_agreement(reversed_, 4) == 0.0  # of 9 classes the best 4 and the worst 4
    assert truth.top_k_agreement(reversed_, 5) == pytest.approx(1 / 5)
    assert truth.top_k_agreement(reversed_, 99) == 1.0


def test_a_problem_of_zeros_is_refused():
    problem = small()
    problem.raw.fine.fill_(1.0)
    problem.raw.class_local.fill_(1.0)
    with pytest.raises(ValueError, match="do not differ"):
        ExactScores(problem, flops=1e12)
