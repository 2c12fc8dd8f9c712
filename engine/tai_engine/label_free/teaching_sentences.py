"""Sentences that teach words without tuning: which stores fit, and what is read of them.

Shape legend: B sentences of a batch, C classes, D embedding size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from tai_engine.errors import UserError
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.sentences.corpus import TEMPLATE_IDS
from tai_engine.spaces import require_same_space
from tai_engine.store import FeatureStore


def require_sentences_of(prompts: PromptSet, sentences: FeatureStore) -> None:
    """Check that the sentences can teach these words.

    Raises:
        UserError: for dual prompts, a store without labels, one of other classes or of another space.
    """
    if prompts.negative_vectors is not None:
        raise UserError(
            "Dual prompts have learned what a class is not, which would no longer fit: leave --sentences out."
        )
    spec, what = sentences.spec, f"The store {sentences.path}"
    if spec.kind != "sentences" or spec.labels is None:
        raise UserError(f"{what} holds no labelled sentences: make one with `tai cache texts --vocabulary`.")
    require_same_space(spec, prompts, what, "the prompt set")
    if tuple(spec.labels.class_names) != prompts.class_names:
        raise UserError(
            f"{what} is labelled with the {len(spec.labels.class_names)} classes of {spec.labels.vocabulary!r}, which "
            f"are not the {len(prompts.class_names)} classes of the prompts: label it with the same vocabulary."
        )


def written_sentences(sentences: FeatureStore) -> Iterator[tuple[Tensor, Tensor]]:
    """Coarse vectors [B, D] fp32 and labels [B, C] of the sentences that people wrote, in the order of the store.

    Sentences of templates are passed over: prompts are made of these already, and they would outnumber the others.

    Raises:
        UserError: after the last batch, if there was none.
    """
    found = 0
    for group in sentences.groups():
        items = sentences.items(group)
        for batch in sentences.iter_coarse(groups=[group]):
            assert batch.labels is not None
            slots = (batch.positions % sentences.spec.group_items).tolist()
            written = torch.tensor([not items[slot].id.startswith(TEMPLATE_IDS) for slot in slots])
            found += int(written.sum())
            yield batch.coarse[written].float(), batch.labels[written]
    if not found:
        raise UserError(
            f"The store {sentences.path} holds no sentence beside templates: give `tai cache texts` some that name a "
            "class."
        )


def with_taught_vectors(
    prompts: PromptSet, sentences: FeatureStore, way: str, global_CD: Tensor, local_CD: Tensor
) -> PromptSet:
    """The prompts with other class vectors, which say what taught them.

    Args:
        prompts: of the same classes.
        sentences: what taught.
        way: how; the name in the metadata under which the sentences' fingerprint stands.
        global_CD: [C, D] unit rows for coarse features.
        local_CD: the same for fine ones.
    """
    metadata = {**prompts.metadata, way: sentences.data_fingerprint}
    assert sentences.spec.labels is not None
    if isinstance(source := sentences.spec.labels.corpus.get("source"), str):
        metadata["sentences"] = source  # as tuned prompts say it: pictures that these describe are no test
    # The contexts of tuned prompts do not lead to these vectors.
    return replace(prompts, global_vectors=global_CD, local_vectors=local_CD, metadata=metadata, contexts={})
