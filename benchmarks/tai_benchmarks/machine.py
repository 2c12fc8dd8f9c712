"""The machine that a benchmark runs on: what it is, and its own limits, measured in the candidates' own rounds."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from tai_benchmarks.protocol import Candidate, Timing, Value
from tai_engine.errors import UserError
from tai_kernels.processor import has_amx, has_fast_bf16

COPY = "copy"
_GEMM = "gemm of "
_CPU_COPY_BYTES, _CUDA_COPY_BYTES = 128 << 20, 1 << 30  # several times the last-level cache
_CPU_GEMM_SIZE, _CUDA_GEMM_SIZE = 1024, 8192

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """``auto`` is the GPU when there is one.

    Raises:
        UserError: for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if not re.fullmatch(r"cuda(:\d+)?", name):
        raise UserError(f"The device is {name!r}; choose auto, cpu, cuda or cuda:N.")
    device = torch.device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise UserError(f"The device is {name!r}, but torch sees {count} CUDA devices; choose cpu or auto.")
    return device


def device_name(device: torch.device) -> str:
    """The processor's own name, e.g. ``"NVIDIA H100 80GB HBM3"``; a CPU's with its vector units and threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
        model = found.group(1).strip() if found else ""
    model = model or platform.processor() or platform.machine()
    vectors = "AMX" if has_amx() else torch.backends.cpu.get_cpu_capability()
    return f"{model}, {vectors}, {torch.get_num_threads()} threads"


def slug(name: str) -> str:
    """A device's name as a part of a file name: lower case, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def environment(device: torch.device) -> dict[str, Value]:
    """Device, versions, commit and date, as they go into every row; and how many others wanted the CPU at that time."""
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "tai_engine": _version("tai-engine"),
        "commit": commit(Path(__file__).parent),
        "date": datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds"),
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"


def commit(folder: Path) -> str:
    """The checkout's commit, ``-dirty`` when tracked files differ from it; ``unknown`` outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return head + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def is_native(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the device multiplies matrices of ``dtype`` in hardware; elsewhere it is far slower than fp32."""
    if dtype == torch.float32:
        return True
    if device.type == "cuda":
        return dtype == torch.float16 or torch.cuda.get_device_capability(device) >= (8, 0)
    return dtype == torch.bfloat16 and has_fast_bf16()


def probes(device: torch.device) -> dict[str, Candidate]:
    """Candidates that measure the machine: a copy of memory, and a square matrix product in each native dtype.

    fp32 products are fp32 products: torch's default, without TF32.
    """
    on_gpu = device.type == "cuda"
    source = torch.ones(_CUDA_COPY_BYTES if on_gpu else _CPU_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    found = {COPY: Candidate(lambda: target.copy_(source), 2 * source.nbytes)}
    size = _CUDA_GEMM_SIZE if on_gpu else _CPU_GEMM_SIZE
    for name, dtype in DTYPES.items():
        if is_native(dtype, device):
            found[_GEMM + name] = _gemm(size, dtype, device)
    return found


def _gemm(size: int, dtype: torch.dtype, device: torch.device) -> Candidate:
    # Random, not zeros: a processor under a power limit multiplies zeros faster.
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    out = torch.empty_like(left)
    return Candidate(lambda: torch.mm(left, right, out=out), 2 * size**3)


@dataclass(frozen=True)
class Limits:
    """What the machine can do at most, as it showed in the same rounds.

    Attributes:
        copy_bytes_per_second: bytes read plus bytes written.
        gemm_flops_per_second: by dtype name, native ones only.
    """

    copy_bytes_per_second: float
    gemm_flops_per_second: dict[str, float]

    @staticmethod
    def of(timings: dict[str, Timing]) -> Limits:
        """The limits among the timings of a run whose candidates include ``probes``."""
        gemms = {name.removeprefix(_GEMM): t.throughput() for name, t in timings.items() if name.startswith(_GEMM)}
        return Limits(timings[COPY].throughput(), gemms)

    def gemm_for(self, row_dtype: str) -> float:
        """The rate that rows of ``row_dtype`` allow: fp32's for fp32 rows, else the fastest of the machine."""
        rates = self.gemm_flops_per_second
        return rates["fp32"] if row_dtype == "fp32" else max(rates.values())

    def as_fields(self) -> dict[str, Value]:
        """For a row's extra fields."""
        rates = {f"machine_gemm_{name}_gflops": rate / 1e9 for name, rate in self.gemm_flops_per_second.items()}
        return {"machine_copy_gb_s": self.copy_bytes_per_second / 1e9, **rates}
