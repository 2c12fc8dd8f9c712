"""What the processor does in hardware."""

import torch


def has_fast_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AMX or AVX-512 BF16); elsewhere bf16 is slower than fp32."""
    return has_amx() or _supports("_is_avx512_bf16_supported")


def has_amx() -> bool:
    """Whether this CPU has the tiles of AMX."""
    return _supports("_is_amx_tile_supported")


def _supports(question: str) -> bool:
    try:
        return bool(getattr(torch.cpu, question)())
    except (AttributeError, RuntimeError):  # another torch, or not an x86 build
        return False
