"""What a tower gives for a batch, as rows of features: of unit length, in fp32, on the CPU, the batches joined.

Shape legend: T rows, D embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tai_engine.errors import UserError


def unit_rows(rows: Tensor | None, precision: str) -> Tensor | None:
    """Rows [T, D] of length 1 in fp32 on the CPU; None stays None.

    Args:
        rows: as computed.
        precision: in which, for the message.

    Raises:
        UserError: when numbers overflowed, as they may in fp16.
    """
    if rows is None:
        return None
    rows = F.normalize(rows.float(), dim=-1).cpu()
    if not bool(rows.isfinite().all()):
        raise UserError(
            f"The model gave numbers that are not finite in {precision}; use --precision fp32 or bf16, or "
            "other weights if it is fp32 already."
        )
    return rows


def join_rows(batches: Sequence[tuple[Tensor | None, ...]], *, kinds: int, dim: int) -> list[Tensor]:
    """Each of the ``kinds`` of rows of all batches in one tensor; [0, D] for what there is none of."""
    columns = zip(*batches, strict=True) if batches else [()] * kinds
    kept = [[rows for rows in column if rows is not None] for column in columns]
    return [torch.cat(rows) if rows else torch.zeros(0, dim) for rows in kept]
