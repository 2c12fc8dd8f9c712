"""The whole loop against the numbers of the published code, through a store on disk."""

import json
from pathlib import Path

import open_clip
import pytest
import torch

from golden_set import golden_set
from sentence_stores import write_store
from tai_engine.encoders import load_encoder
from tai_engine.tuning import TuningConfig, TuningTask, tune
from tai_engine.vocabulary import Vocabulary

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def golden_run(golden_model, tmp_path_factory):
    golden = golden_set()
    encoder = load_encoder(golden_model, None, device="cpu")
    rows, ends = golden["prompt_tokens"], golden["prompt_tokens"].argmax(dim=1).tolist()
    decode = open_clip.SimpleTokenizer().decode
    names = [decode(row[1 + golden.n_ctx : e - 1].tolist()).strip() for row, e in zip(rows, ends, strict=True)]
    vocabulary = Vocabulary.from_names(names)
    labels = [tuple(row.nonzero().flatten().tolist()) for row in golden["labels"]]
    folder = tmp_path_factory.mktemp("golden-tuning")
    store = write_store(
        folder / "store.zarr",
        encoder,
        vocabulary,
        [(f"sentence {n}", classes) for n, classes in enumerate(labels)],
        group_items=4,
        encode=lambda _, ids: encoder.encode_tokens(golden["sentence_tokens"][[int(i) for i in ids]], ids),
    )
    steps = len(golden["ranking_loss_history"])
    config = TuningConfig(
        n_contexts=golden.n_ctx,
        class_specific=golden.class_specific_contexts,
        scale=golden.k,
        text_temperature=golden.tau_text,
        learning_rate=0.1,
        schedule="constant",
        warmup_epochs=0,
        epochs=steps,
        held_out=0,
    )
    init = {"global_contexts": golden["ctx_global"], "local_contexts": golden["ctx_local"]}
    task = TuningTask.prepare(store, encoder, vocabulary, config, init)
    return tune(task, config, folder / "run"), folder / "run"


def test_losses_of_every_step(golden_run):
    result, run = golden_run
    expected = golden_set()["ranking_loss_history"]
    losses = torch.tensor([metrics.loss for metrics in result.history], dtype=torch.float64)
    torch.testing.assert_close(losses, expected, rtol=1e-3, atol=0)
    written = [json.loads(line)["loss"] for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    assert written == losses.tolist()


@pytest.mark.parametrize("kind", ["global", "local"])
def test_contexts_after_the_last_step(golden_run, kind):
    found, expected = golden_run[0].prompts.contexts[f"{kind}_contexts"], golden_set()[f"ctx_{kind}_after5"]
    assert float((found - expected).norm() / expected.norm()) <= 1e-3
    start = golden_set()[f"ctx_{kind}"]
    assert float((start - expected).norm() / expected.norm()) > 1e-2  # standing still would not do
