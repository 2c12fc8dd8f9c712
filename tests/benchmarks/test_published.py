import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tai_benchmarks.published import prenormalised_scores, published_scores

GOLDEN = Path(os.environ.get("TAI_GOLDEN", Path(__file__).parent.parent / "golden"))


@pytest.fixture(scope="module")
def golden():
    with safe_open(GOLDEN / "expected.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.mark.golden
def test_images_are_scored_as_published(golden):
    expected, settings = golden
    scores = published_scores(
        expected["image_global_no_pos"],
        expected["image_patches"],
        expected["class_global"],
        expected["class_local"],
        temperature=float(settings["tau_image"]),
        scale=float(settings["k"]),
    )
    torch.testing.assert_close(scores.coarse, expected["image_logits_global"], atol=1e-4, rtol=0)
    torch.testing.assert_close(scores.fine, expected["image_logits_local"], atol=1e-4, rtol=0)
    merged = 0.5 * expected["image_logits_global"] + 0.5 * expected["image_logits_local"]
    torch.testing.assert_close(scores.merged, merged, atol=1e-4, rtol=0)


@pytest.mark.golden
def test_padded_sentences_are_scored_as_published(golden):
    expected, settings = golden
    mask_NL = expected["sentence_tokens"] != 0
    assert not bool(mask_NL.all())  # there is padding to be masked
    vectors = (expected["sentence_global"], expected["sentence_token_features"])
    classes = (expected["class_global"], expected["class_local"])
    settings = {"temperature": float(settings["tau_text"]), "scale": float(settings["k"])}
    scores = published_scores(*vectors, *classes, **settings, mask_NL=mask_NL)
    torch.testing.assert_close(scores.coarse, expected["sentence_logits_global"], atol=1e-4, rtol=0)
    torch.testing.assert_close(scores.fine, expected["sentence_logits_local"], atol=1e-4, rtol=0)
    unmasked = published_scores(*vectors, *classes, **settings)
    assert float((unmasked.fine - expected["sentence_logits_local"]).abs().max()) > 1e-3  # the mask is what does it


def test_by_hand():
    # One item with rows (1, 0) and (0.6, 0.8), of lengths 2 and 5; one class (1, 0) of length 3: cosines 1 and 0.6.
    arguments = (
        torch.tensor([[0.0, 7.0]]),
        torch.tensor([[[2.0, 0.0], [3.0, 4.0]]]),
        torch.tensor([[0.0, 0.5]]),
        torch.tensor([[3.0, 0.0]]),
    )
    # tau = ln 3 / 0.4 gives the weights 3/4 and 1/4: 0.75 * 1 + 0.25 * 0.6 = 0.9
    tau = torch.tensor(3.0).log().item() / 0.4
    scores = published_scores(*arguments, temperature=tau, scale=2.0)
    assert [float(s) for s in scores] == pytest.approx([2.0, 1.8, 1.9])
    assert float(published_scores(*arguments, temperature=tau, scale=2.0, pooling="max").fine) == pytest.approx(2.0)
    second = torch.tensor([[False, True]])
    for pooling in ("softmax", "max"):
        fine = published_scores(*arguments, temperature=tau, scale=2.0, pooling=pooling, mask_NL=second).fine
        assert float(fine) == pytest.approx(1.2)
    with pytest.raises(ValueError, match="Unknown pooling 'mean'"):
        published_scores(*arguments, temperature=tau, pooling="mean")


def test_prenormalised_is_the_same_on_unit_vectors():
    torch.manual_seed(0)
    vectors = [torch.randn(*shape, dtype=torch.float64) for shape in ((3, 8), (3, 5, 8), (4, 8), (4, 8))]
    units = [torch.nn.functional.normalize(v, dim=-1) for v in vectors]
    for pooling in ("softmax", "max"):
        given = published_scores(*vectors, temperature=7.0, pooling=pooling)
        plain = prenormalised_scores(*units, temperature=7.0, pooling=pooling)
        for a, b in zip(given, plain, strict=True):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
