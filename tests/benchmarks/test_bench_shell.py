import pytest

from tai_benchmarks import bench_shell
from tai_benchmarks.bench_shell import FailedCommandError, ShellConfig, configure, run
from tai_engine.errors import UserError


@pytest.mark.slow
def test_seconds_of_commands():
    rows = list(run(ShellConfig(cases=("help",), rounds=3)))
    assert [(row.case, row.candidate, row.baseline, row.unit) for row in rows] == [
        ("help", "bare-python", "bare-python", "s"),
        ("help", "tai", "bare-python", "s"),
    ]
    bare, ours = rows
    assert bare.ratio == pytest.approx(1)
    assert ours.ratio == pytest.approx(bare.value / ours.value)
    assert ours.p20 <= ours.value <= ours.p80


def test_a_command_that_fails_is_not_timed(monkeypatch):
    monkeypatch.setattr(bench_shell, "TAI", ("-c", "raise SystemExit(3)"))
    with pytest.raises(FailedCommandError, match="--help ended with 3"):
        list(run(ShellConfig(cases=("help",), rounds=3)))


def test_what_can_be_asked_for():
    assert configure(quick=True).pictures == 50
    assert configure(quick=True, pictures=7).pictures == 7
    assert configure(quick=False) == ShellConfig()
    with pytest.raises(UserError, match="Unknown case"):
        ShellConfig(cases=("halp",))
    with pytest.raises(UserError, match="3 rounds"):
        ShellConfig(rounds=2)
