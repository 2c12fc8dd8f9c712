import json

import open_clip
import pytest
import torch
from typer.testing import CliRunner

from tai_benchmarks import bench_encode, encode_contest, machine, protocol
from tai_benchmarks.bench_encode import EncodeConfig, configure, run
from tai_benchmarks.encode_contest import EncodeContest, WrongFeaturesError, random_model
from tai_engine.cli.bench import app
from tai_engine.encoders.fast import resnet
from tai_engine.errors import UserError
from tiny_models import tiny_config

CPU = torch.device("cpu")
CANDIDATES = ["open_clip", "tai-exact", "tai-coarse", "tai"]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Tiny models under the names of the large ones, short samples, a small memory to copy."""
    kinds = {"RN50-quickgelu": "resnet", "ViT-B-32-quickgelu": "vit", "ViT-B-16-quickgelu": "vit"}
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: tiny_config(kinds[name]))
    monkeypatch.setattr(protocol, "_SHORTEST_SAMPLE_SECONDS", {"cpu": 1e-4, "cuda": 1e-4})
    monkeypatch.setattr(machine, "_CPU_COPY_BYTES", 1 << 16)
    monkeypatch.setattr(machine, "_CPU_GEMM_SIZE", 64)
    monkeypatch.delenv("TAI_DATA", raising=False)


def test_every_case_has_its_rows():
    said: list[str] = []
    rows = list(run(EncodeConfig(batch=3, rounds=2, device="cpu", quick=True), said.append))
    assert [(row.case, row.candidate) for row in rows] == [
        (f"{case}/batch-3", name) for case in bench_encode.CASES for name in CANDIDATES
    ]
    for row in rows:
        assert (row.bench, row.baseline, row.unit) == ("encode", "open_clip", "images/s")
        assert row.p20 <= row.value <= row.p80
        assert row.extra["rounds"] == 2
        assert row.extra["precision"] in ("fp32", "bf16")
        assert row.extra["cosine"] == 1 - row.extra["cosine_error"]
        assert -1e-6 < float(row.extra["cosine_error"]) < 1e-3
        rates = {name: rate for name, rate in row.extra.items() if name.startswith("machine_gemm_")}
        rate = rates["machine_gemm_fp32_gflops"] if row.extra["precision"] == "fp32" else max(rates.values())
        share = row.extra["gflops_per_picture"] * row.value / rate
        assert row.extra["share_of_gemm"] == pytest.approx(share)
    baseline, exact, coarse, tai = rows[:4]
    assert baseline.ratio == 1.0
    assert tai.ratio == pytest.approx(tai.value / baseline.value)
    assert [row.extra["computes"] for row in (baseline, exact, coarse, tai)] == [
        "coarse",
        "coarse and patches",
        "coarse",
        "coarse and patches",
    ]
    assert {row.extra["pictures"] for row in rows} == {"synthetic", "embedded"}
    assert any("features checked" in text for text in said)


def test_the_operations_of_a_transformer_by_hand():
    tokens, width, layers = 17, 32, 3
    patches = 2 * 16 * 3 * 16 * 16 * width
    attention = 2 * tokens * width * 4 * width + 2 * 2 * tokens * tokens * width
    mlp = 2 * 2 * tokens * width * 4 * width
    contest = EncodeContest("ViT-B-32-quickgelu", 1, CPU)
    assert contest.flops_per_picture() == patches + layers * (attention + mlp) + 2 * width * 24


def test_the_operations_of_a_residual_network_by_hand():
    tokens, width = 5, 256  # a grid of 2 x 2 and its mean
    projections = 3 * 2 * tokens * width * width + 2 * tokens * width * 24
    attention = 2 * 2 * tokens * tokens * width
    model = random_model(tiny_config("resnet"))
    convolutions = []
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda m, _, out: convolutions.append(2 * out.numel() * m.in_channels * m.kernel_size[0] ** 2)
            )
    model.encode_image(torch.zeros(1, 3, 64, 64))
    assert len(convolutions) == 3 + 4 * 4
    found = EncodeContest("RN50-quickgelu", 1, CPU).flops_per_picture()
    assert found == sum(convolutions) + projections + attention


def test_all_encode_the_same_pictures(monkeypatch):
    # Where a CPU has bf16, ours would take it.
    monkeypatch.setattr(encode_contest, "resolve_precision", lambda *_: ("fp32", "fp32"))
    contest = EncodeContest("RN50-quickgelu", 3, CPU)
    works = contest.on_tensors()
    clip = works["open_clip"]()
    assert clip.shape == (3, 24)
    torch.testing.assert_close(works["tai-coarse"]().coarse, clip, atol=1e-5, rtol=0)
    torch.testing.assert_close(works["tai"]().coarse_clip, clip, atol=1e-5, rtol=0)
    assert works["tai-coarse"]().fine.shape == (0, 24)
    torch.testing.assert_close(works["tai"]().fine, works["tai-exact"]().fine, atol=1e-5, rtol=0)
    # The model is no trivial one: pictures differ, and so do the vectors.
    assert float((clip[0] - clip[1]).abs().max()) > 1e-4
    assert set(contest.check()) == set(works)


def test_features_that_are_wrong_are_not_timed(monkeypatch):
    real = resnet.fold_batch_norm
    monkeypatch.setattr(resnet, "fold_batch_norm", lambda *given: (real(*given)[0], real(*given)[1] - 1.0))
    with pytest.raises(WrongFeaturesError, match="tai-coarse"):
        next(run(EncodeConfig(cases=("rn50-224",), batch=2, rounds=1, device="cpu")))


def test_settings():
    assert configure(quick=True).cases == ("rn50-224",)
    assert configure(quick=True, batch=3).batch == 3
    assert (configure(quick=False).batch, configure(quick=False).rounds) == (32, 15)
    with pytest.raises(UserError, match="Unknown case 'rn50'"):
        EncodeConfig(cases=("rn50",))
    with pytest.raises(UserError, match="The setting batch is 0"):
        EncodeConfig(batch=0)


def test_the_command(tmp_path):
    given = ["encode", "--cases", "vit-b32-224", "--batch", "2", "--rounds", "1", "--device", "cpu"]
    result = CliRunner().invoke(app, [*given, "--json", "--results", str(tmp_path)])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [line["candidate"] for line in lines] == CANDIDATES
    (recorded,) = tmp_path.glob("encode-*.jsonl")
    assert len(list(protocol.read_rows(recorded))) == 4
    table = CliRunner().invoke(app, [*given, "--no-record"])
    assert table.exit_code == 0
    assert "encode, images/s" in table.stdout
