"""The door: what it refuses, the ops under torch's own checks and under torch.compile, the sparse outputs, dispatch."""

import pytest
import torch

from scoring_cases import Case, largest_difference, make_inputs
from tai_kernels.scoring import backends, library, native_score, ops
from tai_kernels.scoring.pooling import POOLING_MODES

CASE = Case("softmax", torch.float32, 48, 0, 7, 5)
SETTINGS = {"temperature": 40.0}


@pytest.fixture
def inputs():
    return make_inputs(CASE, counts=[3, 9, 1, 77, 20])


@pytest.fixture
def arguments(inputs):
    return list(inputs.arguments())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "mean"}, "Unknown pooling 'mean'"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"mix": 1.5}, "mix is 1.5"),
        ({"empty": "zero"}, "Unknown choice 'zero' for empty; choose one of 'error', 'coarse'"),
    ],
)
def test_wrong_settings_are_refused(arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        ops.score(*arguments, **{**SETTINGS, **settings})


@pytest.mark.parametrize(
    ("position", "replacement", "message"),
    [
        (0, lambda t: t.double(), "coarse rows are float64, expected one of float32, bfloat16, float16"),
        (0, lambda t: t[:3], "coarse has 3 items but the fine rows belong to 5"),
        (1, lambda t: t[:, :20], "the last sizes must be equal"),
        (1, lambda t: t.to(torch.int8), "int8 rows need fine_scales"),
        (1, lambda t: t[None], "packed .* with offsets"),
        (1, lambda t: t[:-1], "offsets must rise from 0 to 109"),
        (2, lambda t: None, "dense .* with offsets=None"),
        (3, lambda t: t[:2], "must agree in shape"),
        (3, lambda t: t.double(), "class_global is torch.float64"),
        (4, lambda t: t.to("meta"), "fine rows are on cpu but the class vectors on meta"),
    ],
)
def test_wrong_tensors_are_refused(arguments, position, replacement, message):
    arguments[position] = replacement(arguments[position])
    with pytest.raises(ValueError, match=message):
        ops.score(*arguments, **SETTINGS)


def test_no_classes_are_refused(arguments):
    with pytest.raises(ValueError, match="no classes"):
        ops.score(*arguments[:3], *(c[:0] for c in arguments[3:]), **SETTINGS)


def test_scales_must_fit_the_rows(arguments):
    with pytest.raises(ValueError, match="int8 rows need fine_scales"):
        ops.score(*arguments, **SETTINGS, fine_scales=torch.ones(110))
    arguments[1] = arguments[1].to(torch.int8)
    with pytest.raises(ValueError, match=r"fine_scales are torch.float32 \(9,\)"):
        ops.score(*arguments, **SETTINGS, fine_scales=torch.ones(9))


@pytest.mark.parametrize("position", [0, 1])
def test_a_gradient_of_rows_is_refused_and_never_none(arguments, position):
    arguments[position].requires_grad_()
    with pytest.raises(NotImplementedError, match=r"gradient w.r.t. rows is not implemented"):
        ops.score(*arguments, **SETTINGS)
    with torch.no_grad():
        assert ops.score(*arguments, **SETTINGS).merged.shape == (5, 7)
    # Past the door, the op itself raises too.
    arguments[4].requires_grad_()
    out = torch.ops.tai.score(*arguments, None, "softmax", 40.0, 4.0, 0.5, False, True)
    with pytest.raises(NotImplementedError, match=r"no gradient w\.r\.t\. rows"):
        out[2].sum().backward()


def test_the_sparse_ops_have_no_gradient(arguments):
    arguments[4].requires_grad_()
    scores, _ = ops.score_top_k(*arguments, k=2, **SETTINGS)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        scores.sum().backward()


def test_gradients_of_half_precision_classes_have_their_dtype(arguments):
    classes = [c.bfloat16().requires_grad_() for c in arguments[3:]]
    ops.score(*arguments[:3], *classes, **SETTINGS).merged.sum().backward()
    assert [c.grad.dtype for c in classes] == [torch.bfloat16] * 2


@pytest.mark.parametrize("pooling", POOLING_MODES)
@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_opcheck(arguments, pooling, backend, monkeypatch):
    monkeypatch.setenv("TAI_KERNEL", backend)
    classes = [c.requires_grad_() for c in arguments[3:]]
    settings = (None, pooling, 40.0, 4.0, 0.5, False, True)
    # The fp32 outputs of two runs may differ in the last place, so compare as fp32 sums do.
    torch.library.opcheck(torch.ops.tai.score, (*arguments[:3], *classes, *settings), atol=1e-5, rtol=1e-4)


def test_opcheck_of_the_other_ops(arguments):
    settings = ("max", 40.0, 4.0, 0.5, False)
    torch.library.opcheck(torch.ops.tai.score_top_k, (*arguments, None, *settings, 3))
    torch.library.opcheck(torch.ops.tai.score_above, (*arguments, None, *settings, torch.zeros(7)))
    scores = torch.randn(5, 7)
    state = torch.zeros(5, 7, dtype=torch.int32)
    torch.library.opcheck(torch.ops.tai.score_backward, (*arguments, None, *settings, *[scores] * 4, state))


@pytest.mark.parametrize("pooling", POOLING_MODES)
def test_compiles_as_one_graph_with_gradients(arguments, pooling):
    def loss(class_global, class_local):
        scores = ops.score(*arguments[:3], class_global, class_local, pooling=pooling, **SETTINGS)
        return (scores.merged.sigmoid() * scores.fine).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    classes = [c.requires_grad_() for c in arguments[3:]]
    expected, got = loss(*classes), compiled(*classes)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got, classes), torch.autograd.grad(expected, classes))


