"""A linear head on sentences: the class vectors themselves are learned, without a text tower.

After CoMC (ICML 2024), which learns a random head so; here it starts from the words' own vectors and keeps unit rows,
with the rate, the noise and the scale that the embedded model's prompts are tuned with. It moves vectors further than
prompts can; tags of both together (`tai ensemble`) gain most (benchmarks/results/systems.md).

Shape legend: M items, C classes, D embedding size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_engine.label_free.teaching_sentences import require_sentences_of, with_taught_vectors, written_sentences
from tai_engine.prompts.losses import ranking_loss
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore

MOST_SENTENCES = 100_000
_EPOCHS, _BATCH, _RATE, _SCALE = 20, 512, 1e-2, 4.0


def with_linear_head(prompts: PromptSet, sentences: FeatureStore, seed: int = 0) -> PromptSet:
    """The prompts with class vectors that learn from sentences, each sentence as if it were a picture.

    Coarse and fine features are scored with the same vectors. Memory: the coarse vectors and labels of
    `MOST_SENTENCES` sentences, [M, D] fp32 and [M, C] bool; of more, as many are taken evenly.

    Args:
        prompts: of the classes that label the sentences.
        sentences: a store of `tai cache texts`, labelled.
        seed: of the order and the noise.

    Raises:
        UserError: for a store without labels or sentences, of other classes or of another space.
    """
    require_sentences_of(prompts, sentences)
    every = math.ceil(max(1, sentences.counts()["done"]) / MOST_SENTENCES)
    rows, labels, passed = [], [], 0
    for coarse_BD, labels_BC in written_sentences(sentences):
        taken = slice(-passed % every, None, every)
        passed += len(coarse_BD)
        rows.append(coarse_BD[taken])
        labels.append(labels_BC[taken].bool())
    head_CD = learn_head(prompts.global_vectors, torch.cat(rows), torch.cat(labels), seed)
    return with_taught_vectors(prompts, sentences, "linear_head", head_CD, head_CD)


def learn_head(start_CD: Tensor, items_MD: Tensor, labels_MC: Tensor, seed: int) -> Tensor:
    """Class vectors [C, D], unit rows, by the ranking loss over cosines of disturbed items.

    Args:
        start_CD: unit class vectors; each is a training item of its class too.
        items_MD: unit rows to learn from: sentences, or pictures.
        labels_MC: [M, C] bool.
        seed: of the order and the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    items_MD = torch.cat([items_MD, start_CD])
    labels_MC = torch.cat([labels_MC, torch.eye(len(start_CD), dtype=torch.bool)])
    deviation = 1 / math.sqrt(items_MD.shape[1])  # noise of length 1
    head_CD = start_CD.clone().requires_grad_()
    optimizer = torch.optim.SGD([head_CD], lr=_RATE, momentum=0.9)
    for epoch in range(_EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * 0.5 * (1 + math.cos(math.pi * epoch / _EPOCHS)) if epoch else 1e-5
        for chosen in torch.randperm(len(items_MD), generator=generator).split(_BATCH):
            noise = torch.randn(len(chosen), items_MD.shape[1], generator=generator) * deviation
            cosines = normalize(items_MD[chosen] + noise, dim=1) @ normalize(head_CD, dim=1).T
            optimizer.zero_grad()
            ranking_loss(_SCALE * cosines, labels_MC[chosen]).backward()
            optimizer.step()
    return normalize(head_CD.detach(), dim=1)
