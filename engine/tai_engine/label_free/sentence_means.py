"""A caption bank: class vectors moved towards the sentences that name the class.

A picture's score by a bank of sentences is the similarity with those that name the class. Averaged over them that is
the similarity with their mean vector, so that the whole bank becomes one vector a class and costs nothing to score.
Means are taken from the middle of all sentences, and prompts from the middle of all prompts, for the two lie in
different places of the space.

Shape legend: B sentences of a batch, C classes, D embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_engine.label_free.teaching_sentences import require_sentences_of, with_taught_vectors, written_sentences
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore


def with_sentence_means(prompts: PromptSet, sentences: FeatureStore) -> PromptSet:
    """The prompts with half of each class vector taken from sentences.

    ``v = normalise(normalise(T - mean T) + normalise(m - mean m))``, ``m`` the mean coarse vector of the sentences that
    name the class and ``mean m`` that of all sentences; a class that no sentence names keeps the first part alone.
    Memory: a batch of coarse vectors and [C, D] in fp64.

    Args:
        prompts: of the classes that label the sentences.
        sentences: a store of `tai cache texts`, labelled.

    Raises:
        UserError: for a store without labels or sentences, of other classes or of another space.
    """
    require_sentences_of(prompts, sentences)
    sums_CD = torch.zeros(len(prompts.class_names), prompts.dim, dtype=torch.float64)
    counts_C = torch.zeros(len(sums_CD), dtype=torch.float64)
    total_D, items = torch.zeros(prompts.dim, dtype=torch.float64), 0
    for coarse_BD, labels_BC in written_sentences(sentences):
        sums_CD += labels_BC.double().T @ coarse_BD.double()
        counts_C += labels_BC.sum(dim=0)
        total_D += coarse_BD.double().sum(dim=0)
        items += len(coarse_BD)
    # From the sums, so that a class without a sentence is exactly zero.
    towards_CD = normalize(sums_CD - counts_C[:, None] * (total_D / items), dim=1)

    def moved(vectors_CD: Tensor) -> Tensor:
        centred_CD = vectors_CD.double() - vectors_CD.double().mean(dim=0)
        if len(centred_CD) == 1:  # one class is its own middle
            centred_CD = vectors_CD.double()
        return normalize(normalize(centred_CD, dim=1) + towards_CD, dim=1).float()

    return with_taught_vectors(
        prompts, sentences, "sentence_means", moved(prompts.global_vectors), moved(prompts.local_vectors)
    )