def test_the_sparse_ops_compile_as_one_graph(arguments):
    def both(*tensors):
        top = ops.score_top_k(*tensors, k=3, **SETTINGS)
        return top, ops.score_above(*tensors, thresholds=torch.zeros(7), **SETTINGS)

    (top, above), (expected_top, expected_above) = (
        torch.compile(both, fullgraph=True, backend="aot_eager")(*arguments),
        both(*arguments),
    )
    torch.testing.assert_close(top, expected_top)
    torch.testing.assert_close(above, expected_above)


@pytest.mark.parametrize("slice_items", [1, 2, 5])
def test_top_k_and_above_equal_the_dense_scores(arguments, monkeypatch, slice_items):
    monkeypatch.setattr(library, "SLICE_BYTES", slice_items * 7 * 4)
    merged = ops.score(*arguments, **SETTINGS).merged
    scores, classes = ops.score_top_k(*arguments, k=4, **SETTINGS)
    expected = merged.sort(dim=1, descending=True, stable=True)
    torch.testing.assert_close(scores, expected.values[:, :4])
    assert torch.equal(classes, expected.indices[:, :4])
    thresholds = merged.median(dim=0).values - 1e-4
    kept, kept_classes, offsets = ops.score_above(*arguments, thresholds=thresholds, **SETTINGS)
    assert offsets.tolist()[0] == 0
    assert offsets.diff().tolist() == (merged >= thresholds).sum(dim=1).tolist()
    items = torch.repeat_interleave(torch.arange(5), offsets.diff())
    torch.testing.assert_close(kept, merged[items, kept_classes])
    assert bool((kept >= thresholds[kept_classes]).all())


def test_top_k_beyond_the_classes_and_of_no_items(arguments):
    assert ops.score_top_k(*arguments, k=99, **SETTINGS)[0].shape == (5, 7)
    nothing = [arguments[0][:0], arguments[1][:0], arguments[2][:1], *arguments[3:]]
    assert ops.score_top_k(*nothing, k=2, **SETTINGS)[1].shape == (0, 2)
    kept, classes, offsets = ops.score_above(*nothing, thresholds=torch.zeros(7), **SETTINGS)
    assert (kept.shape, classes.shape, offsets.tolist()) == ((0,), (0,), [0])
    with pytest.raises(ValueError, match="k is 0"):
        ops.score_top_k(*arguments, k=0, **SETTINGS)
    with pytest.raises(ValueError, match="one per class"):
        ops.score_above(*arguments, thresholds=torch.zeros(3), **SETTINGS)


