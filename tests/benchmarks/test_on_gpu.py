import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tai_benchmarks import on_gpu as gpu
from tai_benchmarks.steps import Step
from tai_engine.cli.bench import app


def python(code: str, seconds: float = 60.0, needs: tuple[str, ...] = ()) -> Step:
    return Step("a step", seconds, ("-c", code), needs)


def test_how_a_step_went_is_said():
    assert gpu.run(python("")) == "done"
    assert gpu.run(python("raise SystemExit(3)")) == "failed with status 3"
    assert gpu.run(python("raise SystemExit(3)", needs=("sys", "no_such_package"))) == (
        "left out: no_such_package not installed"
    )


def test_a_step_out_of_time_may_still_write_what_it_has(tmp_path: Path):
    code = f"""
import time
from pathlib import Path
try:
    time.sleep(600)
finally:
    Path({str(tmp_path / "rows")!r}).write_text("kept")
"""
    assert gpu.run(python(code, seconds=2.0)) == "out of time after 2 s"
    assert (tmp_path / "rows").read_text() == "kept"


def test_a_step_that_does_not_stop_is_stopped():
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    assert gpu.run(python(code, seconds=2.0), last_seconds=0.2) == "out of time after 2 s"


def test_all_steps_together_take_less_than_eight_minutes_and_know_the_commands_options(tmp_path: Path):
    found = gpu.steps(tmp_path)
    assert sum(step.seconds for step in found) <= gpu.ALL_SECONDS <= 8 * 60 - 15
    benches = [step for step in found if "bench" in step.arguments]
    assert {step.arguments[step.arguments.index("bench") + 1] for step in benches} == {"score", "tune", "encode"}
    for step in benches:
        given = list(step.arguments[step.arguments.index("bench") + 1 :])
        outcome = CliRunner().invoke(app, [*given, "--help"])
        assert outcome.exit_code == 0
        for option in given:
            assert not option.startswith("--") or option in outcome.output


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="torch sees none here"):
        gpu.main()
