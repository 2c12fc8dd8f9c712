import subprocess

import pytest
import torch

from tai_benchmarks import machine
from tai_benchmarks.machine import Limits, commit, environment, is_native, probes, resolve_device, slug
from tai_benchmarks.protocol import Timing, measure
from tai_engine.errors import UserError

CPU = torch.device("cpu")


def test_slug():
    assert slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert slug("AMD EPYC, AVX2, 2 threads") == "amd-epyc-avx2-2-threads"
    assert slug("Intel(R) Xeon(R) @ 2.0GHz ") == "intel-r-xeon-r-2-0ghz"


def test_devices():
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match=r"'tpu'; choose auto, cpu, cuda or cuda:N"):
        resolve_device("tpu")
    with pytest.raises(UserError, match="torch sees"):
        resolve_device("cuda:99")


def test_limits_by_hand():
    limits = Limits.of(
        {
            "copy": Timing((2.0,), 10.0),
            "gemm of fp32": Timing((1.0, 1.0), 6.0),
            "gemm of bf16": Timing((0.5,), 6.0),
            "tai/fp32": Timing((1.0,), 1.0),
        }
    )
    assert limits == Limits(5.0, {"fp32": 6.0, "bf16": 12.0})
    assert limits.gemm_for("fp32") == 6.0  # bf16's rate is no yardstick for fp32 rows
    assert limits.gemm_for("fp16") == limits.gemm_for("int8") == 12.0
    assert limits.as_fields() == {
        "machine_copy_gb_s": 5e-9, "machine_gemm_fp32_gflops": 6e-9, "machine_gemm_bf16_gflops": 1.2e-8,
    }  # fmt: skip


def test_probes_do_what_they_count(monkeypatch):
    monkeypatch.setattr(machine, "_CPU_COPY_BYTES", 1 << 20)
    monkeypatch.setattr(machine, "_CPU_GEMM_SIZE", 128)
    found = probes(CPU)
    copied = found["copy"].run()
    assert found["copy"].items == 2 * copied.nbytes
    assert bool((copied == 1).all())
    product = found["gemm of fp32"].run()
    size = product.shape[0]
    assert found["gemm of fp32"].items == 2 * size**3
    assert float(product.std()) == pytest.approx(size**0.5, rel=0.1)  # of a sum of products of standard normals
    assert ("gemm of bf16" in found) == is_native(torch.bfloat16, CPU)
    assert all(rate > 0 for rate in Limits.of(measure(found, CPU, rounds=1)).gemm_flops_per_second.values())


def test_commit(tmp_path):
    assert commit(tmp_path / "nowhere") == "unknown"

    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("1", encoding="utf-8")
    git("add", "file")
    git("commit", "-m", "one")
    clean = commit(tmp_path)
    assert len(clean) == 12
    (tmp_path / "new").write_text("untracked files do not change what runs", encoding="utf-8")
    assert commit(tmp_path) == clean
    (tmp_path / "file").write_text("2", encoding="utf-8")
    assert commit(tmp_path) == clean + "-dirty"


def test_environment_names_what_a_row_needs():
    facts = environment(CPU)
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()
    assert facts["device"].endswith(f"{torch.get_num_threads()} threads")
    assert all(facts[name] for name in ("device", "python", "triton", "tai_engine", "commit", "date"))
