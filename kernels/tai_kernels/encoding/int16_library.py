"""The library behind `int16_layers`: its structures, how it is loaded and called."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from tai_kernels.native_build import OnFirstUse, UnavailableError, built_library, opened

LARGEST = 4095
"""Of a row's numbers in magnitude, as the library has it."""

_POINTERS, _SIZES, _FLAGS = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32


class LinearJob(ctypes.Structure):
    """Fields of the structure of this name in ``native/int16_linear.h``, in the same order; the others likewise."""

    _fields_ = (
        *((name, _POINTERS) for name in ("rows", "row_scales", "weights", "column_scales", "bias", "other")),
        *((name, _POINTERS) for name in ("other_scales", "out", "out_scales", "out_floats")),
        *((name, _SIZES) for name in ("count", "depth", "columns")),
        *((name, _FLAGS) for name in ("relu", "threads")),
    )


class WinogradJob(ctypes.Structure):
    """``native/int16_convolution.h``."""

    _fields_ = (
        *((name, _POINTERS) for name in ("images", "weights", "column_scales", "bias")),
        *((name, _POINTERS) for name in ("out", "out_scales", "out_floats")),
        *((name, _SIZES) for name in ("image_count", "height", "width", "channels", "out_channels", "pool")),
        ("threads", _FLAGS),
    )


class PoolJob(ctypes.Structure):
    """``native/int16_pool.h``."""

    _fields_ = (
        *((name, _POINTERS) for name in ("rows", "row_scales", "out", "out_scales")),
        *((name, _SIZES) for name in ("lines", "width", "channels", "pool")),
        ("threads", _FLAGS),
    )


_FUNCTIONS: dict[type[ctypes.Structure], str] = {
    LinearJob: "tai_linear",
    WinogradJob: "tai_winograd",
    PoolJob: "tai_pool",
}


def load(folder: Path) -> ctypes.CDLL:
    """The library kept in ``folder``, built there if need be.

    Raises:
        UnavailableError: when it cannot be built or loaded.
        OSError: when the folder cannot be written.
    """
    path, _ = built_library(folder, "encode.cpp", ("-DTAI_LANES=8",))
    functions = opened(path, sum(map(ctypes.sizeof, _FUNCTIONS)))
    for job, name in _FUNCTIONS.items():
        getattr(functions, name).argtypes = [ctypes.POINTER(job)]
    functions.tai_largest.restype = ctypes.c_float
    if functions.tai_largest() != LARGEST:
        raise UnavailableError(f"the built library {path} does not fit this version; delete it")
    return functions


_machine = OnFirstUse(load)


def why_not() -> str | None:
    """Why these layers are absent, or None when they are there (this builds the library if need be)."""
    if not torch.cpu._is_avx2_supported():
        return "this CPU has no AVX2"
    return _machine.why_not()


def run(job: ctypes.Structure) -> None:
    """Do a job.

    Raises:
        UnavailableError: when there is no library.
        MemoryError: when its workspace cannot be had.
    """
    if getattr(_machine.get(), _FUNCTIONS[type(job)])(ctypes.byref(job)):
        raise MemoryError("the compiled encoding path ran out of memory")


def address(tensor: Tensor | None) -> int | None:
    """Of the first number."""
    return None if tensor is None else tensor.data_ptr()
