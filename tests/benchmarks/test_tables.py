from importlib import import_module
from pathlib import Path

import pytest

from tai_benchmarks.protocol import BenchRow, read_rows
from tai_benchmarks.tables import percent, plain, tables
from tai_engine.cli.output import print_narrow_table, results

RECORDED = Path(__file__).parents[2] / "benchmarks" / "results"
NAMES = ("score", "encode", "tune", "cache", "corpus")
BENCHES = {name: import_module(f"tai_benchmarks.bench_{name}") for name in NAMES}


def row(
    case: str, candidate: str, value: float = 2.0, baseline: str = "published", ratio: float = 1.0, **extra: float
) -> BenchRow:
    return BenchRow("score", case, 20, candidate, baseline, value, "images/s", 0.9 * value, 1.2 * value, ratio, extra)


def test_what_is_shared_stands_in_the_title_and_two_baselines_in_one_line():
    rows = [
        row("rn50/max/fp32", "published", 7766.6, share=0.089),
        row("rn50/max/fp32", "tai", 56_002.4, ratio=7.2105, share=0.64),
        row("rn50/max/fp32", "tai", 56_002.4, "fastest-torch", 2.0, share=0.64),
        row("rn50/max/int8", "tai", 61_193.0, ratio=7.879),
        row("rn50/softmax/int8", "tai", 0.0937),
    ]
    first, second = tables(rows, {"gemm": lambda one: percent(one.extra.get("share"))})
    assert first.title == "score, images/s: rn50/max, 20 classes"
    assert first.headings == ("candidate", "case", "images/s", "±", "times published", "times fastest torch", "gemm")
    assert first.lines == [
        ("published", "fp32", "7,767", "15%", "1.00", "", "9%"),
        ("tai", "fp32", "56,002", "15%", "7.21", "2.00", "64%"),
        ("tai", "int8", "61,193", "15%", "7.88", "", ""),
    ]
    assert second.title == "score, images/s: rn50/softmax/int8, 20 classes"
    assert second.headings == ("candidate", "images/s", "±", "times published", "gemm")
    assert second.lines == [("tai", "0.0937", "15%", "1.00", "")]


def test_no_rows_are_no_table():
    assert list(tables([], {})) == []


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0"), (56_123.4, "56,123"), (999.6, "1,000"), (7.2149, "7.21"), (0.09371, "0.0937"), (1e-5, "0.0000100"),
     (-3.0, "-3.00"), (float("nan"), "nan"), (float("inf"), "inf")],
)  # fmt: skip
def test_numbers_have_no_exponent(value, said):
    assert plain(value) == said


@pytest.mark.parametrize("name", NAMES)
def test_tables_of_what_was_recorded_fit_into_80_columns(name, capsys, monkeypatch):
    rows = []
    for path in sorted(RECORDED.glob(f"{name}-*.jsonl")):
        for found in read_rows(path):
            own = {key: found.pop(key) for key in BenchRow.__dataclass_fields__ if key != "extra"}
            rows.append(BenchRow(**own, extra=found))
    assert rows
    monkeypatch.setattr(results, "width", 80)
    for table in tables(rows, BENCHES[name].TABLE):
        print_narrow_table(*table)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert "…" not in "".join(lines)
        words = " ".join(lines).split()
        assert {part for heading in table.headings for part in heading.split()} <= set(words)
        assert {cell for line in table.lines for cell in line[:1] if cell} <= set(words)
