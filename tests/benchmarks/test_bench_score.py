import json
import sys

import pytest
import torch
from typer.testing import CliRunner

from tai_benchmarks import bench_score, machine, protocol, score_contenders, score_memory, score_problem
from tai_benchmarks.bench_score import ScoreConfig, configure, rows_of_set, run
from tai_benchmarks.peak_memory import NotMeasurableError
from tai_benchmarks.protocol import Timing, read_rows
from tai_benchmarks.score_contenders import Contender, Fp64Agreement, WrongResultError, check, contenders, tai
from tai_benchmarks.score_memory import memory_rows
from tai_benchmarks.score_problem import ROW_DTYPES, ExactScores, ScoreProblem, Shape
from tai_engine.cli.bench import app
from tai_engine.errors import UserError
from tai_kernels.scoring.pooling import POOLING_MODES

CPU = torch.device("cpu")
FIELDS = ["bench", "case", "classes", "candidate", "baseline", "value", "unit", "p20", "p80", "ratio"]


@pytest.fixture
def tiny(monkeypatch):
    """Problems that take no time; memory is another test's subject."""
    monkeypatch.setitem(score_problem.SHAPES, "rn50-224", Shape(4, 16))
    monkeypatch.setattr(bench_score, "plan_items", lambda *_: 8)
    monkeypatch.setattr(machine, "_CPU_COPY_BYTES", 1 << 20)
    monkeypatch.setattr(protocol, "_SHORTEST_SAMPLE_SECONDS", {"cpu": 1e-4, "cuda": 1e-4})
    monkeypatch.setattr(machine, "_CPU_GEMM_SIZE", 64)
    monkeypatch.setattr(bench_score, "memory_rows", lambda *_: iter(()))


@pytest.mark.parametrize("pooling", POOLING_MODES)
def test_every_contender_agrees_with_fp64(pooling):
    problem = ScoreProblem(Shape(6, 32), 8, 21, pooling, CPU)
    remarks = []
    judged = check(contenders(problem, ROW_DTYPES, True), ExactScores(problem, 1e12), remarks.append)
    assert remarks == []
    labels = [c.label for c in judged]
    assert labels[0] == "published/fp32"
    assert labels[-4:] == ["tai/fp32", "tai/bf16", "tai/fp16", "tai/int8"]
    assert {"torch-prenormalised/fp32", "torch-chunked/fp32", "gemm/fp32"} <= set(labels)
    for contender, verdict in judged.items():
        if contender.name == "gemm":
            assert verdict == Fp64Agreement()
            continue
        assert verdict.relative_error <= score_problem.TOLERANCE[contender.row_dtype]
        # Half precision may swap two classes that are nearly equal.
        assert verdict.top_k_agreement >= (1.0 if contender.row_dtype == "fp32" else 0.9)


@pytest.mark.parametrize("native", [True, False])
def test_a_full_run_adds_the_compiled_variants_and_one_in_emulated_bf16(monkeypatch, native):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # compiling is another test's subject
    monkeypatch.setattr(score_contenders, "is_native", lambda dtype, _: native or dtype == torch.float32)
    problem = ScoreProblem(Shape(6, 32), 128, 21, "softmax", CPU)
    full = {c.label: c for c in contenders(problem, (), False)}
    quick = {c.label for c in contenders(problem, (), True)}
    more = {"torch-compile/fp32", "torch-compile-chunked/fp32"}
    more |= {"torch-compile/bf16", "torch-compile-chunked/bf16"} if native else {"torch-prenormalised/bf16"}
    assert full.keys() - quick == more
    assert full["torch-prenormalised/bf16"].items == (128 if native else 2)


def wrong(name: str) -> Contender:
    problem = ScoreProblem(Shape(6, 32), 8, 21, "softmax", CPU)
    good = tai(problem.inputs("fp32"), "softmax")
    return Contender(name, "fp32", 8, lambda: good()._replace(fine=good().fine * 1.001))


def test_what_is_wrong_is_not_timed():
    truth = ExactScores(ScoreProblem(Shape(6, 32), 8, 21, "softmax", CPU), 1e12)
    remarks = []
    assert check(iter([wrong("torch-chunked")]), truth, remarks.append) == {}
    assert len(remarks) == 1
    assert "torch-chunked/fp32 is off by 0.001" in remarks[0]
    with pytest.raises(WrongResultError, match=r"tai/fp32 is off by 0\.001"):
        check(iter([wrong("tai")]), truth, remarks.append)


