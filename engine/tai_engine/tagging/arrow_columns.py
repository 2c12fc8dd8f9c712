"""Columns of Arrow from buffers: pyarrow's own conversions import pandas where there is one, which takes a second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def text_column(texts: Sequence[str]) -> pa.StringArray:
    """The texts, which are at most 2 GB together."""
    encoded = [text.encode("utf-8") for text in texts]
    ends = np.zeros(len(encoded) + 1, dtype=np.int32)
    np.cumsum([len(text) for text in encoded], out=ends[1:])
    return pa.Array.from_buffers(pa.string(), len(encoded), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))])


def number_column(
    numbers_N: NDArray[np.number], kind: pa.DataType, missing_N: NDArray[np.bool_] | None = None
) -> pa.Array:
    """The numbers, rounded to ``kind``; null where they are missing."""
    data = np.ascontiguousarray(numbers_N, dtype=kind.to_pandas_dtype())
    valid = None
    if missing_N is not None:
        valid = pa.py_buffer(np.packbits(~missing_N, bitorder="little"))
    return pa.Array.from_buffers(kind, len(data), [valid, pa.py_buffer(data)])
