import pytest
import torch

from tai_benchmarks import torch_variants
from tai_benchmarks.published import published_scores
from tai_benchmarks.torch_variants import VARIANTS, pooled, power_of_two_below, product_only, runner
from tai_kernels.scoring.pooling import POOLING_MODES


def unit(*shape):
    return torch.nn.functional.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("variant", [v for v in VARIANTS if not v.compiled], ids=lambda v: v.name)
@pytest.mark.parametrize("pooling", POOLING_MODES)
@pytest.mark.parametrize("temperature", [40.0, 100.0])
def test_every_variant_equals_the_published_formulation(variant, pooling, temperature, monkeypatch):
    torch.manual_seed(0)
    vectors = [unit(5, 12), unit(5, 7, 12), unit(11, 12), unit(11, 12)]
    truth = published_scores(*vectors, temperature=temperature, pooling=pooling)
    # Small enough that items and classes are split, unevenly.
    monkeypatch.setattr(torch_variants, "chunk_bytes", lambda _: 4 * 7 * 4 * 2)
    monkeypatch.setattr(torch_variants, "whole_bytes", lambda _: 4 * 7 * 11 * 2)
    monkeypatch.setattr(torch_variants, "_MOST_CLASSES", 4)
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.bfloat16, 4 * 2e-2)):
        scores = runner(variant, pooling, temperature, 4.0)(*(v.to(dtype) for v in vectors))
        for given, true in zip(scores, truth, strict=True):
            assert given.shape == (5, 11)
            torch.testing.assert_close(given.double(), true, atol=tolerance, rtol=0)


@pytest.mark.slow
def test_the_compiled_variant_equals_the_published_formulation():
    torch.manual_seed(0)
    vectors = [unit(4, 12), unit(4, 7, 12), unit(11, 12), unit(11, 12)]
    truth = published_scores(*vectors, temperature=40.0)
    score = runner(VARIANTS[3], "softmax", 40.0, 4.0)
    try:
        scores = score(*(v.float() for v in vectors))
    except torch._dynamo.exc.BackendCompilerFailed as error:
        pytest.skip(f"torch.compile does not work here: {error}")
    finally:
        torch.compiler.reset()
    for given, true in zip(scores, truth, strict=True):
        torch.testing.assert_close(given.double(), true, atol=2e-6, rtol=0)


def test_pooling_survives_a_high_temperature_with_low_cosines():
    # exp(100 * (-0.9 - 1)) underflows: only the true maximum can be the shift.
    similarities_NLC = torch.tensor([-0.9, -0.8]).view(1, 2, 1)
    true = (torch.tensor([-90.0, -80.0]).softmax(0) * torch.tensor([-0.9, -0.8])).sum()
    torch.testing.assert_close(pooled(similarities_NLC, "softmax", 100.0).view(()), true)


@pytest.mark.parametrize(("count", "found"), [(-3, 1), (0, 1), (1, 1), (2, 2), (3, 2), (64, 64), (127, 64)])
def test_power_of_two_below(count, found):
    assert power_of_two_below(count) == found


def test_the_bare_product_reads_every_row(monkeypatch):
    products = []
    monkeypatch.setattr(torch_variants, "chunk_bytes", lambda _: 4 * 11 * 8)
    real = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b, **k: products.append((a.shape, b.shape)) or real(a, b, **k))
    product_only(torch.ones(5, 12), torch.ones(5, 7, 12), torch.ones(11, 12), torch.ones(11, 12))
    assert products[0] == ((5, 12), (12, 11))
    assert sum(a[0] for a, _ in products[1:]) == 35
    assert {b for _, b in products} == {(12, 11)}