def test_coarse_scores_alone(arguments):
    coarse, class_global = arguments[0].half(), arguments[3].requires_grad_()
    got = ops.score_coarse(coarse, class_global, scale=100.0)
    assert got.dtype == torch.float32
    expected = 100 * coarse.double() @ class_global.detach().double().T
    assert largest_difference(got.detach(), expected) <= 1e-4
    (grad,) = torch.autograd.grad(got.sum(), class_global)
    assert largest_difference(grad, 100 * coarse.double().sum(0).expand(7, -1)) <= 1e-3
    with pytest.raises(NotImplementedError, match="rows"):
        ops.score_coarse(arguments[0].requires_grad_(), class_global)


def test_patch_similarities(arguments):
    _, fine, offsets, _, class_local = arguments
    chosen = torch.tensor([6, 0])
    expected = fine.double() @ class_local[chosen].double().T
    assert largest_difference(ops.patch_similarities(fine, offsets, class_local, chosen), expected) <= 1e-6
    dense = ops.patch_similarities(fine[:108].view(4, 27, 48), None, class_local, chosen)
    assert dense.shape == (4, 27, 2)
    assert largest_difference(dense.view(108, 2), expected[:108]) <= 1e-6
    int8 = torch.full((2, 48), 10, dtype=torch.int8)
    got = ops.patch_similarities(int8, torch.tensor([0, 2]), class_local, chosen, fine_scales=torch.tensor([0.1, 0.2]))
    assert largest_difference(got, torch.outer(torch.tensor([1.0, 2.0]), class_local[chosen].sum(1))) <= 1e-5
    with pytest.raises(ValueError, match=r"class_indices must lie in 0\.\.6"):
        ops.patch_similarities(fine, offsets, class_local, torch.tensor([7]))


def test_an_unknown_backend_lists_the_choices(arguments, monkeypatch):
    monkeypatch.setenv("TAI_KERNEL", "tritn")
    with pytest.raises(ValueError, match="TAI_KERNEL='tritn' is not known; did you mean 'triton'"):
        ops.score(*arguments, **SETTINGS)
    monkeypatch.setenv("TAI_KERNEL", "xyz")
    with pytest.raises(ValueError, match="choose one of 'reference', 'triton', 'cpu', 'compiled', 'torch'"):
        ops.describe_backends()


def test_triton_on_a_cpu_says_what_is_missing(arguments, monkeypatch):
    monkeypatch.setenv("TAI_KERNEL", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match=r"TAI_KERNEL=triton cannot be used: .*(need a GPU|not installed)"):
        ops.score(*arguments, **SETTINGS)


def test_without_a_compiler_torch_takes_over_silently(arguments, monkeypatch):
    monkeypatch.delenv("TAI_KERNEL", raising=False)
    expected = ops.score(*arguments, **SETTINGS).merged
    monkeypatch.setattr(native_score._machine, "_outcome", "no C++ compiler was found (c++)")
    assert backends.choose(torch.device("cpu")) == "torch"
    assert largest_difference(ops.score(*arguments, **SETTINGS).merged, expected) <= 1e-5
    states = {state.name: state for state in ops.describe_backends()}
    assert not states["compiled"].available
    assert states["compiled"].detail == "no C++ compiler was found (c++)"
    assert states["torch"].in_use[0] == "cpu"
    monkeypatch.setenv("TAI_KERNEL", "compiled")
    with pytest.raises(RuntimeError, match="TAI_KERNEL=compiled cannot be used: no C\\+\\+ compiler"):
        ops.score(*arguments, **SETTINGS)


@pytest.mark.parametrize(("forced", "chosen"), [("reference", "reference"), ("torch", "torch"), (" Torch ", "torch")])
def test_forced_choices(monkeypatch, forced, chosen):
    monkeypatch.setenv("TAI_KERNEL", forced)
    assert backends.choose(torch.device("cpu")) == chosen
    in_use = {state.name: state.in_use for state in ops.describe_backends()}
    assert "cpu" in in_use[chosen]
