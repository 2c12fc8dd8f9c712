"""What a caller may pass to ``ops``: everything that shapes, dtypes, devices and settings tell without reading values.

Every function raises ValueError with one sentence on what is wrong and what is allowed.
"""

import math

import torch
from torch import Tensor

from tai_kernels.scoring.pooling import check_pooling

EMPTY_CHOICES = ("error", "coarse")
"""What to do with an item that has no rows."""

_ROW_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def check_rows(name: str, rows: Tensor, classes: Tensor, *, allow_int8: bool) -> None:
    """Rows [.., D] of a known dtype that fit the class vectors [C, D] (int8 and [N, L, D] for fine rows only)."""
    allowed = (*_ROW_DTYPES, torch.int8) if allow_int8 else _ROW_DTYPES
    if rows.dtype not in allowed:
        names = ", ".join(str(d).removeprefix("torch.") for d in allowed)
        raise ValueError(f"{name} rows are {str(rows.dtype).removeprefix('torch.')}, expected one of {names}")
    if classes.ndim != 2 or rows.ndim not in ((2, 3) if allow_int8 else (2,)) or rows.shape[-1] != classes.shape[1]:
        raise ValueError(
            f"{name} has shape {tuple(rows.shape)} and the class vectors {tuple(classes.shape)}; "
            "the last sizes must be equal (the size of the embedding)"
        )
    if rows.device != classes.device:
        raise ValueError(f"{name} rows are on {rows.device} but the class vectors on {classes.device}")


def check_classes(**classes: Tensor) -> None:
    """Class vectors, by name, of a known dtype."""
    for name, vectors in classes.items():
        if vectors.dtype not in _ROW_DTYPES:
            raise ValueError(f"{name} is {vectors.dtype}, expected float32, bfloat16 or float16")


def check_scales(fine: Tensor, fine_scales: Tensor | None) -> None:
    """One float scale per row with int8 rows, and none with others."""
    if (fine.dtype == torch.int8) != (fine_scales is not None):
        raise ValueError("int8 rows need fine_scales, one per row, and other rows must come without")
    if fine_scales is not None and (fine_scales.shape != fine.shape[:-1] or not fine_scales.is_floating_point()):
        raise ValueError(
            f"fine_scales are {fine_scales.dtype} {tuple(fine_scales.shape)}, expected float {tuple(fine.shape[:-1])}"
        )


def check_tensors(
    coarse: Tensor,
    fine: Tensor,
    offsets: Tensor | None,
    class_global: Tensor,
    class_local: Tensor,
    fine_scales: Tensor | None,
) -> None:
    """What can be told from shapes, dtypes and devices; the values of offsets are checked inside the op."""
    check_rows("coarse", coarse, class_global, allow_int8=False)
    check_rows("fine", fine, class_local, allow_int8=True)
    check_classes(class_global=class_global, class_local=class_local)
    check_scales(fine, fine_scales)
    if class_global.shape != class_local.shape or class_global.device != class_local.device:
        raise ValueError(
            f"class_global {tuple(class_global.shape)} and class_local {tuple(class_local.shape)} must agree in shape "
            "and device"
        )
    if class_global.shape[0] == 0:
        raise ValueError("there are no classes to score")
    if (offsets is None) != (fine.ndim == 3):
        raise ValueError("fine is packed [T, D] with offsets [N + 1], or dense [N, L, D] with offsets=None")
    items = fine.shape[0] if offsets is None else offsets.shape[0] - 1
    if items != coarse.shape[0]:
        raise ValueError(f"coarse has {coarse.shape[0]} items but the fine rows belong to {items}")


def check_settings(pooling: str, temperature: float, scale: float, mix: float, empty: str) -> None:
    """The numbers and names of ``ops.score``."""
    check_pooling(pooling)
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature is {temperature}, expected a finite number, 0 or more")
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale is {scale}, expected a finite number above 0")
    if not 0 <= mix <= 1:
        raise ValueError(f"mix is {mix}, expected a number from 0 to 1")
    if empty not in EMPTY_CHOICES:
        raise ValueError(f"Unknown choice {empty!r} for empty; choose one of {', '.join(map(repr, EMPTY_CHOICES))}.")
