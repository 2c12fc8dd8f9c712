"""The baseline of the tuning benchmark reproduces what the published code computed."""

import pytest
import torch

from golden_set import golden_set
from tai_benchmarks.published_tuning import PublishedTuning, _ranking
from tai_engine.encoders import load_encoder


@pytest.fixture(scope="module")
def golden_model_in_memory(golden_model):
    return load_encoder(golden_model, None, device="cpu").model


def golden_tuning(model) -> PublishedTuning:
    golden = golden_set()
    contexts = (golden["ctx_global"], golden["ctx_local"])
    settings = {"temperature": golden.tau_text, "scale": golden.k}
    return PublishedTuning(model, golden["prompt_tokens"], *contexts, **settings)


@pytest.mark.golden
def test_class_vectors_and_gradients_are_the_published_ones(golden_model_in_memory):
    golden, tuning = golden_set(), golden_tuning(golden_model_in_memory)
    for kind, contexts in (("global", tuning.global_contexts), ("local", tuning.local_contexts)):
        vectors = tuning.class_vectors(contexts)
        torch.testing.assert_close(vectors.detach(), golden[f"class_{kind}"], atol=1e-4, rtol=1e-4)
    tuning.loss(golden["sentence_tokens"], golden["labels"]).backward()
    for kind, contexts in (("global", tuning.global_contexts), ("local", tuning.local_contexts)):
        expected = golden[f"grad_ctx_{kind}"]
        assert float((contexts.grad - expected).norm() / expected.norm()) <= 1e-4


@pytest.mark.golden
def test_five_steps_are_the_published_ones(golden_model_in_memory):
    golden, tuning = golden_set(), golden_tuning(golden_model_in_memory)
    optimizer = torch.optim.SGD(tuning.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    history = []
    for _ in golden["ranking_loss_history"]:
        optimizer.zero_grad()
        loss = tuning.loss(golden["sentence_tokens"], golden["labels"])
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    expected = golden["ranking_loss_history"]
    torch.testing.assert_close(torch.tensor(history, dtype=torch.float64), expected, rtol=1e-3, atol=0)
    for kind, contexts in (("global", tuning.global_contexts), ("local", tuning.local_contexts)):
        after = golden[f"ctx_{kind}_after5"]
        assert float((contexts.detach() - after).norm() / after.norm()) <= 1e-3


def test_ranking_by_hand():
    # Item 0: present 2.0 against absent 1.5 and 0.5: 0.5 + 0. Item 1: present 0 and 1 against absent 3: 4 + 3.
    scores = torch.tensor([[2.0, 1.5, 0.5], [0.0, 3.0, 1.0]])
    labels = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    assert float(_ranking(scores, labels)) == pytest.approx((0.5 + 7) / 2)
