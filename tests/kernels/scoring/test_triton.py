"""The Triton kernels without a GPU: interpreted for their results, compiled for their use of the chip's resources."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tai_kernels.scoring import triton_config
from tai_kernels.scoring.triton_config import SHARED_BYTES, ForwardConfig, candidates, fill, fixed_config, tuned

HERE = Path(__file__).parent
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")


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
def test_kernels_compile_for_gpus_within_their_resources():
    rows = rows_of("compile_triton.py", "quick")
    assert len(rows) == 15
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


def test_autotuning_keeps_the_fastest_and_measures_once(tmp_path, monkeypatch):
    path = tmp_path / "kernels" / "configs.json"
    monkeypatch.setattr(triton_config, "_record_path", lambda: path)
    slow, fast, refused = (ForwardConfig(n, 64, 64, 64, 4, 2) for n in (1, 2, 3))
    measured = []

    def measure(config):
        measured.append(config)
        if config == refused:
            raise RuntimeError("out of resource")
        return {slow: 2.0, fast: 1.0}[config]

    assert tuned("some GPU|bf16", [slow, refused, fast], measure) == fast
    assert measured == [slow, refused, fast]
    triton_config._recorded.cache_clear()  # as a new process would start
    assert tuned("some GPU|bf16", [slow, fast], measure) == fast
    assert len(measured) == 3
    assert tuned("other GPU|bf16", [slow], measure) == slow
    assert len(json.loads(path.read_text())) == 2
    assert [f.name for f in path.parent.iterdir()] == ["configs.json"]


def test_a_damaged_record_is_measured_anew(tmp_path, monkeypatch):
    path = tmp_path / "configs.json"
    path.write_text('{"key": {"items": 1')
    monkeypatch.setattr(triton_config, "_record_path", lambda: path)
    config = ForwardConfig(1, 64, 64, 64, 4, 2)
    assert tuned("key", [config], lambda _: 1.0) == config
    assert json.loads(path.read_text())["key"]["rows"] == 64


def test_when_every_candidate_is_refused_the_first_is_taken_and_not_recorded(tmp_path, monkeypatch):
    path = tmp_path / "configs.json"
    monkeypatch.setattr(triton_config, "_record_path", lambda: path)

    def refuse(_):
        raise RuntimeError("out of resource")

    config = ForwardConfig(1, 64, 64, 64, 4, 2)
    assert tuned("key", [config], refuse) == config
    assert not path.exists()
