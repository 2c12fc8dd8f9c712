"""Steps of a long measurement, each a process of its own with a time limit: one that fails does not stop the others."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

TAI = ("-c", "from tai_engine.cli.main import main; main()")
"""Python's arguments for the command ``tai``, installed or not."""

_ROOT = Path(__file__).parents[2]
_LAST_SECONDS = 15.0


class Step(NamedTuple):
    """One thing to do: what it is called, the seconds it may take, Python's arguments, and packages that it needs."""

    name: str
    seconds: float
    arguments: Sequence[str]
    needs: Sequence[str] = ()


def missing(step: Step) -> list[str]:
    """The packages that a step needs and that are not installed."""
    return [name for name in step.needs if find_spec(name) is None]


def run(step: Step, last_seconds: float = _LAST_SECONDS) -> str:
    """Do it, and say how it went: ``done``, ``failed``, ``out of time``, or what it would have needed."""
    absent = missing(step)
    if absent:
        return f"left out: {', '.join(absent)} not installed"
    process = subprocess.Popen([sys.executable, *step.arguments], cwd=_ROOT)
    try:
        status = process.wait(step.seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # so that it can record what it has
        try:
            process.wait(last_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return f"out of time after {step.seconds:g} s"
    return "done" if status == 0 else f"failed with status {status}"
