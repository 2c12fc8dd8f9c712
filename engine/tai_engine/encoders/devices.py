"""Which device computes, in which precision, and how many items fit at a time."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch

from tai_engine.errors import UserError, unknown_choice
from tai_kernels import processor

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
INT16 = "int16"
"""A precision of fast image towers alone, and a wish: what cannot be computed so is computed in fp32."""

# Items in a batch to begin with: pictures of 224 x 224 pixels (fewer if larger), and sentences.
# On CPUs more would not be faster, only larger: what 16 pictures become on their way takes about 300 MB. There it is a
# power of two, so that slices of pictures leave no smaller batch over.
_FIRST_IMAGES = {"cpu": 16, "cuda": 256, "mps": 64}
_FIRST_SENTENCES = {"cpu": 64, "cuda": 1024, "mps": 256}

Result = TypeVar("Result")


def resolve_device(device: str) -> torch.device:
    """The device for ``auto`` (a CUDA GPU, else Apple's, else the CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        UserError: for an unknown device, or one this machine does not have.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, colon, index = device.partition(":")
    if kind not in DEVICES or (colon and not (kind == "cuda" and index.isdigit())):
        raise unknown_choice("device", device, (*DEVICES, "cuda:0"))
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise UserError(
                f"The device {device!r} was asked for but PyTorch sees no CUDA GPU; use --device cpu or auto."
            )
        if colon and int(index) >= torch.cuda.device_count():
            raise UserError(
                f"There is no {device!r}: this machine has {torch.cuda.device_count()} CUDA GPU(s), from cuda:0."
            )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("The device 'mps' was asked for but PyTorch sees no Apple GPU; use --device cpu or auto.")
    return torch.device(device)


def resolve_precision(precision: str, device: torch.device, fast: bool = True) -> tuple[str, str]:
    """The precision of the model and of its fast image tower for ``auto``, ``fp32``, ``bf16`` or ``fp16``.

    ``auto`` is fp16 on CUDA. On a CPU that multiplies bf16 in hardware it is bf16 for pictures, while sentences, of
    which there are fewer and through which gradients flow, stay in fp32; on one with AVX2 alone it is int16 for
    pictures. Anywhere else, and when not ``fast``, it is fp32. Features leave the encoder in fp32 whatever this says.
    Half precision on a CPU is allowed when asked for: fp16 is slow on nearly all of them, bf16 on those without
    hardware for it, and both say so.

    Raises:
        UserError: for an unknown precision.
    """
    if precision == "auto":
        if not fast:
            return "fp32", "fp32"
        if device.type == "cuda":
            return "fp16", "fp16"
        if has_fast_bf16(device):
            return "fp32", "bf16"
        return "fp32", INT16 if has_fast_int16(device) else "fp32"
    if precision not in PRECISIONS:
        raise unknown_choice("precision", precision, ("auto", *PRECISIONS))
    if precision == "fp16" and device.type == "cpu":
        logger.warning("fp16 is slow on most CPUs: fp32 or bf16 is the better choice there")
    if precision == "bf16" and device.type == "cpu" and not has_fast_bf16(device):
        logger.warning("bf16 is slow on this CPU, which has no hardware for it: fp32 is the better choice here")
    return precision, precision


def has_fast_bf16(device: torch.device) -> bool:
    """Whether ``device`` is a CPU that multiplies bf16 in hardware (AMX or AVX-512 BF16)."""
    return device.type == "cpu" and processor.has_fast_bf16()


def has_fast_int16(device: torch.device) -> bool:
    """Whether ``device`` is a CPU that multiplies int16 faster than fp32: measured with AVX2, unknown of wider ones."""
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"


def exact_arithmetic(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """fp32 that is fp32: convolutions on CUDA otherwise round their input to TF32 (10 bits of mantissa)."""
    if device.type == "cuda" and precision == "fp32":
        cudnn = torch.backends.cudnn
        flags: AbstractContextManager[None] = cudnn.flags(
            enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
        )
        return flags
    return nullcontext()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the machine has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # The CPU allocator and Apple's GPU raise a plain RuntimeError.
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


class BatchSize:
    """How many items are computed at a time: halved whenever memory runs out, and never raised again."""

    def __init__(self, size: int, what: str) -> None:
        self.size = max(1, size)
        self._what = what

    def map(self, function: Callable[[int, int], Result], total: int) -> Iterator[Result]:
        """``function(start, stop)`` over consecutive ranges that cover ``range(total)``.

        Raises:
            UserError: when not even one item fits.
        """
        start = 0
        while start < total:
            stop = min(start + self.size, total)
            failed = False
            try:
                result = function(start, stop)
            except Exception as error:  # sorted out on the next line
                if not is_out_of_memory(error):
                    raise
                failed = True
            if failed:  # outside the handler: the error's traceback holds on to the tensors of the failed batch
                self._halve(stop - start)
                continue
            yield result
            start = stop

    def _halve(self, tried: int) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if tried == 1:
            raise UserError(
                f"Not even one {self._what} fits into memory; free memory, or choose a smaller model, a smaller "
                "--image-size, half precision or another device."
            )
        self.size = tried // 2
        logger.warning("out of memory with %d %ss at a time: going on with %d", tried, self._what, self.size)


def padded_size(items: int, largest: int) -> int:
    """The next power of two, but not more than ``largest``: few shapes of batches, the same for the same pictures.

    What a batch computes for one item depends in its last bits on how many there are; so a slice of a collection that
    is encoded again has to come in the same shape.
    """
    return min(largest, 1 << max(0, items - 1).bit_length())


def image_batch(batch_size: int, device: torch.device, image_size: int) -> BatchSize:
    """The batch size to begin with for pictures; ``batch_size`` 0 means automatic.

    Raises:
        UserError: for a negative ``batch_size``.
    """
    _check(batch_size)
    automatic = int(_FIRST_IMAGES.get(device.type, 32) * (224 / image_size) ** 2)
    if device.type == "cpu" and automatic:
        automatic = 1 << (automatic.bit_length() - 1)
    return BatchSize(batch_size or min(automatic, 1024), "picture")


def sentence_batch(batch_size: int, device: torch.device) -> BatchSize:
    """The same for sentences."""
    _check(batch_size)
    return BatchSize(batch_size or _FIRST_SENTENCES.get(device.type, 64), "sentence")


def _check(batch_size: int) -> None:
    if batch_size < 0:
        raise UserError(f"--batch-size is {batch_size}; give a number of items, or 0 for automatic.")
