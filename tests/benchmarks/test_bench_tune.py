import json
import sys
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from tai_benchmarks import bench_tune, protocol
from tai_benchmarks.bench_tune import TuneConfig, configure, memory_row, run, seconds_row
from tai_benchmarks.mining_problem import HARD, WrongNegativesError, check_mining, mining_problem
from tai_benchmarks.peak_memory import NotMeasurableError
from tai_benchmarks.protocol import Timing, read_rows
from tai_benchmarks.tune_contenders import WrongStepError, check_step
from tai_benchmarks.tune_problem import TowerSize, TuneProblem, class_names, write_store
from tai_engine.cli.bench import app
from tai_engine.errors import UserError
from tai_engine.tuning.negatives.holders import Holders
from tai_engine.tuning.negatives.strategies import HardNegatives
from tai_kernels.scoring import ops

FIELDS = ["bench", "case", "classes", "candidate", "baseline", "value", "unit", "p20", "p80", "ratio"]
TINY = TowerSize(width=32, heads=2, layers=2, dim=24)
CONFIG = TuneConfig(
    cases=("step", "mining"),
    classes=7,
    sentences=12,
    rounds=2,
    size=TINY,
    mined_sentences=900,
    mined_dim=16,
    quick=True,
)


@pytest.fixture(autouse=True)
def _short_samples(monkeypatch):
    monkeypatch.setattr(protocol, "_SHORTEST_SAMPLE_SECONDS", {"cpu": 1e-4, "cuda": 1e-4})


@pytest.fixture(scope="module")
def problem():
    return TuneProblem(7, 12, TINY)


def test_our_step_is_the_published_one(problem):
    assert 0 < check_step(problem) < 1e-4


def test_a_step_that_is_wrong_is_not_timed(problem, monkeypatch):
    real = ops.score
    monkeypatch.setattr(ops, "score", lambda *rows, **settings: real(*rows, **settings | {"temperature": 49.0}))
    with pytest.raises(WrongStepError):
        check_step(problem)
    with pytest.raises(WrongStepError):
        next(run(replace(CONFIG, cases=("step",))))


def test_sentences_have_the_published_length(problem):
    tokens = problem.sentence_tokens(4000)
    lengths = (tokens != 0).sum(dim=1)
    assert float(lengths.float().mean()) == pytest.approx(13.5, abs=0.1)
    assert int(lengths.min()) >= 8
    assert bool((tokens.argmax(dim=1) + 1 == lengths).all())  # the end of text is the last token
    labels = problem.labels(200)
    assert {len(classes) for classes in labels} == {1, 2, 3}
    assert max(c for classes in labels for c in classes) == 6


def test_names_of_many_classes():
    names = class_names(4585)
    assert len(set(names)) == 4585
    assert names[0] == "person"
    with pytest.raises(ValueError, match="not for 9999"):
        class_names(9999)


def test_the_store_holds_batches_of_the_problem(problem, tmp_path):
    store = write_store(tmp_path / "s.zarr", problem, 3)
    assert store.counts() == {"done": 36, "failed": 0}
    lengths = (problem.sentence_tokens(12) != 0).sum(dim=1)
    assert torch.equal(store.read_group(2).counts, lengths)
    assert [item.labels for item in store.items(1)] == problem.labels(12)


def test_mining_is_checked_against_brute_force():
    vectors, labels, queries = mining_problem(900, 16, 7)
    strategy = HardNegatives(vectors, Holders.from_dense(labels), HARD)
    check_mining(strategy, vectors, labels, queries)
    with pytest.raises(WrongNegativesError, match="mined for class 0"):
        check_mining(strategy, vectors.flip(0) * 0.9, labels, queries)


def test_a_run_measures_steps_and_mining():
    remarks = []
    rows = [row.as_dict() for row in run(CONFIG, remarks.append)]
    assert all(list(row)[:10] == FIELDS for row in rows)
    assert [(row["case"], row["candidate"], row["baseline"], row["unit"]) for row in rows] == [
        ("step/12-sentences", "published", "published", "s/step"),
        ("step/12-sentences", "tai", "published", "s/step"),
        ("mining/900-sentences", "gemm", "torch-topk", "s/refresh"),
        ("mining/900-sentences", "torch-topk", "torch-topk", "s/refresh"),
        ("mining/900-sentences", "tai", "torch-topk", "s/refresh"),
    ]
    assert all(row["value"] > 0 and row["p20"] <= row["value"] <= row["p80"] for row in rows)
    assert rows[0]["ratio"] == rows[3]["ratio"] == 1.0
    assert rows[1]["gradient_error"] < 1e-4
    assert rows[1]["tower_width"] == 32
    assert any("gradients agree within" in remark for remark in remarks)


def test_a_row_by_hand():
    row = seconds_row(
        "c", 7, ("tai", Timing((4.0, 2.0, 6.0), 2)), ("published", Timing((10.0, 30.0, 20.0), 1)), "s", {}
    )
    assert (row.value, row.ratio, row.p20, row.p80) == (2.0, 10.0, pytest.approx(1.4), pytest.approx(2.6))
    assert row.extra["rounds"] == 3


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="the peak of memory is not told")
def test_memory_is_that_of_a_process_of_its_own():
    row = memory_row(replace(CONFIG, memory_classes=9, memory_steps=2), {"device": "d"})
    assert (row.bench, row.candidate, row.classes, row.unit) == ("tune-memory", "tai", 9, "GB")
    assert 0.1 < row.value < 8  # torch alone takes some hundred megabytes
    assert row.ratio == pytest.approx(8 / row.value)
    assert row.extra["seconds_per_step"] > 0


def test_memory_that_cannot_be_measured_is_left_out(monkeypatch):
    def fail(*_):
        raise NotMeasurableError("it does not tell")

    monkeypatch.setattr(bench_tune, "memory_row", fail)
    remarks = []
    assert list(run(replace(CONFIG, cases=("memory",)), remarks.append)) == []
    assert remarks[-1] == "memory is left out: it does not tell"


def test_configuration():
    assert configure(quick=False) == TuneConfig()
    full = TuneConfig()
    assert (full.cases, full.classes, full.sentences, full.memory_classes) == (bench_tune.CASES, 80, 512, 4585)
    assert (full.mined_sentences, full.mined_dim, full.size) == (100_000, 512, TowerSize(512, 8, 12, 1024, 77))
    quick = configure(quick=True, classes=5)
    assert (quick.cases, quick.classes, quick.quick) == (("step", "mining"), 5, True)
    with pytest.raises(UserError, match="Unknown case 'steps'; did you mean 'step'"):
        TuneConfig(cases=("steps",))
    with pytest.raises(UserError, match="rounds is 0"):
        TuneConfig(rounds=0)


def test_the_command_prints_rows_and_records_them(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_tune, "configure", lambda **_: CONFIG)
    options = ["tune", "--quick", "--json", "--results", str(tmp_path)]
    result = CliRunner().invoke(app, options, catch_exceptions=False)
    assert result.exit_code == 0
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["candidate"] for row in rows] == ["published", "tai", "gemm", "torch-topk", "tai"]
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("tune-")
    assert list(read_rows(path)) == rows
