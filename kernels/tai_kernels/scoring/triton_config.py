"""Launch configurations: fixed ones by bucket of shapes, or, on request, measured ones that are kept on disk.

With ``TAI_KERNEL_AUTOTUNE=1`` the first call of each bucket times every candidate on the GPU and records the fastest in
the user's cache, for that GPU model and Triton version. This module needs no Triton until something is measured.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

AUTOTUNE_VARIABLE = "TAI_KERNEL_AUTOTUNE"

_KIB = 1024
# Shared memory that one block may use, by compute capability (CUDA C++ Programming Guide, table of technical
# specifications). A chip that is not listed gets the smallest.
SHARED_BYTES = {
    (8, 0): 163 * _KIB,
    (8, 6): 99 * _KIB,
    (8, 7): 163 * _KIB,
    (8, 9): 99 * _KIB,
    (9, 0): 227 * _KIB,
    (10, 0): 227 * _KIB,
    (10, 3): 227 * _KIB,
}
_SMALLEST_SHARED_BYTES = 64 * _KIB


@dataclass(frozen=True)
class ForwardConfig:
    """How the forward kernel is launched.

    Attributes:
        items: consecutive items per program.
        rows: rows per tile, a power of two.
        block_c: classes per program, a power of two, 16 at least.
        block_d: depth per step, likewise.
        warps: warps per program.
        stages: software pipeline depth of the loads.
        registers: how many a thread may use, 0 for the compiler's own choice. Left alone, it spills a few numbers of
            the fp32 kernels to memory to save registers for which there is no other use.
    """

    items: int
    rows: int
    block_c: int
    block_d: int
    warps: int
    stages: int
    registers: int = 0

    def options(self) -> dict[str, int]:
        """Triton's options for a launch."""
        options = {"num_warps": self.warps, "num_stages": self.stages}
        if self.registers and torch.version.hip is None:  # only NVIDIA's compiler knows it
            options["maxnreg"] = self.registers
        return options


@dataclass(frozen=True)
class MatmulConfig:
    """How the plain product is launched: block sizes, warps, stages."""

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int


def matmul_config(widen: bool) -> MatmulConfig:
    """One configuration for fp32 arithmetic, one for tensor cores."""
    return MatmulConfig(64, 64, 32, 4, 2) if widen else MatmulConfig(64, 64, 64, 4, 3)


