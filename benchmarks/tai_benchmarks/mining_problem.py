"""Sentences to mine hard negatives from, and plain torch that mines them: what `bench_tune` measures against.

Shape legend: M sentences, C classes, D embedding size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_engine.tuning import NegativeConfig
from tai_engine.tuning.negatives.strategies import HardNegatives

HARD = NegativeConfig(strategy="hard")


class WrongNegativesError(RuntimeError):
    """What is mined is not what brute force finds."""


def mining_problem(sentences: int, dim: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Unit rows around a direction per class [M, D], labels [M, C] bool, and class vectors [C, D]."""
    generator = torch.Generator().manual_seed(0)
    queries_CD = normalize(torch.randn(classes, dim, generator=generator), dim=1)
    own_M = torch.randint(classes, (sentences,), generator=generator)
    vectors_MD = torch.randn(sentences, dim, generator=generator).mul_(dim**-0.5).add_(queries_CD[own_M], alpha=0.7)
    labels_MC = torch.zeros(sentences, classes, dtype=torch.bool)
    labels_MC[torch.arange(sentences), own_M] = True
    # Every tenth label is missing, so that there are near sentences that do not hold the class.
    labels_MC[torch.arange(0, sentences, 10), own_M[::10]] = False
    return normalize(vectors_MD, dim=1), labels_MC, queries_CD


def check_mining(strategy: HardNegatives, vectors_MD: Tensor, labels_MC: Tensor, queries_CD: Tensor) -> None:
    """Hold what is mined against plain torch.

    Raises:
        WrongNegativesError: where similarities differ by more than rounding.
    """
    expected = plain_mining(strategy, vectors_MD, labels_MC, queries_CD)
    mined = strategy.mine(queries_CD, 0)
    for c, wanted in enumerate(expected):
        _, similarities = mined.of(c)
        hard = similarities[: len(similarities) - int(mined.n_random[c])]
        if len(hard) != len(wanted) or not torch.allclose(hard, wanted.cpu(), atol=1e-5):
            raise WrongNegativesError(f"what is mined for class {c} differs from brute force")


def plain_mining(strategy: HardNegatives, vectors_MD: Tensor, labels_MC: Tensor, queries_CD: Tensor) -> list[Tensor]:
    """Similarities of each class's hard negatives by the rules of `HardNegatives`, all of them computed."""
    n_hard = HARD.per_class - round(HARD.random_share * HARD.per_class)
    similarities_CM = (queries_CD @ vectors_MD.T).masked_fill_(labels_MC.T, -torch.inf)
    ceilings_C = torch.from_numpy(strategy.ceilings(queries_CD)).to(queries_CD.device)
    similarities_CM.masked_fill_(similarities_CM > ceilings_C[:, None], -torch.inf)
    best_CK = similarities_CM.topk(min(HARD.skip_top + n_hard, len(vectors_MD)), dim=1).values[:, HARD.skip_top :]
    return [row[row > -torch.inf] for row in best_CK]
