"""Options take numbers: what Python reads as infinite, or as no number at all, no command has a use for."""

from __future__ import annotations

import math
from typing import Any

from tai_engine.errors import UserError


def refuse_infinite(command: Any) -> None:
    """Have every option of a command, and of those below it, refuse ``nan`` and ``inf``.

    Args:
        command: as typer makes it of an application.
    """
    for below in getattr(command, "commands", {}).values():
        refuse_infinite(below)
    for parameter in command.params:
        if parameter.callback is None:
            parameter.callback = _finite


def _finite(_context: Any, parameter: Any, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{max(parameter.opts, key=len)} is {value}; give a number.")
    return value
