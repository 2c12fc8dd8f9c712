"""The compiled path: building, keeping and refusing libraries; wide vectors, AMX tiles and vectors of bf16 pairs,
emulated where need be."""

import ctypes
import os
import stat
from dataclasses import replace

import pytest
import torch

from scoring_cases import Case, exact, make_inputs, pairwise, torch_error, worst
from tai_kernels import native_build
from tai_kernels.scoring import native_score
from tai_kernels.scoring.call import ScoreArguments, make_call

NO_COMPILER = pytest.mark.skipif(bool(native_score.why_not()), reason=str(native_score.why_not()))
HALF_PRECISION = (torch.bfloat16, torch.float16, torch.int8)
EMULATED = [
    *pairwise(most_multiplications=2_000_000, dtype=HALF_PRECISION),
    # Several tiles of rows, of classes and of depth, none of them full.
    Case("softmax", torch.bfloat16, 640, 300, 33, 1),
    Case("max", torch.int8, 530, 70, 150, 2),
    Case("softmax", torch.float16, 48, 5, 300, 60),
]


WIDE_TILES = ("-DTAI_EMULATE_AMX", "-DTAI_LANES=16", "-O1")


@pytest.fixture(scope="module")
def emulation(tmp_path_factory):
    """A library of 512-bit vectors and AMX tiles, whatever this machine has."""
    return native_score.load(tmp_path_factory.mktemp("emulated"), WIDE_TILES)


@pytest.fixture(scope="module", params=[4, 8, 16])
def bf16_vectors(request, tmp_path_factory):
    """A library of vectors of bf16 pairs, whatever this machine has; AMX would be preferred to them."""
    definitions = ("-DTAI_EMULATE_BF16_VECTORS", f"-DTAI_LANES={request.param}", "-O1", "-U__AMX_BF16__")
    return native_score.load(tmp_path_factory.mktemp("bf16"), definitions)


def scores(case, inputs, library, save=False):
    arguments = ScoreArguments(*inputs.arguments(), inputs.fine_scales, case.pooling, 40.0, 4.0, 0.5, True)
    result = native_score.forward(make_call(arguments), save=save, compiled=library)
    return (result.coarse, result.fine, result.merged), result.state


def assert_as_good_as_torch_in_bf16(case, library):
    inputs = make_inputs(case)
    expected = exact(inputs, case.pooling, 40.0)
    allowed = torch_error(inputs, case.pooling, 40.0, torch.bfloat16, expected) + 5e-6
    got, _ = scores(case, inputs, library)
    # Coarse rows of an int8 problem are fp32: they must not lose anything.
    assert worst(got, expected) <= allowed
    assert worst(got, expected) > 1e-7 or case.classes == 1, "bf16 products cannot be this exact: they were not used"


@NO_COMPILER
@pytest.mark.parametrize("case", EMULATED, ids=str)
@pytest.mark.slow
def test_emulated_amx_is_as_good_as_torch_in_bf16(case, emulation):
    assert_as_good_as_torch_in_bf16(case, emulation)


@NO_COMPILER
@pytest.mark.parametrize("case", EMULATED, ids=str)
@pytest.mark.slow
def test_emulated_vectors_of_pairs_are_as_good_as_torch_in_bf16(case, bf16_vectors):
    assert_as_good_as_torch_in_bf16(case, bf16_vectors)


@NO_COMPILER
@pytest.mark.parametrize("row_dtype", HALF_PRECISION)
@pytest.mark.parametrize("dim", [1, 2, 31, 33, 512])
def test_products_of_pairs_by_hand(row_dtype, dim, bf16_vectors):
    """Small integers are exact in bf16, and their sums in fp32: every product has one right value."""
    rows = (torch.arange(5 * dim) % 7 - 3).reshape(5, dim)
    classes = (torch.arange(21 * dim) % 5 - 2).reshape(21, dim)
    expected = (rows.double() @ classes.double().T).float()
    scales = torch.full((5,), 0.5) if row_dtype == torch.int8 else None
    fine = rows.to(row_dtype)
    # In place, and where a row's start is at an odd number.
    for stored in (fine, torch.cat([fine[:, :1], fine], dim=1)[:, 1:]):
        arguments = (rows.half(), stored, torch.arange(6), classes.half(), classes.bfloat16(), scales)
        call = make_call(ScoreArguments(*arguments, "max", 1.0, 1.0, 0.5, False))
        got = native_score.forward(call, compiled=bf16_vectors)
        assert torch.equal(got.coarse, expected)
        assert torch.equal(got.fine, expected if scales is None else expected / 2)


@NO_COMPILER
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_class_vectors_of_any_type_are_read(dtype):
    inputs = make_inputs(Case("softmax", torch.float16, 67, 9, 21, 3))
    of_type = replace(inputs, class_global=inputs.class_global.to(dtype), class_local=inputs.class_local.to(dtype))
    same = replace(inputs, class_global=of_type.class_global.float(), class_local=of_type.class_local.float())
    got, expected = (scores(Case("softmax", torch.float16, 67, 9, 21, 3), i, None)[0] for i in (of_type, same))
    assert worst(got, expected) == 0