def test_a_compiler_that_fails_is_left_out_and_said():
    truth = ExactScores(ScoreProblem(Shape(6, 32), 8, 21, "softmax", CPU), 1e12)

    def fail():
        raise RuntimeError("no compiler\nand a long story")

    remarks = []
    assert check(iter([Contender("torch-compile", "fp32", 8, fail)]), truth, remarks.append) == {}
    assert remarks == ["torch-compile/fp32 is left out: RuntimeError: no compiler"]
    with pytest.raises(RuntimeError, match="no compiler"):
        check(iter([Contender("published", "fp32", 8, fail)]), truth, remarks.append)


def test_rows_by_hand():
    problem = ScoreProblem(Shape(4, 16), 8, 10, "softmax", CPU)
    seconds = {
        "published/fp32": 8.0, "torch-chunked/fp32": 4.0, "torch-chunked/bf16": 2.0, "tai/fp32": 1.0, "tai/fp16": 0.5,
    }  # fmt: skip
    judged = {Contender(*label.split("/"), 8, lambda: None): Fp64Agreement(1e-5, 0.75) for label in seconds}
    timings = {label: Timing((s,) * 3, 8) for label, s in seconds.items()}
    # flops: 2 * 8 * 5 * 16 * 10 = 12800
    timings |= {"copy": Timing((1.0,), 1e4), "gemm of fp32": Timing((1.0,), 25600.0)}
    rows = [r.as_dict() for r in rows_of_set("rn50-224/softmax", problem, judged, timings, {"device": "d"})]
    found = {(r["case"].split("/")[-1], r["candidate"], r["baseline"]): r for r in rows}
    assert len(found) == len(rows) == 7
    assert all(list(r)[:10] == FIELDS for r in rows)
    assert all((r["bench"], r["classes"], r["unit"], r["device"]) == ("score", 10, "images/s", "d") for r in rows)
    assert found["fp32", "published", "published"]["ratio"] == 1.0
    assert found["bf16", "torch-chunked", "published"]["ratio"] == 4.0
    ours = found["fp32", "tai", "published"]
    assert (ours["value"], ours["ratio"], ours["share_of_gemm"]) == (8.0, 8.0, 0.5)
    assert ours["share_of_bandwidth"] == pytest.approx(4 * ((8 + 32) * 16 + 2 * 10 * 16 + 3 * 80) / 1e4)
    assert (ours["relative_error"], ours["top_k_agreement"]) == (1e-5, 0.75)
    # fp32 rows are compared with torch in fp32, narrower ones with torch in any dtype.
    assert found["fp32", "tai", "fastest-torch"]["ratio"] == 4.0
    assert found["fp32", "tai", "fastest-torch"]["fastest_torch"] == "torch-chunked/fp32"
    assert found["fp16", "tai", "fastest-torch"]["ratio"] == 4.0
    assert found["fp16", "tai", "fastest-torch"]["fastest_torch"] == "torch-chunked/bf16"


def test_a_run_measures_every_set(tiny):
    remarks = []
    config = ScoreConfig(cases=("rn50-224",), classes=(3, 7), row_dtypes=("fp16",), rounds=1, quick=True, device="cpu")
    rows = [row.as_dict() for row in run(config, remarks.append)]
    ours = [(r["case"], r["classes"], r["baseline"]) for r in rows if r["candidate"] == "tai"]
    assert ours == [
        (f"rn50-224/{pooling}/fp16", classes, baseline)
        for classes in (3, 7)
        for pooling in POOLING_MODES
        for baseline in ("published", "fastest-torch")
    ]
    assert all(r["value"] > 0 and r["p20"] <= r["value"] <= r["p80"] and r["rounds"] == 1 for r in rows)
    assert all(r["backend"] in ("compiled", "torch") and r["images"] == 8 and r["quick"] is True for r in rows)
    assert any("7 classes, max: 8 images" in remark for remark in remarks)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_a_gpu(tiny):
    config = ScoreConfig(cases=("rn50-224",), classes=(7,), rounds=1, quick=True, device="cuda")
    rows = [row.as_dict() for row in run(config)]
    assert {r["case"].split("/")[2] for r in rows if r["candidate"] == "tai"} == set(ROW_DTYPES)
    assert all(r["value"] > 0 and r["device"] == torch.cuda.get_device_name() for r in rows)


