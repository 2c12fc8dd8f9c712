"""Which code computes a call: chosen by device, or forced by the environment variable ``TAI_KERNEL``."""

from __future__ import annotations

import difflib
import importlib.util
import os
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from tai_kernels.scoring import cpu_score, reference
from tai_kernels.scoring.call import ScoreCall, ScoreResult

FORCE_VARIABLE = "TAI_KERNEL"

CHOICES: dict[str, str] = {
    "reference": "eager fp32 on any device; writes the [N, L, C] similarities out, for checking",
    "triton": "fused Triton kernels on a GPU",
    "cpu": "the compiled CPU path when it can be built, else torch",
    "compiled": "fused C++ for CPUs, built on first use",
    "torch": "blocks of plain torch on any device",
}
"""What ``TAI_KERNEL`` may say."""


class Backend(Protocol):
    """What a module offers to be a backend."""

    def forward(self, call: ScoreCall, *, parts: bool = True, save: bool = False) -> ScoreResult:
        """Scores; see ``cpu_score.forward``."""

    def pooled_gradient(self, call: ScoreCall, values_NC: Tensor, state_NC: Tensor, grad_NC: Tensor) -> Tensor:
        """Gradient w.r.t. the local class vectors; see ``cpu_score.pooled_gradient``."""


@dataclass(frozen=True)
class BackendStatus:
    """One backend on this machine, for people to read.

    Attributes:
        name: as ``TAI_KERNEL`` spells it.
        available: whether it can run here.
        detail: what it is, or why it cannot run.
        in_use: the devices, of this machine's, that it serves by default or by force.
    """

    name: str
    available: bool
    detail: str
    in_use: tuple[str, ...]


def forced_choice() -> str | None:
    """The value of ``TAI_KERNEL``, or None when it is not set.

    Raises:
        ValueError: for an unknown name, listing the known ones, close matches first.
    """
    name = os.environ.get(FORCE_VARIABLE, "").strip().lower()
    if not name:
        return None
    if name not in CHOICES:
        close = difflib.get_close_matches(name, CHOICES, n=2)
        hint = f"did you mean {' or '.join(map(repr, close))}? The choices are" if close else "choose one of"
        raise ValueError(f"{FORCE_VARIABLE}={name!r} is not known; {hint} {', '.join(map(repr, CHOICES))}.")
    return name


def why_not_triton(device: torch.device) -> str | None:
    """Why Triton kernels cannot run on ``device``, or None when they can."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if device.type == "cuda":
        return None
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return (
        f"Triton kernels need a GPU, not {device.type!r}; "
        "set TRITON_INTERPRET=1 before Python starts to run them slowly in Triton's interpreter"
    )


def why_not_compiled(device: torch.device) -> str | None:
    """Why the compiled CPU path cannot run on ``device``, or None when it can (this builds it if need be)."""
    if device.type != "cpu":
        return f"the compiled path is for CPUs but the tensors are on {device.type!r}"
    from tai_kernels.scoring import native_score

    return native_score.why_not()


def choose(device: torch.device) -> str:
    """The backend for tensors on ``device``: "reference", "triton", "compiled" or "torch".

    Raises:
        ValueError: for an unknown ``TAI_KERNEL``.
        RuntimeError: when the forced backend cannot run here; the message says why.
    """
    forced = forced_choice()
    if forced in ("reference", "torch"):
        return forced
    if forced == "triton" or (forced is None and device.type == "cuda"):
        reason = why_not_triton(device)
        if reason is None:
            return "triton"
        if forced is not None:
            raise RuntimeError(f"{FORCE_VARIABLE}=triton cannot be used: {reason}.")
        return "torch"
    if forced == "cpu" and device.type != "cpu":
        raise RuntimeError(f"{FORCE_VARIABLE}=cpu cannot be used: the tensors are on {device.type!r}.")
    reason = why_not_compiled(device)
    if forced == "compiled" and reason is not None:
        raise RuntimeError(f"{FORCE_VARIABLE}=compiled cannot be used: {reason}.")
    return "torch" if reason is not None else "compiled"


def load(name: str) -> Backend:
    """The module behind a name that ``choose`` returned."""
    if name == "reference":
        return cast("Backend", reference)
    if name == "torch":
        return cast("Backend", cpu_score)
    if name == "compiled":
        from tai_kernels.scoring import native_score

        return cast("Backend", native_score)
    from tai_kernels.scoring import triton_score

    return cast("Backend", triton_score)


def describe_backends() -> tuple[BackendStatus, ...]:
    """Every backend, whether it runs on this machine, and where it is in use.

    Raises:
        ValueError: for an unknown ``TAI_KERNEL``.
    """
    devices = [torch.device("cpu")] + ([torch.device("cuda")] if torch.cuda.is_available() else [])
    used: dict[str, list[str]] = {name: [] for name in CHOICES}
    for device in devices:
        try:
            used[choose(device)].append(device.type)
        except RuntimeError:  # forced to something that this device cannot do: in use nowhere
            continue
    from tai_kernels.scoring import native_score

    no_triton = why_not_triton(devices[-1])
    no_compiled = why_not_compiled(devices[0])
    details = {
        "reference": (True, CHOICES["reference"]),
        "torch": (True, CHOICES["torch"]),
        "compiled": (no_compiled is None, no_compiled or native_score.describe()),
        "triton": (no_triton is None, no_triton or CHOICES["triton"]),
    }
    return tuple(BackendStatus(name, *details[name], tuple(used[name])) for name in details)
