"""Builds the compiled CPU paths and keeps them: plain shared libraries made by the machine's own compiler.

Each is built once, on first use, into the user's cache under a name that holds a digest of the sources, the compiler's
command and the processor's features; a library of another machine that shares the home directory is thus never loaded.
They use no torch headers, so a new torch needs no new build.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import torch

_SOURCES = Path(__file__).parent / "native"
_COMPILERS = ("c++", "g++", "clang++")
_COMPILE_SECONDS = 180
_TUNED = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
_FLAGS = (_TUNED, "-std=c++20", "-O3", "-fno-math-errno", "-fPIC", "-shared", "-pthread")


Loaded = TypeVar("Loaded")


class UnavailableError(Exception):
    """The compiled path cannot be had; the message says why."""


class OnFirstUse(Generic[Loaded]):
    """A library that is built and loaded when it is first wanted; the outcome is remembered for the process's life."""

    def __init__(self, load: Callable[[Path], Loaded]) -> None:
        """``load`` builds in a folder and loads; it raises `UnavailableError` or ``OSError``."""
        self._load = load
        self._lock = threading.Lock()
        self._outcome: Loaded | str | None = None

    def get(self) -> Loaded:
        """The library.

        Raises:
            UnavailableError: saying why there is none.
        """
        with self._lock:
            if self._outcome is None:
                try:
                    self._outcome = self._load(cache_folder())
                except UnavailableError as error:
                    self._outcome = str(error)
                except OSError as error:
                    self._outcome = f"building it failed: {error}"
            if isinstance(self._outcome, str):
                raise UnavailableError(self._outcome)
            return self._outcome

    def why_not(self) -> str | None:
        """Why there is none, or None when there is one."""
        try:
            self.get()
        except UnavailableError as error:
            return str(error)
        return None


def cache_folder() -> Path:
    """Where builds are kept: in the user's cache, as torch and Hugging Face find it on every system."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tai-engine" / "kernels"


def find_compiler() -> str:
    """The C++ compiler: ``CXX`` if set, else the first of the usual names.

    Raises:
        UnavailableError: when there is none.
    """
    wanted = os.environ.get("CXX", "").split()
    names = (wanted[0],) if wanted else _COMPILERS
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    raise UnavailableError(f"no C++ compiler was found ({', '.join(names)})")


def processor_features() -> str:
    """Everything that decides which instructions ``-march=native`` may use."""
    features = (
        f"{platform.system()} {platform.machine()} {platform.processor()} {torch.backends.cpu.get_cpu_capability()}"
    )
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        kinds = ("model", "flags", "Features", "CPU part", "vendor_id")
        features += "\n".join(sorted({line for line in lines if line.split(":")[0].strip() in kinds}))
    return features


def built_library(folder: Path, source: str, definitions: tuple[str, ...] = ()) -> tuple[Path, str]:
    """The library's file in ``folder``, built there if it is not yet, and the compiler's path.

    Args:
        folder: made if need be.
        source: its name among the sources, e.g. ``"score.cpp"``.
        definitions: further compiler options, e.g. ``("-DTAI_EMULATE_AMX",)``.

    Raises:
        UnavailableError: when there is no compiler, or it fails.
        OSError: when the folder cannot be written.
    """
    compiler = find_compiler()
    command = [compiler, *_FLAGS, *definitions]
    digest = hashlib.sha256()
    for part in (processor_features(), *command, *(f.read_text(encoding="utf-8") for f in sorted(_SOURCES.iterdir()))):
        digest.update(hashlib.sha256(part.encode()).digest())
    path = folder / f"{Path(source).stem}-{digest.hexdigest()[:20]}.so"
    if not path.exists():
        _build([*command, str(_SOURCES / source)], path)
    return path, compiler


def opened(path: Path, job_bytes: int) -> ctypes.CDLL:
    """The library at ``path``, whose ``tai_job_bytes`` must be ``job_bytes``.

    Raises:
        UnavailableError: when it cannot be loaded or its structures are other ones.
    """
    try:
        functions = ctypes.CDLL(str(path))
    except OSError as error:
        raise UnavailableError(f"the built library {path} cannot be loaded: {error}") from error
    functions.tai_job_bytes.restype = ctypes.c_int64
    if functions.tai_job_bytes() != job_bytes:
        raise UnavailableError(f"the built library {path} does not fit this version; delete it")
    return functions


def _build(command: list[str], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".so", dir=path.parent)
    os.close(handle)
    try:
        command = [*command, "-o", name]
        run = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False)
        if run.returncode != 0:
            problem = next((line for line in run.stderr.splitlines() if "error" in line), run.stderr.strip()[:300])
            raise UnavailableError(f"{command[0]} failed: {problem}")
        with Path(name).open("rb") as file:
            os.fsync(file.fileno())
        # Several processes may build at once: each renames a whole file, and all are alike.
        Path(name).replace(path)
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{command[0]} took more than {_COMPILE_SECONDS} s") from error
    finally:
        Path(name).unlink(missing_ok=True)