def test_a_kernel_that_is_wrong_stops_the_run(tiny, monkeypatch):
    real = score_contenders.ops.score
    monkeypatch.setattr(score_contenders.ops, "score", lambda *a, **k: real(*a, **k | {"scale": 4.1}))
    with pytest.raises(WrongResultError):
        list(run(ScoreConfig(cases=("rn50-224",), classes=(3,), rounds=1, quick=True, device="cpu")))


def test_configuration():
    assert configure(quick=False) == ScoreConfig()
    quick = configure(quick=True, classes=(5,))
    assert (quick.cases, quick.classes, quick.rounds, quick.quick) == (("rn50-224",), (5,), 5, True)
    assert ScoreConfig().classes == (20, 80, 1203, 4585, 20000)
    assert len(ScoreConfig().cases) == 4
    with pytest.raises(UserError, match="Unknown case 'rn50-225'; did you mean 'rn50-224'"):
        ScoreConfig(cases=("rn50-225",))
    with pytest.raises(UserError, match="Unknown row dtype 'fp8'"):
        ScoreConfig(row_dtypes=("fp8",))
    with pytest.raises(UserError, match="Unknown pooling 'mean'"):
        ScoreConfig(poolings=("mean",))
    with pytest.raises(UserError, match="each must be 1 or more"):
        ScoreConfig(classes=(0,))
    with pytest.raises(UserError, match="a full run takes 15 or more"):
        ScoreConfig(rounds=3)


def test_the_command_prints_json_rows_and_records_them(tiny, tmp_path):
    options = ["score", "--quick", "--json", "--device", "cpu", "--rounds", "1", "--rows", "fp16", "--classes", "3,7"]
    result = CliRunner().invoke(app, [*options, "--results", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(list(row)[:10] == FIELDS for row in rows)
    assert {row["classes"] for row in rows} == {3, 7}
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("score-")
    assert read_rows(path) == rows


def test_the_command_prints_a_table_and_records_no_quick_run(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr("tai_benchmarks.protocol.checkout_results", lambda: tmp_path)
    monkeypatch.setattr("tai_engine.cli.output.results.width", 200)
    options = ["score", "--quick", "--device", "cpu", "--rounds", "1", "--rows", "int8", "--classes", "3"]
    result = CliRunner().invoke(app, options, catch_exceptions=False)
    assert result.exit_code == 0
    for word in ("score, images/s: rn50-224/softmax, 3 classes", "times", "int8", "torch-chunked", "published"):
        assert word in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_command_refuses_what_it_cannot_read():
    with pytest.raises(UserError, match="The value of --classes is 'many'; give whole numbers separated by commas"):
        CliRunner().invoke(app, ["score", "--classes", "many"], catch_exceptions=False)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from Linux")
def test_memory_of_ours_does_not_grow_with_the_similarities(monkeypatch):
    # A short embedding makes little work of as many similarities.
    monkeypatch.setitem(score_problem.SHAPES, score_memory.CASE, Shape(196, 64))
    try:
        rows = list(memory_rows(CPU, "softmax", ("fp16",), {"device": "d"}))
    except NotMeasurableError as error:
        pytest.skip(str(error))
    published, ours = (row.as_dict() for row in rows)
    assert list(ours)[:10] == FIELDS
    assert (ours["bench"], ours["candidate"], ours["case"]) == ("score-memory", "tai", "vit-b16-224/softmax/fp16")
    similarities_mb = 4 * score_memory.ITEMS["cpu"][1] * 196 * score_memory.CLASSES / 1e6
    assert ours["similarities_mb"] == pytest.approx(similarities_mb)
    # The measurement sees what is there: the published formulation holds several copies in fp32 of the similarities.
    assert published["growth_per_similarity"] > 8
    assert published["value"] > 2 * similarities_mb
    # Ours holds blocks of a fixed size: no growth but the noise of an allocator.
    assert ours["growth_per_similarity"] < 0.4
    assert ours["value"] < similarities_mb
    assert ours["ratio"] == pytest.approx(published["value"] / ours["value"])
