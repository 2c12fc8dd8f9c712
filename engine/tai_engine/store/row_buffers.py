"""Memory that is used again, for reading batch after batch.

Memory that is fresh from the system costs more than what is read into it: every page is cleared first, at a trap each.
"""

from __future__ import annotations

import math
import mmap
import threading
import weakref

import numpy as np
import torch
from torch import Tensor

_KEPT = 4
# Smaller tensors come from torch's own allocator, which is as good for them.
_LEAST_BYTES = 1024 * 1024


class RowBuffers:
    """Hands out tensors, and their memory again once nothing refers to them or to views of them any more.

    Memory: that of the tensors in use, and of up to four that are no longer.
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []
        # Memory comes back in whatever thread drops a tensor, perhaps in the middle of `_take`.
        self._lock = threading.RLock()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor of any content on the CPU, at the beginning of a page if it is large."""
        size = math.prod(shape) * dtype.itemsize
        if size < _LEAST_BYTES:
            return torch.empty(shape, dtype=dtype)
        memory = self._take(size)
        # torch holds on to this very object as long as there is a tensor of it.
        held = memory[:size]
        weakref.finalize(held, self._give_back, memory).atexit = False
        return torch.from_numpy(held).view(dtype).view(shape)

    def _take(self, size: int) -> np.ndarray:
        with self._lock:
            fitting = [place for place, memory in enumerate(self._free) if len(memory) >= size]
            if fitting:
                return self._free.pop(min(fitting, key=lambda place: len(self._free[place])))
        return np.frombuffer(mmap.mmap(-1, size), dtype=np.uint8)

    def _give_back(self, memory: np.ndarray) -> None:
        with self._lock:
            self._free.append(memory)
            # The largest stay: they do for all others.
            self._free = sorted(self._free, key=len)[-_KEPT:]
