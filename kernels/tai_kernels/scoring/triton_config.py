"""Launch configurations: fixed ones by shapes, or, on request, the fastest of several candidates.

With ``TAI_KERNEL_AUTOTUNE=1`` the first call of each size times every candidate on the GPU, and Triton keeps the result
in its own cache. ``TAI_KERNEL_COARSE=separate`` computes the coarse scores in a launch of their own, to compare the two
ways on a GPU. This module needs no Triton.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

AUTOTUNE_VARIABLE = "TAI_KERNEL_AUTOTUNE"
COARSE_VARIABLE = "TAI_KERNEL_COARSE"

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

    def constants(self) -> dict[str, int]:
        """The kernel's compile-time constants."""
        slots = 1 << (self.items - 1).bit_length()
        sizes = {"ROWS": self.rows, "BLOCK_C": self.block_c, "BLOCK_D": self.block_d}
        return {"ITEMS": self.items, "SLOTS": slots, **sizes}

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


def shared_bytes(device: torch.device) -> int:
    """Shared memory that one block may use; of an unknown GPU, and of the interpreter, the least that any has."""
    if device.type != "cuda":
        return _SMALLEST_SHARED_BYTES
    return SHARED_BYTES.get(torch.cuda.get_device_capability(device), _SMALLEST_SHARED_BYTES)


def autotuning_is_wanted() -> bool:
    """Whether the fastest configuration is to be measured."""
    return os.environ.get(AUTOTUNE_VARIABLE) == "1"


def fuses_coarse(coarse: torch.dtype, fine: torch.dtype) -> bool:
    """Whether one launch computes the coarse scores too, given what coarse and fine rows are multiplied in.

    Tiles are made for the fine rows: wider coarse ones would not fit the shared memory that is left.

    Raises:
        ValueError: for a ``TAI_KERNEL_COARSE`` that is neither "fused" nor "separate".
    """
    wanted = os.environ.get(COARSE_VARIABLE, "fused")
    if wanted not in ("fused", "separate"):
        raise ValueError(f"{COARSE_VARIABLE}={wanted!r} is not known; choose 'fused' or 'separate'.")
    return wanted == "fused" and coarse.itemsize <= fine.itemsize
