"""TaI-DPT together with DualCoOp: prompts from partly labelled pictures, and the mean of the scores of both.

Below the folder of the run::

    labelled.jsonl, labelled-truth.jsonl     pictures that are trained on
    labelled.zarr                            their features by the model of DualCoOp
    tested.zarr                              features of the tested pictures by the same model
    labelled/                                prompts.safetensors, the run of tuning, tags.parquet
"""

from __future__ import annotations

from pathlib import Path

from tai_engine.evaluation.truth import load_truth
from tai_engine.reproducing.picture_sets import TRAINING_LISTS, words_of
from tai_engine.reproducing.prepared import Progress, cache_pictures, load_model, write_tables
from tai_engine.reproducing.row_protocol import PartialPlan, Protocol
from tai_engine.store import FeatureStore
from tai_engine.tagging.batch_loop import tag_store
from tai_engine.tagging.ensemble import ensemble
from tai_engine.tagging.scoring import default_scoring
from tai_engine.tuning import StepProgress, TrainingPictures, TuningTask, tune


def tag_by_labels(protocol: Protocol, plan: PartialPlan, data: Path, out: Path, device: str, say: Progress) -> Path:
    """Tags of the tested pictures by prompts that were learned from the known labels of others.

    Memory: as caching, tuning and tagging.

    Args:
        protocol: of which the vocabulary counts.
        plan: what is trained on.
        data: the folder of data.
        out: the folder of the run, with ``pictures.jsonl``.
        device: for the encoder.
        say: called as it goes on.

    Raises:
        UserError: as the readers, caching and tuning.
    """
    folder, listing = out / "labelled", out / "labelled.jsonl"
    write_tables(TRAINING_LISTS[plan.data](data), listing, out / "labelled-truth.jsonl")
    encoder = load_model(plan.model, device)
    cache_pictures(listing, out / "labelled.zarr", encoder, say, "labelled pictures")
    cache_pictures(out / "pictures.jsonl", out / "tested.zarr", encoder, say, "pictures, once more")
    words, recipe = words_of(protocol.pictures), plan.recipe
    truth = load_truth(out / "labelled-truth.jsonl", words.names)
    store = FeatureStore.open(out / "labelled.zarr")
    source = TrainingPictures(store, truth, known=recipe.known, seed=recipe.seed)

    def step(at: StepProgress) -> None:
        say("labelled pictures, tuning", at.step, at.steps)

    prompts = tune(TuningTask.prepare(source, encoder, words, recipe), recipe, folder / "run", step).prompts
    prompts.save(folder / "prompts.safetensors")
    tags = folder / "tags.parquet"
    # Patches alone, as published: the vector of the whole picture takes no part in DualCoOp's scores.
    tag_store(FeatureStore.open(out / "tested.zarr"), prompts, tags, default_scoring(prompts, "fine"))
    return tags


def with_labels(plan: PartialPlan, tags: Path, labelled: Path) -> Path:
    """The file of tags that both make together, beside the first.

    Raises:
        UserError: as `ensemble`.
    """
    both = tags.with_name("together.parquet")
    ensemble(tags, labelled, both, plan.share)
    return both