def fill(rows_per_item: int, items: int, rows: int) -> float:
    """Share of a program's tile rows that hold a row, when ``items`` items lie one after the other."""
    total = items * rows_per_item
    return total / (-(-total // rows) * rows)


def fixed_config(
    rows_per_item: int, classes: int, dtype: torch.dtype, shared_bytes: int = _SMALLEST_SHARED_BYTES
) -> ForwardConfig:
    """The configuration of a bucket.

    Few classes (at most 128, where reading the rows is the limit): all classes in one program, so that each row is read
    once, and small tiles. Many: wide tiles for the tensor cores, filled by several items (five of 49 rows fill 256 by
    96%, one fills 64 by 77%).

    Args:
        rows_per_item: of every item, or the mean.
        classes: C.
        dtype: what is multiplied.
        shared_bytes: what one block of the device may use.
    """
    wide = min(128, max(16, 1 << (classes - 1).bit_length()))
    if dtype == torch.float32:
        rows, block_c, block_d, most_items = 64, min(wide, 64), 16, 4
    elif classes <= 128:
        rows, block_c, block_d, most_items = 64, wide, 64, 4
    else:
        rows, block_c, block_d, most_items = 128, 64, 64, 4
        if fill(rows_per_item, 5, 256) > 0.9 and rows_per_item < 64 and shared_bytes >= SHARED_BYTES[8, 0]:
            rows, most_items = 256, 5
    # Sums, exponentials and addresses of a tile must fit the registers, or they spill to memory.
    warps = 8 if dtype == torch.float32 or rows * block_c >= 64 * 128 else 4
    # A program looks at every tile once per item, so a further item must fill the tiles by a few percent more.
    items = max(range(1, most_items + 1), key=lambda n: fill(rows_per_item, n, rows) - 0.03 * n)
    stage_bytes = (rows + block_c) * block_d * (4 if dtype == torch.float32 else 2)
    stages = max(1, min(3, int(0.9 * shared_bytes) // stage_bytes))
    registers = 255 if dtype == torch.float32 else 0
    return ForwardConfig(items, rows, block_c, block_d, warps, stages, registers)


def candidates(rows_per_item: int, classes: int, dtype: torch.dtype, shared_bytes: int) -> list[ForwardConfig]:
    """What autotuning tries: the fixed configuration first, then others that fit the shared memory."""
    first = fixed_config(rows_per_item, classes, dtype, shared_bytes)
    found = [first]
    number_bytes = 4 if dtype == torch.float32 else 2
    for rows, warps in ((32, 4), (64, 4), (128, 4), (128, 8), (256, 8)):
        for block_c in (16, 32, 64, 128, 256):
            if block_c > 2 * classes or rows * block_c > 128 * 128:
                continue
            for items in (1, 2, 4, 5):
                for stages in (2, 3, 4):
                    config = ForwardConfig(items, rows, block_c, first.block_d, warps, stages, first.registers)
                    fits = (rows + block_c) * first.block_d * number_bytes * stages <= 0.9 * shared_bytes
                    if fits and fill(rows_per_item, items, rows) > 0.7 and config != first:
                        found.append(config)
    return found


def forward_config(
    rows_per_item: int,
    classes: int,
    dtype: torch.dtype,
    *,
    launch: Callable[[ForwardConfig], None] | None = None,
    device: torch.device | None = None,
) -> ForwardConfig:
    """The configuration for a call: the fixed one, or the measured one when autotuning is asked for.

    Args:
        rows_per_item: of every item, or the mean.
        classes: C.
        dtype: what is multiplied.
        launch: runs the kernel; without it nothing is measured.
        device: the GPU; None or a CPU (the interpreter) takes the smallest shared memory.
    """
    if device is None or device.type != "cuda":
        return fixed_config(rows_per_item, classes, dtype)
    shared = SHARED_BYTES.get(torch.cuda.get_device_capability(device), _SMALLEST_SHARED_BYTES)
    if launch is None or os.environ.get(AUTOTUNE_VARIABLE) != "1":
        return fixed_config(rows_per_item, classes, dtype, shared)
    import triton

    bucket = classes if classes <= 128 else 1 << (classes - 1).bit_length()
    name = torch.cuda.get_device_name(device)
    key = f"{name}|triton {triton.__version__}|{dtype}|{rows_per_item} rows|{bucket} classes"
    measure = triton.testing.do_bench
    return tuned(key, candidates(rows_per_item, classes, dtype, shared), lambda c: measure(lambda: launch(c)))


def tuned(key: str, tried: list[ForwardConfig], measure: Callable[[ForwardConfig], float]) -> ForwardConfig:
    """The recorded configuration of ``key``, or the fastest of ``tried``, which is then recorded.

    A candidate that the device refuses (too many registers, say) is passed over; if all are, the first is returned.
    """
    known = _recorded(_record_path())
    if key in known:
        return known[key]
    best, best_time = tried[0], float("inf")
    for config in tried:
        try:
            time = measure(config)
        except Exception:  # whatever the compiler or the driver raises: that candidate cannot run here
            continue
        if time < best_time:
            best, best_time = config, time
    if best_time < float("inf"):
        _record(key, best)
    return best


def _record_path() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("tai-engine") / "kernels" / "triton-configs.json"


@cache
def _recorded(path: Path) -> dict[str, ForwardConfig]:
    try:
        return {key: ForwardConfig(**value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):  # none yet, or not ours: measured anew
        return {}


def _record(key: str, config: ForwardConfig) -> None:
    """Add a configuration to the record, which is replaced as a whole; a cache that cannot be written is no error."""
    path = _record_path()
    _recorded.cache_clear()
    known = {**_recorded(path), key: config}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump({name: asdict(value) for name, value in known.items()}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
    except OSError:
        pass
    _recorded.cache_clear()
    _recorded(path).setdefault(key, config)
