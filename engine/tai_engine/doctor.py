"""What works on this machine, what does not, and the command that mends it."""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch

from tai_engine.errors import UserError
from tai_engine.picture_kinds import EXTRA, KINDS
from tai_engine.processors import available_cpus

State = Literal["ok", "note", "missing"]
PACKAGES = ("torch", "open_clip_torch", "zarr", "numpy", "triton", "pyarrow", "pillow")
LOW_DISK_BYTES = 10e9


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what was looked at.
        state: ``"ok"``; ``"note"`` for what works with less; ``"missing"`` for what a real job would stumble on.
        detail: what was found.
        remedy: the command or step that mends it, or "".
    """

    subject: str
    state: State
    detail: str
    remedy: str = ""


def examine(model: str, pretrained: str, folder: Path) -> Iterator[Finding]:
    """Look at everything a job of ``model`` with results in ``folder`` needs; no network is used."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _formats,
        _devices,
        _faiss,
        _kernels,
        _int16,
        _compiler,
        lambda: _disk(folder),
        lambda: _weights(model, pretrained),
        _embedded_model,
    )
    for check in checks:
        yield from check()


def _python() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            if name == "triton" and sys.platform != "linux":
                yield Finding(name, "note", "not available on this system; scoring takes the CPU path")
            else:
                yield Finding(name, "missing", "not installed", f"pip install {name}")


def _formats() -> Iterator[Finding]:
    for kind in KINDS:
        if not kind.package:
            continue
        try:
            yield Finding(kind.package, "ok", f"{version(kind.package)}, reads {kind.name}")
        except PackageNotFoundError:
            yield Finding(kind.package, "note", f"not installed, so {kind.name} cannot be read", EXTRA)


def _devices() -> Iterator[Finding]:
    threads, vectors = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    yield Finding("cpu", "ok", f"{available_cpus()} cores, torch uses {threads} threads and {vectors}")
    if not torch.cuda.is_available():
        yield Finding("gpu", "note", f"torch {torch.__version__} sees no CUDA device; all runs on the CPU, slower")
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        capability = f"sm_{properties.major}{properties.minor}"
        yield Finding(f"gpu {index}", "ok", f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, {capability}")


def _faiss() -> Iterator[Finding]:
    try:
        from tai_engine import faiss_library
    except ImportError as error:
        yield Finding("faiss", "missing", f"cannot be imported ({error})", "pip install --force-reinstall faiss-cpu")
        return
    found = faiss_library.faiss_distributions()
    backend = "GPU" if faiss_library.gpu_is_usable() else "CPU"
    if len(found) > 1:
        extra = found[0].split()[0]
        yield Finding(
            "faiss",
            "missing",
            f"{' and '.join(found)} are installed over each other",
            f"pip uninstall {extra} && pip install --force-reinstall {found[-1].split()[0]}",
        )
    else:
        yield Finding("faiss", "ok", f"{found[0] if found else 'unknown build'}, searches on the {backend}")


def _kernels() -> Iterator[Finding]:
    from tai_kernels.scoring import ops

    for backend in ops.describe_backends():
        used = f"in use on {' and '.join(backend.in_use)}: " if backend.in_use else ""
        yield Finding(f"kernel {backend.name}", "ok" if backend.available else "note", used + backend.detail)


def _int16() -> Iterator[Finding]:
    from tai_engine.encoders.devices import has_fast_bf16, has_fast_int16
    from tai_kernels.encoding import int16_layers

    cpu = torch.device("cpu")
    if has_fast_bf16(cpu) or not has_fast_int16(cpu):
        return
    reason = int16_layers.why_not()
    if reason is None:
        yield Finding("int16 layers", "ok", "ResNets encode pictures in int16 on this CPU, which is faster than fp32")
    else:
        yield Finding("int16 layers", "note", f"ResNets encode pictures in fp32, which is slower here: {reason}")


def _compiler() -> Iterator[Finding]:
    from tai_kernels.native_build import UnavailableError, find_compiler

    try:
        yield Finding("compiler", "ok", find_compiler())
    except UnavailableError as error:
        yield Finding("compiler", "note", f"{error}, so there is no compiled CPU kernel", "install g++ or clang++")


def _disk(folder: Path) -> Iterator[Finding]:
    for name, place in (("disk here", folder), ("temporary disk", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(place).free
        state: State = "ok" if free >= LOW_DISK_BYTES else "note"
        room = f"{free / 1e9:.0f} GB free, room for about {free / 104_000:,.0f} pictures of RN50 at 224 px"
        yield Finding(name, state, room, "" if state == "ok" else "free some space, or use --coarse-only")


def _weights(model: str, pretrained: str) -> Iterator[Finding]:
    from tai_engine.encoders import cached_weights

    try:
        place = cached_weights(model, pretrained)
        detail = "not in the local cache; the first job downloads them"
    except UserError as error:
        place, detail = None, str(error)
    if place is not None:
        yield Finding(f"weights of {model} {pretrained}", "ok", str(place))
        return
    yield Finding(
        f"weights of {model} {pretrained}",
        "missing",
        detail,
        "with a network, run any job of this model once; without, copy a folder with open_clip_config.json and "
        "open_clip_model.safetensors here and take --model local-dir:FOLDER",
    )


def _embedded_model() -> Iterator[Finding]:
    from tai_engine.encoders import cached_weights

    try:
        weights = cached_weights("photos", None)
    except UserError:
        weights = None
    if weights is not None:
        yield Finding("embedded model 'photos'", "ok", f"{weights.stat().st_size / 1e6:.1f} MB")
    else:
        yield Finding(
            "embedded model 'photos'",
            "missing",
            "the installation is not whole",
            "pip install --force-reinstall tai-engine",
        )
