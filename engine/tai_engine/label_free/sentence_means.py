"""A caption bank: class vectors moved towards the sentences that name the class.

A picture's score by a bank of sentences is the similarity with those that name the class. Averaged over them that is
the similarity with their mean vector, so that the whole bank becomes one vector a class and costs nothing to score.
Means are taken from the middle of all sentences, and prompts from the middle of all prompts, for the two lie in
different places of the space.

Shape legend: B sentences of a batch, C classes, D embedding size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_engine.errors import UserError
from tai_engine.features import require_same_space
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.sentences.corpus import TEMPLATE_IDS
from tai_engine.store import FeatureStore


def with_sentence_means(prompts: PromptSet, sentences: FeatureStore) -> PromptSet:
    """The prompts with half of each class vector taken from sentences.

    ``v = normalise(normalise(T - mean T) + normalise(m - mean m))``, ``m`` the mean coarse vector of the sentences that
    name the class and ``mean m`` that of all sentences; a class that no sentence names keeps the first part alone.
    Sentences of templates are passed over: the prompts are made of these already, and they would outnumber the others.
    Memory: a batch of coarse vectors and [C, D] in fp64.

    Args:
        prompts: of the classes that label the sentences.
        sentences: a store of `tai cache texts`, labelled.

    Raises:
        UserError: for a store without labels or sentences, of other classes or of another space.
    """
    if prompts.negative_vectors is not None:
        raise UserError(
            "Dual prompts have learned what a class is not, which would no longer fit: leave --sentences out."
        )
    spec, what = sentences.spec, f"The store {sentences.path}"
    if spec.kind != "sentences" or spec.labels is None:
        raise UserError(f"{what} holds no labelled sentences: make one with `tai cache texts --vocabulary`.")
    require_same_space(spec.space_key, prompts.space_key, what, "the prompt set", (spec.dim, prompts.dim))
    if tuple(spec.labels.class_names) != prompts.class_names:
        raise UserError(
            f"{what} is labelled with the {len(spec.labels.class_names)} classes of {spec.labels.vocabulary!r}, which "
            f"are not the {len(prompts.class_names)} classes of the prompts: label it with the same vocabulary."
        )
    sums_CD = torch.zeros(len(prompts.class_names), prompts.dim, dtype=torch.float64)
    counts_C = torch.zeros(len(sums_CD), dtype=torch.float64)
    total_D, items = torch.zeros(prompts.dim, dtype=torch.float64), 0
    for coarse_BD, labels_BC in _written(sentences):
        sums_CD += labels_BC.T @ coarse_BD
        counts_C += labels_BC.sum(dim=0)
        total_D += coarse_BD.sum(dim=0)
        items += len(coarse_BD)
    if not items:
        raise UserError(f"{what} holds no sentence beside templates: give `tai cache texts` some that name a class.")
    # From the sums, so that a class without a sentence is exactly zero.
    towards_CD = normalize(sums_CD - counts_C[:, None] * (total_D / items), dim=1)

    def moved(vectors_CD: Tensor) -> Tensor:
        centred_CD = vectors_CD.double() - vectors_CD.double().mean(dim=0)
        if len(centred_CD) == 1:  # one class is its own middle
            centred_CD = vectors_CD.double()
        return normalize(normalize(centred_CD, dim=1) + towards_CD, dim=1).float()

    metadata = {**prompts.metadata, "sentence_means": sentences.data_fingerprint}
    if isinstance(source := spec.labels.corpus.get("source"), str):
        metadata["sentences"] = source  # as tuned prompts say it: pictures that these describe are no test
    # The contexts of tuned prompts do not lead to these vectors.
    return replace(
        prompts,
        global_vectors=moved(prompts.global_vectors),
        local_vectors=moved(prompts.local_vectors),
        metadata=metadata,
        contexts={},
    )


def _written(sentences: FeatureStore) -> Iterator[tuple[Tensor, Tensor]]:
    """Coarse vectors [B, D] and labels [B, C] in fp64 of the sentences that people wrote."""
    for group in sentences.groups():
        items = sentences.items(group)
        for batch in sentences.iter_coarse(groups=[group]):
            assert batch.labels is not None
            slots = (batch.positions % sentences.spec.group_items).tolist()
            written = torch.tensor([not items[slot].id.startswith(TEMPLATE_IDS) for slot in slots])
            yield batch.coarse[written].double(), batch.labels[written].double()
