"""Programs of others that some tests ask: a test says what it goes without, the end of the run says it of all."""

from __future__ import annotations

from typing import NoReturn

import pytest

LACKING: dict[str, str] = {}
"""What tests of this run went without, and how it is had."""


def go_without(program: str, advice: str) -> NoReturn:
    """Skip the test that runs, for want of ``program``."""
    LACKING[program] = advice
    pytest.skip(f"needs {program}: {advice}")


def summary() -> str | None:
    """The line for the end of the run; None when nothing was lacking."""
    if not LACKING:
        return None
    listed = "; ".join(f"{program} ({advice})" for program, advice in sorted(LACKING.items()))
    return f"Not asked, because they are not here: {listed}."
