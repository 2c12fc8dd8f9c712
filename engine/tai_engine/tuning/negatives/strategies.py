"""Hard negatives: for each class the sentences that sound most like it but do not hold it.

A sentence that a class's vector takes for one of its own teaches more than a random one, unless it does hold the class
and its label missed that. Four guards stand against such false negatives: labels come from lemmas and synonyms, so a
sentence with a synonym counts as holding the class; sentences nearly as similar as the class's own are left out; so are
the very most similar ones; and random sentences are mixed in.

Shape legend: M sentences, D embedding size, C classes, B sentences of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tai_engine.features import FeatureBatch
from tai_engine.tuning.config import NegativeConfig
from tai_engine.tuning.negatives.holders import Holders
from tai_engine.tuning.negatives.index import Floats, Ints, SentenceIndex, VectorTable, as_float_rows
from tai_engine.tuning.sentence_table import SentenceTable, StoredVectors


@dataclass(frozen=True, eq=False)
class MinedNegatives:
    """Sentences that do not hold a class: class c has ``sentences[offsets[c]:offsets[c + 1]]``.

    Attributes:
        offsets: [C + 1] int64.
        sentences: int64, most similar first, then those drawn at random.
        similarities: fp32 cosines to the class vector at the time.
        n_random: [C] int64: how many of a class's sentences, the last ones, were drawn at random.
    """

    offsets: Tensor
    sentences: Tensor
    similarities: Tensor
    n_random: Tensor

    def __len__(self) -> int:
        return len(self.sentences)

    def of(self, class_index: int) -> tuple[Tensor, Tensor]:
        """Sentences and similarities of one class."""
        rows = slice(int(self.offsets[class_index]), int(self.offsets[class_index + 1]))
        return self.sentences[rows], self.similarities[rows]

    @staticmethod
    def build(parts: Sequence[tuple[Ints, Floats, int]]) -> MinedNegatives:
        """From sentences, similarities and the number of random ones of each class."""
        counts = torch.tensor([len(sentences) for sentences, _, _ in parts], dtype=torch.int64)
        return MinedNegatives(
            offsets=torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
            sentences=torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *(p[0] for p in parts)])),
            similarities=torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *(p[1] for p in parts)])),
            n_random=torch.tensor([n for _, _, n in parts], dtype=torch.int64),
        )


class Strategy(Protocol):
    """Finds negatives for the class vectors of the moment."""

    def mine(self, class_vectors_CD: Tensor, refresh: int) -> MinedNegatives:
        """Negatives for [C, D] unit rows; ``refresh`` counts from 0 and decides what is drawn at random."""
        ...


class RandomNegatives:
    """``random``: sentences without the class, whatever they say. Memory: the drawn vectors of one class."""

    def __init__(self, vectors: VectorTable, holders: Holders, config: NegativeConfig) -> None:
        self._vectors = vectors
        self._holders = holders
        self._config = config

    def mine(self, class_vectors_CD: Tensor, refresh: int) -> MinedNegatives:
        """``per_class`` sentences for each class."""
        queries_CD = as_float_rows(class_vectors_CD)
        generator = np.random.default_rng([self._config.seed, refresh])
        parts = []
        for c in range(self._holders.n_classes):
            drawn = draw_outside(self._holders.of(c), self._holders.n_sentences, self._config.per_class, generator)
            parts.append((drawn, _similarities(self._vectors, drawn, queries_CD[c]), len(drawn)))
        return MinedNegatives.build(parts)


class HardNegatives:
    """``hard``: the most similar sentences without the class, within the guards, and some at random.

    A class that no sentence holds has nothing to compare with, so it gets random sentences only. Memory: that of
    `SentenceIndex`.
    """

    def __init__(self, vectors: VectorTable, holders: Holders, config: NegativeConfig, device: str = "auto") -> None:
        self._vectors = vectors
        self._holders = holders
        self._config = config
        self._index = SentenceIndex(vectors, holders, device=device)

    def ceilings(self, class_vectors_CD: Tensor) -> Floats:
        """[C] fp32: the highest similarity that a negative may have; -inf for a class that no sentence holds."""
        queries_CD = as_float_rows(class_vectors_CD)
        own_C = np.einsum("cd,cd->c", queries_CD, self._index.class_means_CD)
        all_C = queries_CD @ self._index.mean_D
        ceilings_C = own_C - self._config.margin * np.abs(own_C - all_C)
        return np.where(np.diff(self._holders.offsets) > 0, ceilings_C, -np.inf).astype(np.float32)

    def mine(self, class_vectors_CD: Tensor, refresh: int) -> MinedNegatives:
        """At most ``per_class`` sentences for each class."""
        config, queries_CD = self._config, as_float_rows(class_vectors_CD)
        n_random = round(config.random_share * config.per_class)
        n_hard = config.per_class - n_random
        generator = np.random.default_rng([config.seed, refresh])
        nearest = self._index.search(queries_CD, self.ceilings(class_vectors_CD), config.skip_top + max(n_hard, 1))
        parts = []
        for c in range(self._holders.n_classes):
            kept = slice(config.skip_top, config.skip_top + n_hard)
            hard, similarities = nearest.sentences[c][kept], nearest.similarities[c][kept]
            taken = np.sort(np.concatenate([self._holders.of(c), hard]))
            drawn = draw_outside(taken, self._holders.n_sentences, n_random, generator)
            random_similarities = _similarities(self._vectors, drawn, queries_CD[c])
            parts.append(
                (np.concatenate([hard, drawn]), np.concatenate([similarities, random_similarities]), len(drawn))
            )
        return MinedNegatives.build(parts)


def make_strategy(config: NegativeConfig, vectors: VectorTable, holders: Holders, *, device: str = "auto") -> Strategy:
    """The strategy that ``config`` names, which is not ``none``.

    Args:
        config: what to do.
        vectors: [M, D] unit rows, the coarse vectors of the sentences: an array, memory map, tensor or Zarr array.
        holders: which sentence holds which class.
        device: where ``hard`` searches: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises:
        UserError: for ``"cuda"`` without a usable GPU.
        ValueError: if vectors and labels do not fit together.
    """
    if config.strategy == "random":
        return RandomNegatives(vectors, holders, config)
    return HardNegatives(vectors, holders, config, device)


class NegativeMiner:
    """Mines among the training sentences of a store. Memory: that of the strategy, from the first mining on."""

    def __init__(self, training: SentenceTable, config: NegativeConfig, *, device: str) -> None:
        """Nothing is read yet.

        Args:
            training: the sentences that train.
            config: how negatives are found; its strategy is not ``none``.
            device: where to search, see `make_strategy`.
        """
        self._training = training
        self._config = config
        self._device = device
        self._strategy: Strategy | None = None

    def mine(self, class_vectors_CD: Tensor, refresh: int) -> MinedNegatives:
        """Negatives for unit rows; ``refresh`` counts from 0."""
        if self._strategy is None:
            vectors = StoredVectors(self._training)
            self._strategy = make_strategy(self._config, vectors, self._training.holders(), device=self._device)
        return self._strategy.mine(class_vectors_CD, refresh)

    def mix(
        self, batch: FeatureBatch, indices_B: Tensor, mined: MinedNegatives, generator: torch.Generator
    ) -> tuple[FeatureBatch, Tensor]:
        """The batch with its mined share, each sentence once, and the numbers of its sentences in the table."""
        mixed_B = mix_into_batch(indices_B, mined, self._config.share, generator)
        if mixed_B is indices_B:
            return batch, indices_B
        kept = len(indices_B) - round(self._config.share * len(indices_B))
        own, others = mixed_B[:kept], torch.unique(mixed_B[kept:])
        others = others[~torch.isin(others, own)]
        parts = [batch[:kept]] if kept else []
        if len(others):
            parts.append(self._training.store.read_items(self._training.positions[others]))
        return FeatureBatch.concatenate(parts), torch.cat([own, others])

    def describe(self, mined: MinedNegatives) -> list[str]:
        """Lines for people; none from a store without texts."""
        if not self._training.store.spec.has_text:
            return []
        positions_M = self._training.positions
        return describe(
            mined,
            self._training.store.class_names,
            lambda indices: self._training.store.read_texts(positions_M[indices]),
        )


def mix_into_batch(batch_B: Tensor, negatives: MinedNegatives, share: float, generator: torch.Generator) -> Tensor:
    """[B] int64: a batch whose last ``round(share * B)`` sentences are mined ones.

    Every class with negatives is equally likely to be asked for one, however many it has; the same sentence may come
    twice. Without any negatives the batch stays as it is.

    Args:
        batch_B: [B] int64 sentence indices.
        negatives: of the last refresh.
        share: in [0, 1].
        generator: on the CPU; the only source of chance.
    """
    counts_C = negatives.offsets.diff()
    classes = counts_C.nonzero().flatten()
    n_mined = round(share * len(batch_B))
    if n_mined == 0 or len(classes) == 0:
        return batch_B
    chosen = classes[torch.randint(len(classes), (n_mined,), generator=generator)]
    place = (torch.rand(n_mined, generator=generator, dtype=torch.float64) * counts_C[chosen]).long()
    mined = negatives.sentences[negatives.offsets[:-1][chosen] + place]
    return torch.cat([batch_B[: len(batch_B) - n_mined], mined.to(batch_B)])


def describe(
    negatives: MinedNegatives,
    class_names: Sequence[str],
    texts: Callable[[Sequence[int]], Sequence[str]],
    *,
    per_class: int = 3,
) -> list[str]:
    """Lines such as ``zebra ← 'a striped horse in a field' 0.71``, and one about classes without any.

    Args:
        negatives: what was mined.
        class_names: C names.
        texts: gives the sentences at indices; called once.
        per_class: the most similar ones shown; those drawn at random come last and are marked.
    """
    shown_of = [negatives.of(c)[0][:per_class].tolist() for c in range(len(class_names))]
    wanted = [sentence for shown in shown_of for sentence in shown]
    read = iter(texts(wanted) if wanted else ())
    lines, without = [], []
    for c, (name, shown) in enumerate(zip(class_names, shown_of, strict=True)):
        sentences, similarities = negatives.of(c)
        n_hard = len(sentences) - int(negatives.n_random[c])
        if not shown:
            without.append(name)
        for i in range(len(shown)):
            mark = " (random)" if i >= n_hard else ""
            lines.append(f"{name} ← {next(read)!r} {float(similarities[i]):.2f}{mark}")
    if without:
        names = ", ".join(without[:10]) + (f" and {len(without) - 10} more" if len(without) > 10 else "")
        lines.append(f"Nothing was mined for {len(without)} of {len(class_names)} classes: {names}.")
    return lines


def draw_outside(taken: Ints, n_sentences: int, count: int, generator: np.random.Generator) -> Ints:
    """``count`` different numbers of [0, n_sentences) that are not in ``taken`` (rising, all different), uniformly.

    Fewer, if there are fewer. The r-th free number is r plus the taken ones before it, found by bisection: no list of
    free numbers is ever made.
    """
    free = n_sentences - len(taken)
    ranks = generator.choice(free, size=min(count, free), replace=False) if min(count, free) else np.zeros(0, np.int64)
    return np.asarray(ranks + np.searchsorted(taken - np.arange(len(taken)), ranks, side="right"), dtype=np.int64)


def _similarities(vectors: VectorTable, sentences: Ints, query_D: Floats) -> Floats:
    """[len(sentences)] fp32 cosines."""
    if not len(sentences):
        return np.zeros(0, np.float32)
    rising, places = np.unique(sentences, return_inverse=True)
    return (as_float_rows(vectors[rising]) @ query_D)[places]
