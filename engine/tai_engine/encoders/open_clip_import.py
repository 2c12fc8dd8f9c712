"""open_clip, imported without torch's compiler, which its libraries ask for and nothing here uses.

torchvision wants one function of the compiler (torch._dynamo), and timm has it pass over some methods. Loading it, and
with it Triton and SymPy, would take 160 MB and one to two seconds of every command. A program that itself compiles
timm's models imports torch._dynamo or open_clip before this package; then nothing is done here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo.utils"


class _Later(ModuleType):
    """Stands in for the module while open_clip is loaded; whatever is really wanted of it is the module's own."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {_COMPILER!r} has no attribute {name!r} yet")
        return getattr(_compiler(), name)


def import_open_clip() -> None:
    """Import open_clip, unless that or the compiler is there already; the compiler comes when it is first used."""
    if "open_clip" in sys.modules or "torch._dynamo" in sys.modules:
        return
    torch: Any = import_module("torch")
    later = _Later(_COMPILER)
    later.__dict__["is_compile_supported"] = lambda device: _compiler().is_compile_supported(device)
    sys.modules[_COMPILER], disable = later, torch.compiler.disable
    torch.compiler.disable = _as_it_is
    try:
        import_module("open_clip")
    finally:
        torch.compiler.disable = disable
        _remove()


def _as_it_is(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
    """What the compiler is not to touch it does not: it never runs here."""
    return _as_it_is if function is None else function


def _compiler() -> Any:
    _remove()
    return import_module(_COMPILER)


def _remove() -> None:
    if isinstance(sys.modules.get(_COMPILER), _Later):
        del sys.modules[_COMPILER]
