"""The best items of a store for some queries, in one pass over it.

A raw cosine says as much about the picture as about the words: some pictures are like every sentence. Scores of words
are therefore measured against a background of other words: ``(s_q - mean_b) / sd_b`` over the background's scores of
the same picture.

One pass is all that a search costs, so that no index is kept: reading is most of it, and FAISS's exact index, which
has to be made of the same vectors first, takes 2.2 to 5.3 times as long for 1 to 16 queries of 100,000 and of 1,000,000
pictures (``python -m tai_benchmarks.search_contest --items 100000 1000000``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tai_engine.errors import UserError
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.spaces import require_same_space
from tai_engine.store import FeatureStore
from tai_engine.tagging.scoring import ScoringConfig, Which, default_scoring, score

FEWEST_BACKGROUND = 20
_SLICE_ITEMS = 1024


@dataclass(frozen=True)
class Hit:
    """One item that was found.

    Attributes:
        id: of the item.
        score: by which it was found; see `search_words` and `search_like`.
    """

    id: str
    score: float


class _Best:
    """The best items so far, of equal scores the earlier ones. Memory: ``top`` items a query."""

    def __init__(self, queries: int, top: int) -> None:
        self._top = top
        self._scores_QK = torch.empty(queries, 0)
        self._ids: list[list[str]] = [[] for _ in range(queries)]

    def add(self, ids: tuple[str, ...], scores_NQ: Tensor) -> None:
        scores_QM = torch.cat([self._scores_QK, scores_NQ.T.cpu().float()], dim=1)
        kept = scores_QM.sort(dim=1, descending=True, stable=True)
        places_QK = kept.indices[:, : self._top]
        self._scores_QK = kept.values[:, : self._top]
        for query, places in enumerate(places_QK.tolist()):
            before = self._ids[query]
            self._ids[query] = [before[p] if p < len(before) else ids[p - len(before)] for p in places]

    def hits(self) -> list[list[Hit]]:
        return [
            [Hit(name, value) for name, value in zip(names, scores, strict=True)]
            for names, scores in zip(self._ids, self._scores_QK.tolist(), strict=True)
        ]


def search_words(
    store: FeatureStore,
    queries: PromptSet,
    background: PromptSet | None = None,
    *,
    top: int = 20,
    which: Which = "coarse",
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Hit]]:
    """The best items for each query, best first.

    Memory: features and scores of `_SLICE_ITEMS` items, and ``top`` items a query.

    Args:
        store: of pictures or sentences.
        queries: one class a query.
        background: other words, twenty or more, to measure against; None leaves cosines times the scale.
        top: items a query.
        which: the score, ``"coarse"``, ``"fine"`` or ``"merged"``.
        device: where scores are computed.
        progress: called with items done and in all.

    Raises:
        UserError: for another space, too few background words, a number below 1, or patches that the store lacks.
    """
    _require_top(top)
    for prompts, name in ((queries, "the query"), (background, "the background")):
        if prompts is not None:
            require_same_space(store.spec, prompts, f"the store '{store.path}'", name)
    if background is not None and len(background.class_names) < FEWEST_BACKGROUND:
        raise UserError(
            f"The background has {len(background.class_names)} words; {FEWEST_BACKGROUND} are needed to tell what is "
            "usual: name a larger vocabulary, or 'none'."
        )
    count = len(queries.class_names)
    every = queries if background is None else _joined(queries, background)
    config: ScoringConfig = replace(default_scoring(every, which), normalise="none")  # what is usual is told below
    best, done, items = _Best(count, top), 0, store.counts()["done"]
    with torch.inference_mode():
        for batch in store.iter_batches(_SLICE_ITEMS, with_fine=which != "coarse"):
            scores_NC = score(batch.to(device), every, config).scores
            found_NQ = scores_NC[:, :count]
            if background is not None:
                usual_NB = scores_NC[:, count:]
                spread_N1 = usual_NB.std(dim=1, keepdim=True).clamp_min(1e-12)
                found_NQ = (found_NQ - usual_NB.mean(dim=1, keepdim=True)) / spread_N1
            best.add(batch.ids, found_NQ)
            done += len(batch)
            if progress:
                progress(done, items)
    return best.hits()


def search_like(
    store: FeatureStore,
    vectors_QD: Tensor,
    *,
    top: int = 20,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Hit]]:
    """The items whose coarse vectors are most like given ones, by their cosine, best first.

    Memory: coarse vectors of `_SLICE_ITEMS` items, and ``top`` items a query.

    Args:
        store: of pictures or sentences.
        vectors_QD: [Q, D] unit rows of the store's own recipe.
        top: items a query.
        progress: called with items done and in all.

    Raises:
        UserError: for a number below 1.
    """
    _require_top(top)
    best, done, items = _Best(len(vectors_QD), top), 0, store.counts()["done"]
    with torch.inference_mode():
        for batch in store.iter_batches(_SLICE_ITEMS, with_fine=False):
            best.add(batch.ids, batch.coarse.float() @ vectors_QD.float().T)
            done += len(batch.ids)
            if progress:
                progress(done, items)
    return best.hits()


def _joined(queries: PromptSet, background: PromptSet) -> PromptSet:
    names = (*queries.class_names, *(f"{number}: {name}" for number, name in enumerate(background.class_names)))
    return replace(
        queries,
        class_names=names,
        global_vectors=torch.cat([queries.global_vectors, background.global_vectors]),
        local_vectors=torch.cat([queries.local_vectors, background.local_vectors]),
    )


def _require_top(top: int) -> None:
    if top < 1:
        raise UserError(f"The number of pictures to find is {top}; it must be 1 or more.")
