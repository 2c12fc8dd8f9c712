import json
import math
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tai_benchmarks.protocol import (
    BenchRow,
    Candidate,
    Timing,
    checkout_results,
    json_line,
    measure,
    read_rows,
    record,
    throughput_row,
)
from tai_engine.errors import UserError

CPU = torch.device("cpu")


def row(**changed) -> BenchRow:
    fields = {
        "bench": "b", "case": "c", "classes": 3, "candidate": "tai", "baseline": "published", "value": 2.0,
        "unit": "images/s", "p20": 1.0, "p80": 3.0, "ratio": 4.0, "extra": {"device": "d"},
    }  # fmt: skip
    return BenchRow(**(fields | changed))


class FakeClock:
    """Every call of candidate x takes the next of its seconds; remembers the order of calls."""

    def __init__(self, seconds):
        self.seconds, self.order = seconds, []

    def candidates(self, items=1.0):
        return {name: Candidate(lambda name=name: name, items) for name in self.seconds}

    def __call__(self, run, repeats):
        name = run()
        self.order.append((name, repeats))
        seconds = self.seconds[name]
        return seconds.pop(0) * repeats if isinstance(seconds, list) else seconds * repeats


def test_throughput_is_the_quantile_of_the_rates_by_hand():
    timing = Timing(seconds=(1.0, 2.0, 4.0), items=8)  # rates 8, 4, 2
    assert timing.throughput() == 4.0
    assert timing.throughput(0.0) == 2.0
    assert timing.throughput(1.0) == 8.0
    assert timing.throughput(0.2) == pytest.approx(2.8)  # 2 + 0.4 * (4 - 2)
    assert timing.throughput(0.8) == pytest.approx(6.4)


@settings(deadline=None)  # no timing decides a test
@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=20))
def test_quantiles_are_ordered(seconds):
    timing = Timing(tuple(seconds), 10)
    assert timing.throughput(0.2) <= timing.throughput() <= timing.throughput(0.8)


def test_throughput_row_by_hand():
    found = throughput_row(
        "score", "case", 20, ("tai", Timing((1.0, 1.0), 8)), ("published", Timing((2.0, 6.0), 4)), "images/s", {"x": 1}
    )
    assert list(found.as_dict()) == [
        "bench", "case", "classes", "candidate", "baseline", "value", "unit", "p20", "p80", "ratio", "rounds", "x",
    ]  # fmt: skip
    assert found.value == found.p20 == found.p80 == 8.0
    assert found.ratio == pytest.approx(8.0 / ((2 + 4 / 6) / 2))  # the median of two is the middle between them
    assert found.as_dict()["rounds"] == 2


def test_extra_fields_may_not_hide_the_rows_own():
    with pytest.raises(AssertionError, match="value"):
        row(extra={"value": 1}).as_dict()


def test_json_has_six_digits_and_one_line():
    line = json_line(row(value=1234.56789).as_dict())
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert json.loads(line)["value"] == 1234.57


def test_rounds_are_interleaved_and_rotate():
    clock = FakeClock({"a": 1.0, "b": 1.0, "c": 1.0})
    timings = measure(clock.candidates(), CPU, rounds=4, clock=clock)
    names = [name for name, _ in clock.order]
    assert names == list("abcabcbcacababc")  # one call each before the rounds
    assert {name: len(t.seconds) for name, t in timings.items()} == {"a": 4, "b": 4, "c": 4}


def test_short_calls_are_repeated_until_a_sample_is_measurable():
    clock = FakeClock({"slow": 1.0, "fast": [0.15, 1e-3, 1e-3]})  # fast is slow at first
    timings = measure(clock.candidates(), CPU, rounds=1, clock=clock)
    assert clock.order == [("slow", 1), ("fast", 1), ("fast", 1), ("slow", 1), ("fast", 60)]
    assert timings["fast"].seconds == pytest.approx((1e-3,))


def test_samples_land_with_their_candidate():
    clock = FakeClock({"a": [9.0, 1.0, 2.0, 3.0], "b": [9.0, 10.0, 20.0, 30.0]})
    timings = measure(clock.candidates(items=2.0), CPU, rounds=3, clock=clock)
    assert timings["a"] == Timing((1.0, 2.0, 3.0), 2.0)
    assert timings["b"] == Timing((10.0, 20.0, 30.0), 2.0)


def test_time_that_is_used_up_leaves_the_fewest_rounds():
    clock = FakeClock({"a": 1.0})
    assert len(measure(clock.candidates(), CPU, rounds=9, seconds=-1.0, clock=clock)["a"].seconds) == 3
    assert len(measure(clock.candidates(), CPU, rounds=2, seconds=-1.0, clock=clock)["a"].seconds) == 2


def test_the_real_clock_measures_a_sleep():
    timing = measure({"sleep": Candidate(lambda: time.sleep(0.01), 1.0)}, CPU, rounds=2)["sleep"]
    assert min(timing.seconds) >= 0.01
    assert all(math.isfinite(s) for s in timing.seconds)


def test_a_checkout_has_a_place_for_rows():
    results = checkout_results()
    assert results == Path(__file__).parents[2] / "benchmarks" / "results"
    assert results.is_dir()


def test_record_replaces_the_same_row_and_keeps_the_others(tmp_path):
    first = [row(), row(candidate="torch"), row(baseline="fastest-torch")]
    path = record(first, tmp_path / "new", "amd-epyc")
    assert path == tmp_path / "new" / "b-amd-epyc.jsonl"
    record([row(value=7.0), row(classes=80)], tmp_path / "new", "amd-epyc")
    rows = read_rows(path)
    assert [(r["candidate"], r["baseline"], r["classes"], r["value"]) for r in rows] == [
        ("tai", "published", 3, 7.0),
        ("torch", "published", 3, 2.0),
        ("tai", "fastest-torch", 3, 2.0),
        ("tai", "published", 80, 2.0),
    ]
    assert [p.name for p in path.parent.iterdir()] == ["b-amd-epyc.jsonl"]


def test_record_refuses_two_benches_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"\['a', 'b'\]"):
        record([row(), row(bench="a")], tmp_path, "d")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["not json\n", "[1]\n", '{"bench": "b"}\n'])
def test_a_file_of_something_else_is_left_alone(tmp_path, text):
    path = tmp_path / "b-d.jsonl"
    path.write_text(json_line(row().as_dict()) + text, encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"Line 2 of .*b-d\.jsonl.* is not a benchmark row"):
        record([row()], tmp_path, "d")
    assert path.read_bytes() == before
