import logging

import pytest
import torch

from tai_engine.encoders import devices
from tai_engine.encoders.devices import (
    BatchSize,
    image_batch,
    padded_size,
    resolve_device,
    resolve_precision,
    sentence_batch,
)
from tai_engine.errors import UserError


@pytest.fixture
def machine(monkeypatch):
    def set_up(cuda=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return set_up


def test_automatic_device(machine):
    machine()
    assert resolve_device("auto") == torch.device("cpu")
    machine(mps=True)
    assert resolve_device("auto") == torch.device("mps")
    machine(cuda=2, mps=True)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cpu") == torch.device("cpu")


def test_devices_that_are_not_there(machine):
    machine()
    with pytest.raises(UserError, match="sees no CUDA GPU; use --device cpu or auto"):
        resolve_device("cuda")
    with pytest.raises(UserError, match="sees no Apple GPU"):
        resolve_device("mps")
    machine(cuda=1)
    with pytest.raises(UserError, match=r"no 'cuda:1': this machine has 1 CUDA GPU"):
        resolve_device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "cpu:1", "cuda:x", "cuda:", "cuda:-1", ""])
def test_unknown_devices(machine, name):
    machine(cuda=1)
    with pytest.raises(UserError, match="Unknown device"):
        resolve_device(name)


def test_precisions(caplog, monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(devices, "has_fast_bf16", lambda device: device == cpu)
    found = [resolve_precision("auto", d) for d in (cpu, cuda, torch.device("mps"))]
    assert found == [("fp32", "bf16"), ("fp16", "fp16"), ("fp32", "fp32")]
    assert [resolve_precision("auto", d, fast=False) for d in (cpu, cuda)] == [("fp32", "fp32")] * 2
    assert resolve_precision("bf16", cpu) == ("bf16", "bf16")
    assert resolve_precision("fp16", cuda, fast=False) == ("fp16", "fp16")
    assert resolve_precision("fp32", cpu) == ("fp32", "fp32")
    assert not caplog.records
    monkeypatch.setattr(devices, "has_fast_bf16", lambda _device: False)
    for capability, expected in (("AVX2", "int16"), ("AVX512", "fp32"), ("DEFAULT", "fp32")):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda found=capability: found)
        assert resolve_precision("auto", cpu) == ("fp32", expected)
        assert resolve_precision("auto", cpu, fast=False) == ("fp32", "fp32")
        assert resolve_precision("auto", torch.device("mps")) == ("fp32", "fp32")
    with pytest.raises(UserError, match="Unknown precision 'int16'"):
        resolve_precision("int16", cpu)
    with caplog.at_level(logging.WARNING):
        assert resolve_precision("fp16", cpu) == ("fp16", "fp16")
        assert resolve_precision("bf16", cpu) == ("bf16", "bf16")
    assert "fp16 is slow on most CPUs" in caplog.text
    assert "bf16 is slow on this CPU" in caplog.text
    with pytest.raises(UserError, match="Unknown precision 'fp8'"):
        resolve_precision("fp8", cpu)


def test_exact_arithmetic_turns_tf32_off_and_back_on():
    before = torch.backends.cudnn.allow_tf32
    with devices.exact_arithmetic(torch.device("cuda"), "fp32"):
        assert torch.backends.cudnn.allow_tf32 is False
    assert torch.backends.cudnn.allow_tf32 is before
    with devices.exact_arithmetic(torch.device("cuda"), "fp16"):
        assert torch.backends.cudnn.allow_tf32 is before


def test_ranges_cover_everything_once():
    for total in range(8):
        ranges = list(BatchSize(3, "picture").map(lambda start, stop: (start, stop), total))
        assert [i for start, stop in ranges for i in range(start, stop)] == list(range(total))
        assert all(0 < stop - start <= 3 for start, stop in ranges)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    ],
)
def test_all_kinds_of_running_out_of_memory(error):
    batch, tried = BatchSize(8, "picture"), []

    def function(start, stop):
        tried.append((start, stop))
        if stop - start > 2:
            raise error
        return stop - start

    assert sum(batch.map(function, 5)) == 5
    assert tried == [(0, 5), (0, 2), (2, 4), (4, 5)]
    assert batch.size == 2


def test_other_errors_pass_through():
    def fail(_start, _stop):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        list(BatchSize(8, "picture").map(fail, 5))


def test_the_failed_batch_is_released_before_the_next_try():
    import weakref

    class Activations:
        pass

    alive = []

    def function(start, stop):
        activations = Activations()
        assert all(reference() is None for reference in alive)
        alive.append(weakref.ref(activations))
        if stop - start > 1:
            raise torch.OutOfMemoryError("simulated")
        return stop

    assert list(BatchSize(4, "picture").map(function, 2)) == [1, 2]


def test_padded_sizes():
    assert [padded_size(items, 6) for items in (1, 2, 3, 4, 5, 6)] == [1, 2, 4, 4, 6, 6]
    assert [padded_size(items, 32) for items in (1, 9, 17, 31, 32)] == [1, 16, 32, 32, 32]


def test_hardware_for_bf16(monkeypatch):
    for amx, avx512 in ((True, False), (False, True), (False, False)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda found=amx: found)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda found=avx512: found)
        assert devices.has_fast_bf16(torch.device("cpu")) == (amx or avx512)
        assert not devices.has_fast_bf16(torch.device("cuda"))
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert not devices.has_fast_bf16(torch.device("cpu"))


def test_first_batch_sizes():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert image_batch(0, cpu, 224).size == 16
    assert image_batch(0, cpu, 448).size == 4
    assert image_batch(0, cpu, 320).size == 4  # of 7, the power of two below
    assert image_batch(0, cuda, 320).size == 125
    assert image_batch(0, cuda, 224).size == 256
    assert image_batch(0, cpu, 4096).size == 1
    assert image_batch(0, cuda, 32).size == 1024
    assert image_batch(7, cuda, 448).size == 7
    assert sentence_batch(0, cpu).size == 64
    assert sentence_batch(5, cuda).size == 5
    with pytest.raises(UserError, match="--batch-size is -1"):
        image_batch(-1, cpu, 224)