@NO_COMPILER
@pytest.mark.parametrize("case", EMULATED[::3], ids=str)
def test_wide_vectors_are_exact_when_a_gradient_is_wanted(case, emulation):
    inputs = make_inputs(case)
    got, state = scores(case, inputs, emulation, save=True)
    assert worst(got, exact(inputs, case.pooling, 40.0)) <= 5e-6
    assert state.shape == (case.items, case.classes)


@NO_COMPILER
def test_every_half_number_is_converted_exactly(emulation):
    # Each finite fp16 number, as a row of dimension one, against the class vector 1: the portable conversion.
    halves = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.float16)
    halves = halves[halves.isfinite()]
    one = torch.ones(1, 1)
    rows, offsets = halves[:, None], torch.arange(len(halves) + 1)
    call = make_call(ScoreArguments(rows, rows, offsets, one, one, None, "max", 1.0, 1.0, 0.5, False))
    got = native_score.forward(call, save=True, compiled=emulation)
    assert torch.equal(got.fine[:, 0], halves.float())


@NO_COMPILER
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(threads):
    case = Case("softmax", torch.float32, 512, 49, 80, 40)
    inputs = make_inputs(case)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        got, _ = scores(case, inputs, None)
        torch.set_num_threads(1)
        expected, _ = scores(case, inputs, None)
    finally:
        torch.set_num_threads(before)
    assert worst(got, expected) == 0


@NO_COMPILER
@pytest.mark.parametrize("save", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_few_items_score_as_among_many_to_the_last_bit(dtype, save):
    """Fewer items than classes change places with them in the coarse product."""
    inputs = make_inputs(Case("softmax", dtype, 530, 9, 21, 40))
    many, _ = scores(Case("softmax", dtype, 530, 9, 21, 40), inputs, None, save)
    for count in (1, 2, 20, 21):
        few = replace(
            inputs, coarse=inputs.coarse[:count], fine=inputs.fine[: 9 * count], offsets=inputs.offsets[: count + 1]
        )
        got, _ = scores(Case("softmax", dtype, 530, 9, 21, count), few, None, save)
        assert all(torch.equal(mine, whole[:count]) for mine, whole in zip(got, many, strict=True))


@NO_COMPILER
def test_a_library_is_built_once_and_named_by_what_it_was_built_from(emulation, monkeypatch):
    folder = emulation.path.parent
    assert [f.name for f in folder.iterdir()] == [emulation.path.name]  # nothing half-written is left
    monkeypatch.setattr(native_build, "_build", lambda *_: pytest.fail("built again"))
    assert native_build.built_library(folder, "score.cpp", WIDE_TILES)[0] == emulation.path
    monkeypatch.setattr(native_build, "processor_features", lambda: "another processor")
    built = []
    monkeypatch.setattr(native_build, "_build", lambda command, path: built.append(path))
    assert native_build.built_library(folder, "score.cpp", WIDE_TILES)[0] != emulation.path
    assert len(built) == 1


@NO_COMPILER
def test_a_file_that_is_no_library_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(native_build, "_build", lambda command, path: path.write_bytes(b"not a library"))
    with pytest.raises(native_score.UnavailableError, match="cannot be loaded"):
        native_score.load(tmp_path)


@NO_COMPILER
def test_a_library_that_computes_something_else_is_refused(tmp_path, monkeypatch):
    real = native_score.forward

    def wrong(call, **settings):
        result = real(call, **settings)
        result.merged.add_(1e-3)
        return result

    path = native_score.library().path
    monkeypatch.setattr(native_score, "built_library", lambda *_: (path, "c++"))
    assert native_score.load(tmp_path).path == path
    monkeypatch.setattr(native_score, "forward", wrong)
    with pytest.raises(native_score.UnavailableError, match=r"is off by 0\.001 on torch\.float32 rows"):
        native_score.load(tmp_path)


def test_no_compiler_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(native_build.UnavailableError, match=r"no C\+\+ compiler was found \(no-such-compiler\)"):
        native_build.built_library(tmp_path, "score.cpp")
    monkeypatch.setattr(native_score._machine, "_outcome", None)
    assert native_score.why_not() == "no C++ compiler was found (no-such-compiler)"


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for the compiler")
def test_a_failing_compiler_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    compiler = tmp_path / "bad-compiler"
    compiler.write_text("#!/bin/sh\necho 'score.cpp:1: error: no such vectors' >&2\nexit 1\n")
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(compiler))
    folder = tmp_path / "cache"
    with pytest.raises(native_build.UnavailableError, match=r"bad-compiler failed: .*error: no such vectors"):
        native_build.built_library(folder, "score.cpp")
    assert list(folder.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(native_build, "cache_folder", lambda: tmp_path / "file" / "kernels")
    monkeypatch.setattr(native_score._machine, "_outcome", None)
    reason = native_score.why_not()
    assert reason
    assert "building it failed" in reason or "no C++ compiler" in reason


def test_the_job_is_laid_out_like_the_struct():
    # Eight pointers and four 64-bit numbers, four 32-bit numbers and three floats, rounded up to eight bytes.
    assert ctypes.sizeof(native_score.ScoreJob) == 8 * 12 + 4 * 7 + 4
