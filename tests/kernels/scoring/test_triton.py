"""The Triton kernels without a GPU: interpreted for their results, compiled for their use of the chip's resources."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
import torch

from tai_kernels.scoring import triton_config
from tai_kernels.scoring.triton_config import (
    SHARED_BYTES,
    ForwardConfig,
    candidates,
    fill,
    fixed_config,
    fuses_coarse,
)

HERE = Path(__file__).parent
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")


def interpreter_is_behind_numpy() -> bool:
    """NumPy 2.4 ended the conversion of arrays of one element to scalars, by which Triton interpreted before 3.8."""
    try:
        triton = tuple(map(int, version("triton").split(".")[:2]))
    except PackageNotFoundError:
        return False
    return triton < (3, 8) and tuple(map(int, np.__version__.split(".")[:2])) >= (2, 4)


def rows_of(program, *arguments):
    """The JSON lines that a program beside this file prints, in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "TAI_KERNEL")}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), environment.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, HERE / program, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]


@ON_LINUX
@pytest.mark.skipif(interpreter_is_behind_numpy(), reason="the interpreter of this Triton is older than this NumPy")
@pytest.mark.slow
def test_interpreted_kernels_equal_fp64():
    rows = rows_of("interpret_triton.py")
    assert len(rows) > 60  # no case at all would be a failure, not a pass
    assert sum(row["case"].startswith("published") for row in rows) == 8
    wrong = [row for row in rows if not row["error"] <= row["allowed"]]
    assert not wrong


def check_compiled(rows):
    assert {row["architecture"] for row in rows} == {80, 89, 90}
    for row in rows:
        assert row["shared"] <= row["shared_limit"], row
        assert row["stack"] == 0, row
        assert not row["tf32"], row
        if row["multiplied"] == "float32":
            assert row["tensor_cores"] == 0, row  # they have no IEEE fp32
        else:
            assert row["tensor_cores"] > 0, row
            assert row["async_copies"] > 0, row
            assert row["wgmma"] == (row["architecture"] == 90), row


@ON_LINUX
@pytest.mark.slow
def test_kernels_compile_for_gpus_within_their_resources():
    rows = rows_of("compile_triton.py", "quick")
    assert len(rows) == 18
    check_compiled(rows)


@ON_LINUX
@pytest.mark.gpu
@pytest.mark.slow
def test_all_kernels_compile_for_gpus_within_their_resources():
    check_compiled(rows_of("compile_triton.py", "full"))


def test_fill_counts_the_rows_that_are_used():
    assert fill(49, 5, 256) == pytest.approx(245 / 256)
    assert fill(49, 1, 64) == pytest.approx(49 / 64)
    assert fill(197, 1, 64) == pytest.approx(197 / 256)
    assert fill(64, 1, 64) == 1


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows_per_item", [1, 9, 15, 49, 50, 196, 197, 784])
@pytest.mark.parametrize("classes", [1, 7, 20, 80, 1203, 4585])
def test_every_configuration_fits(capability, dtype, rows_per_item, classes):
    shared = SHARED_BYTES[capability]
    for config in candidates(rows_per_item, classes, dtype, shared):
        number_bytes = 4 if dtype == torch.float32 else 2
        assert (config.rows + config.block_c) * config.block_d * number_bytes * config.stages <= shared
        assert config.block_c >= 16
        assert config.rows & (config.rows - 1) == 0
        assert 1 <= config.items <= 5
    chosen = fixed_config(rows_per_item, classes, dtype, shared)
    if classes <= 64 or (classes <= 128 and dtype != torch.float32):
        assert chosen.block_c >= classes  # every row is read once
    if rows_per_item == 49 and classes > 128 and dtype != torch.float32 and capability != (8, 9):
        assert (chosen.items, chosen.rows) == (5, 256)


@ON_LINUX
def test_autotuning_has_triton_keep_what_it_measured(monkeypatch):
    from tai_kernels.scoring import triton_score

    monkeypatch.setenv(triton_config.AUTOTUNE_VARIABLE, "1")
    monkeypatch.setattr(triton_score, "shared_bytes", lambda _: SHARED_BYTES[9, 0])
    kernel, constants = triton_score._forward_kernel(None, 49, 80, 1024, torch.bfloat16, torch.device("cuda"))
    tried = candidates(49, 80, torch.bfloat16, SHARED_BYTES[9, 0])
    assert kernel.cache_results
    assert constants == {"EVEN_D": True}
    assert [c.kwargs for c in kernel.configs] == [c.constants() for c in tried]
    assert [(c.num_warps, c.num_stages) for c in kernel.configs] == [(c.warps, c.stages) for c in tried]
    assert kernel is triton_score._forward_kernel(None, 49, 80, 1024, torch.bfloat16, torch.device("cuda"))[0]
    monkeypatch.delenv(triton_config.AUTOTUNE_VARIABLE)
    fixed, constants = triton_score._forward_kernel(None, 49, 80, 1000, torch.bfloat16, torch.device("cuda"))
    assert fixed is triton_score.forward_kernel
    assert constants["EVEN_D"] is False
    assert constants["BLOCK_C"] == 128


def test_slots_hold_the_items():
    for items, slots in ((1, 1), (2, 2), (3, 4), (4, 4), (5, 8)):
        assert ForwardConfig(items, 64, 64, 64, 4, 2).constants()["SLOTS"] == slots


def test_coarse_scores_are_fused_unless_their_rows_are_the_wider_or_the_setting_says_otherwise(monkeypatch):
    monkeypatch.delenv(triton_config.COARSE_VARIABLE, raising=False)
    assert fuses_coarse(torch.float16, torch.float16)
    assert fuses_coarse(torch.float16, torch.float32)
    assert not fuses_coarse(torch.float32, torch.float16)
    monkeypatch.setenv(triton_config.COARSE_VARIABLE, "separate")
    assert not fuses_coarse(torch.float16, torch.float16)
    monkeypatch.setenv(triton_config.COARSE_VARIABLE, "together")
    with pytest.raises(ValueError, match="TAI_KERNEL_COARSE='together' is not known; choose 'fused' or 'separate'"):
        fuses_coarse(torch.float16, torch.float16)
