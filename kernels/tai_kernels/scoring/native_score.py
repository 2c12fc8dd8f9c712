"""Scoring with the compiled CPU library: loads it and fills in its jobs.

Beside the outputs it holds the class vectors in the library's layout and, per thread, one tile of rows and similarities
(about 1 MiB). fp32 rows, and any rows when the gradient will be wanted, are computed in fp32; other rows in bf16 where
the CPU multiplies such numbers (tiles of AMX, vectors of AVX-512 BF16), else in fp32. The gradient is ``cpu_score``'s,
in blocks of torch.

Without a compiler, or when anything at all goes wrong with the library, the path is absent and ``why_not`` says why.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tai_kernels.native_build import OnFirstUse, UnavailableError, built_library, opened
from tai_kernels.scoring import cpu_score
from tai_kernels.scoring.bags import check_bags
from tai_kernels.scoring.call import ScoreCall, ScoreResult
from tai_kernels.scoring.cpu_score import pooled_gradient

__all__ = [
    "Library",
    "UnavailableError",
    "describe",
    "forward",
    "library",
    "load",
    "multiplies_in",
    "pooled_gradient",
    "why_not",
]


@dataclass(frozen=True)
class Library:
    """The loaded library.

    Attributes:
        functions: its entry points.
        path: the file.
        description: instruction set and compiler, for people.
    """

    functions: ctypes.CDLL
    path: Path
    description: str


class ScoreJob(ctypes.Structure):
    """One call; the fields of ``native/job.h`` in the same order."""

    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("row_scales", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("classes", ctypes.c_void_p),
        ("coarse", ctypes.c_void_p),
        ("fine", ctypes.c_void_p),
        ("merged", ctypes.c_void_p),
        ("state", ctypes.c_void_p),
        ("items", ctypes.c_int64),
        ("dim", ctypes.c_int64),
        ("class_count", ctypes.c_int64),
        ("row_stride", ctypes.c_int64),
        ("row_type", ctypes.c_int32),
        ("class_type", ctypes.c_int32),
        ("max_pooling", ctypes.c_int32),
        ("in_bf16", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("temperature", ctypes.c_float),
        ("scale", ctypes.c_float),
        ("mix", ctypes.c_float),
    )


def library() -> Library:
    """The machine's library, built now if it never was.

    Raises:
        UnavailableError: saying why there is none.
    """
    return _machine.get()


def why_not() -> str | None:
    """Why the compiled path is absent, or None when it is there."""
    return _machine.why_not()


def describe() -> str:
    """What is in use, for people.

    Raises:
        UnavailableError: when nothing is.
    """
    return library().description


def multiplies_in(rows: torch.dtype) -> torch.dtype:
    """The dtype that ``rows`` are multiplied in when no gradient is wanted: bf16 where the CPU has it, else fp32.

    Raises:
        UnavailableError: when there is no library.
    """
    return torch.bfloat16 if _in_bf16(library(), rows, exact=False) else torch.float32


def _in_bf16(compiled: Library, rows: torch.dtype, *, exact: bool) -> bool:
    return not exact and rows != torch.float32 and compiled.functions.tai_bf16_products() > 0


def load(folder: Path, definitions: tuple[str, ...] = ()) -> Library:
    """Load the library kept in ``folder`` (built there if need be) and compare a small result of it with torch's.

    Raises:
        UnavailableError: when it cannot be built or loaded, or computes something wrong.
        OSError: when the folder cannot be written.
    """
    path, compiler = built_library(folder, "score.cpp", definitions)
    functions = opened(path, ctypes.sizeof(ScoreJob))
    functions.tai_score.argtypes = [ctypes.POINTER(ScoreJob)]
    instructions = f"{32 * functions.tai_lanes()}-bit fp32 vectors"
    bf16_products = _BF16_PRODUCTS[functions.tai_bf16_products()]
    if bf16_products:
        instructions = f"{bf16_products} for half-precision and int8 rows, else {instructions}"
    compiled = Library(functions, path, f"{instructions}, built with {compiler}")
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 5e-2)):
        difference = _largest_difference(compiled, dtype)
        if not difference <= tolerance:
            raise UnavailableError(f"the built library {path} is off by {difference:.2g} on {dtype} rows")
    return compiled


_BF16_PRODUCTS = ("", "vectors of bf16 pairs", "AMX bf16 tiles")
_machine = OnFirstUse(load)


def _largest_difference(compiled: Library, dtype: torch.dtype) -> float:
    """Largest difference from plain torch on a small call of odd sizes."""
    dim, classes, counts = 67, 21, torch.tensor([0, 7, 8, 30])
    wave = torch.arange(dim * (classes + 40), dtype=torch.float32).mul(0.7).sin().view(-1, dim)
    wave = wave / wave.norm(dim=1, keepdim=True)
    call = ScoreCall(
        coarse=wave[:3].to(dtype),
        fine=wave[10:40].to(dtype),
        bags=check_bags(counts, 30),
        class_global=wave[-classes:],
        class_local=wave[-classes:],
        fine_scales=None,
        pooling="softmax",
        temperature=10.0,
        scale=1.0,
        mix=0.5,
    )
    expected = cpu_score.forward(call).merged
    return float((forward(call, compiled=compiled).merged - expected).abs().max())


_FEW_ITEMS = 256  # from about 500 on, laying the class vectors out and turning the scores around cost the same
_ROW_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.int8: 3}


def _row_major(rows: Tensor) -> Tensor:
    """``rows`` in a type that the library reads, with neighbouring numbers along D; copied only if they are not yet."""
    rows = rows if rows.dtype in _ROW_TYPES else rows.float()
    return rows if rows.stride(1) == 1 and rows.stride(0) >= rows.shape[1] else rows.contiguous()


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None or tensor.numel() == 0 else tensor.data_ptr()


def _run(
    compiled: Library,
    rows: Tensor,
    offsets: Tensor,
    classes: Tensor,
    *,
    scales: Tensor | None = None,
    coarse: Tensor | None = None,
    fine: Tensor | None = None,
    merged: Tensor | None = None,
    state: Tensor | None = None,
    pooling: str = "max",
    temperature: float = 0.0,
    scale: float,
    mix: float = 0.0,
    in_bf16: bool,
) -> None:
    rows = _row_major(rows)
    classes = _row_major(classes).contiguous()
    offsets = offsets.contiguous()
    scales = None if scales is None else scales.contiguous()
    job = ScoreJob(
        rows=_address(rows),
        row_scales=_address(scales),
        offsets=offsets.data_ptr(),
        classes=_address(classes),
        coarse=_address(coarse),
        fine=_address(fine),
        merged=_address(merged),
        state=_address(state),
        items=offsets.shape[0] - 1,
        dim=rows.shape[1],
        class_count=classes.shape[0],
        row_stride=rows.stride(0) if rows.shape[0] > 1 else rows.shape[1],
        row_type=_ROW_TYPES[rows.dtype],
        class_type=_ROW_TYPES[classes.dtype],
        max_pooling=pooling == "max",
        in_bf16=in_bf16,
        threads=torch.get_num_threads(),
        temperature=temperature,
        scale=scale,
        mix=mix,
    )
    if compiled.functions.tai_score(ctypes.byref(job)):
        raise MemoryError("the compiled scoring path ran out of memory")


def _coarse_scores(compiled: Library, call: ScoreCall, out_NC: Tensor, *, in_bf16: bool) -> None:
    """The coarse scores, which are the pooled scores of one row per item.

    The class vectors are laid out anew, which for few items costs more than their products. Both sides may change
    places, and a few items are laid out instead; every sum is the same to the last bit. This holds [C, N] scores more
    for a while, of ``_FEW_ITEMS`` at most.
    """
    if call.items >= min(call.classes, _FEW_ITEMS):
        single = torch.arange(call.items + 1, dtype=torch.int64)
        _run(compiled, call.coarse, single, call.class_global, fine=out_NC, scale=call.scale, in_bf16=in_bf16)
        return
    single = torch.arange(call.classes + 1, dtype=torch.int64)
    out_CN = torch.empty(call.classes, call.items, dtype=torch.float32)
    _run(compiled, call.class_global, single, call.coarse, fine=out_CN, scale=call.scale, in_bf16=in_bf16)
    out_NC.copy_(out_CN.T)


def forward(call: ScoreCall, *, parts: bool = True, save: bool = False, compiled: Library | None = None) -> ScoreResult:
    """Scores of every item and class (``cpu_score.forward``).

    Args:
        call: on the CPU.
        parts: also return the coarse and the fine scores.
        save: also return the pooling state, and compute in fp32.
        compiled: the library to use instead of the machine's own.

    Raises:
        UnavailableError: when there is no library.
        MemoryError: when its workspace cannot be had.
    """
    p = call
    compiled = compiled or library()
    result = ScoreResult.allocate(p, parts=parts, save=save)
    if p.items == 0:
        return result
    coarse = result.coarse if parts else torch.empty_like(result.merged)
    _coarse_scores(compiled, p, coarse, in_bf16=_in_bf16(compiled, p.coarse.dtype, exact=save))
    _run(
        compiled,
        p.fine,
        p.bags.offsets,
        p.class_local,
        scales=p.fine_scales,
        coarse=coarse,
        fine=result.fine,
        merged=result.merged,
        state=result.state,
        pooling=p.pooling,
        temperature=p.temperature,
        scale=p.scale,
        mix=p.mix,
        in_bf16=_in_bf16(compiled, p.fine.dtype, exact=save),
    )
    return result
