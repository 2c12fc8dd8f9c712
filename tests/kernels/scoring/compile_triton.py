"""Compiles the Triton kernels for GPUs that are not here; run as a program, prints one JSON object per compilation.

It is a program of its own because Triton cannot compile in a process that interprets.
Usage: python compile_triton.py quick|full
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tai_kernels.scoring import triton_kernels
from tai_kernels.scoring.triton_config import SHARED_BYTES, fixed_config, matmul_config

POINTERS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.int8: "*i8"}
SCALARS = {"temperature": "fp32", "scale": "fp32", "mix": "fp32"}


def compile_kernel(kernel, pointers, constants, options, *, divisible, architecture):
    """Compile as a launch with these arguments would: pointers and `divisible` sizes are multiples of 16."""
    signature, attributes, values = {}, {}, {}
    for index, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            values[name] = constants[name]
        else:
            signature[name] = pointers.get(name) or SCALARS.get(name, "i32")
            if name in pointers or name in divisible:
                attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature=signature, constexprs=values, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def stack_and_registers(compiled):
    """What the chip's own tool says of the machine code."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"STACK:(\d+)", text)[1]), int(re.search(r"REG:(\d+)", text)[1])


def forward_case(rows_dtype, pooling, rows_per_item, classes, save, capability, fused=True):
    multiplied = torch.float32 if save else torch.float16 if rows_dtype == torch.int8 else rows_dtype
    coarse_dtype = torch.float16 if rows_dtype == torch.int8 else rows_dtype  # as stores keep them
    config = fixed_config(rows_per_item, classes, multiplied, SHARED_BYTES[capability])
    constants = {
        "MAX_POOLING": pooling == "max",
        "HAS_SCALES": rows_dtype == torch.int8,
        "FUSED": fused,
        "PARTS": True,
        "SAVE": save,
        "EVEN_D": True,
        **config.constants(),
    }
    if rows_dtype != torch.int8:
        constants["scales_ptr"] = None
    pointers = {
        "rows_ptr": POINTERS[rows_dtype],
        "offsets_ptr": "*i64",
        "class_ptr": POINTERS[multiplied],
        "scales_ptr": "*fp32",
        "coarse_rows_ptr": POINTERS[coarse_dtype],
        "global_ptr": POINTERS[multiplied],
        "coarse_ptr": "*fp32",
        "fine_ptr": "*fp32",
        "merged_ptr": "*fp32",
        "state_ptr": "*i32" if pooling == "max" else "*fp32",
    }
    divisible = {"dim", "row_stride", "coarse_stride"} | ({"classes"} if classes % 16 == 0 else set())
    return triton_kernels.forward_kernel, pointers, constants, config.options(), divisible, multiplied


def weight_case(rows_dtype, pooling, rows_per_item, classes):
    config = fixed_config(rows_per_item, classes, torch.float32)
    constants = {
        "MAX_POOLING": pooling == "max",
        "HAS_SCALES": rows_dtype == torch.int8,
        "EVEN_D": True,
        "ROWS": config.rows,
        "BLOCK_C": config.block_c,
        "BLOCK_D": config.block_d,
    }
    if rows_dtype != torch.int8:
        constants["scales_ptr"] = None
    pointers = {
        "rows_ptr": POINTERS[rows_dtype],
        "offsets_ptr": "*i64",
        "item_ptr": "*i32",
        "class_ptr": "*fp32",
        "scales_ptr": "*fp32",
        "value_ptr": "*fp32",
        "state_ptr": "*i32" if pooling == "max" else "*fp32",
        "grad_ptr": "*fp32",
        "weight_ptr": "*fp32",
    }
    divisible = {"dim", "row_stride", "classes"}
    return triton_kernels.weight_kernel, pointers, constants, config.options(), divisible, torch.float32


def matmul_case(dtype, widen):
    config = matmul_config(widen)
    constants = {
        "ADD": widen,
        "WIDEN": widen,
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "BLOCK_K": config.block_k,
        "a_stride_k": 1,
        "b_stride_k": 1,
    }
    pointers = {"a_ptr": POINTERS[dtype], "b_ptr": POINTERS[dtype], "out_ptr": "*fp32"}
    options = {"num_warps": config.warps, "num_stages": config.stages}
    divisible = {"k_size", "a_stride_m", "b_stride_n"}
    return triton_kernels.matmul_kernel, pointers, constants, options, divisible, torch.float32 if widen else dtype


def cases(full, capability):
    half = torch.bfloat16
    yield "forward bf16 softmax few classes", forward_case(half, "softmax", 49, 80, False, capability)
    yield "forward bf16 softmax many classes", forward_case(half, "softmax", 49, 4585, False, capability)
    many = forward_case(half, "softmax", 49, 4585, False, capability, fused=False)
    yield "forward bf16 softmax many classes, coarse apart", many
    yield "forward int8 max many classes", forward_case(torch.int8, "max", 197, 4585, False, capability)
    yield "forward fp32 softmax saving", forward_case(torch.float32, "softmax", 15, 80, True, capability)
    yield "weights fp16 softmax", weight_case(torch.float16, "softmax", 15, 80)
    if not full:
        return
    yield "matmul bf16", matmul_case(half, widen=False)
    for dtype in POINTERS:
        for pooling in ("softmax", "max"):
            for rows_per_item in (15, 49, 50, 196, 784):
                for classes in (7, 20, 80, 1203):
                    name = f"forward {dtype} {pooling} {rows_per_item} rows {classes} classes"
                    yield name, forward_case(dtype, pooling, rows_per_item, classes, False, capability)
                    yield (
                        f"{name}, coarse apart",
                        forward_case(dtype, pooling, rows_per_item, classes, False, capability, fused=False),
                    )
            yield f"forward {dtype} {pooling} saving", forward_case(dtype, pooling, 15, 80, True, capability)
            yield f"weights {dtype} {pooling}", weight_case(dtype, pooling, 15, 80)
        yield f"matmul {dtype} widened", matmul_case(dtype, widen=True)


def main():
    full = sys.argv[1] == "full"
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        for capability in ((8, 0), (8, 9), (9, 0)):
            for name, (kernel, pointers, constants, options, divisible, multiplied) in cases(full, capability):
                architecture = capability[0] * 10 + capability[1]
                compiled = compile_kernel(
                    kernel, pointers, constants, options, divisible=divisible, architecture=architecture
                )
                stack, registers = stack_and_registers(compiled)
                ptx = compiled.asm["ptx"]
                row = {
                    "architecture": architecture,
                    "case": name,
                    "multiplied": str(multiplied).removeprefix("torch."),
                    "shared": compiled.metadata.shared,
                    "shared_limit": SHARED_BYTES[capability],
                    "stack": stack,
                    "registers": registers,
                    "tensor_cores": len(re.findall(r"\bwgmma\.mma_async|\bmma\.sync", ptx)),
                    "wgmma": "wgmma.mma_async" in ptx,
                    "tf32": ".tf32" in ptx,
                    "async_copies": ptx.count("cp.async"),
                }
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
