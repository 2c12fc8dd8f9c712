"""The order in which sentences are trained on, shuffled within bounded memory.

Shape legend: M training sentences, B sentences of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from tai_engine.features import FeatureBatch
from tai_engine.tuning.sentence_table import SentenceStore, SentenceTable

ORDER, MIX, NOISE = 1, 2, 3
"""What chance decides: the order of an epoch, which mined sentences a step sees, how its sentences are disturbed."""


def generator_of(seed: int, purpose: int, number: int) -> torch.Generator:
    """A source of chance that depends on nothing but its arguments, so that a run can go on anywhere.

    Args:
        seed: of the run.
        purpose: ``ORDER``, ``MIX`` or ``NOISE``.
        number: of the epoch or step.
    """
    state = np.random.SeedSequence([seed, purpose, number]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


class EpochOrder:
    """Batches of an epoch: commit groups are shuffled, and the sentences of a few groups at a time among each other.

    So two sentences that lie far apart in the store meet in a batch only in epochs that bring their groups together;
    with ``window_groups`` groups or fewer in the store the order is uniform. It depends on seed and epoch alone. The
    last, incomplete batch of an epoch is left out; a store with fewer sentences than a batch is one batch.

    Memory: the rows of ``window_groups`` commit groups and of two batches, and 8 bytes a sentence.

    Attributes:
        batch_size: B.
        steps: batches of an epoch.
    """

    def __init__(
        self, store: SentenceStore, table: SentenceTable, *, batch_size: int, seed: int, window_groups: int
    ) -> None:
        self._store = store
        self._table = table
        self._seed = seed
        self._window_groups = window_groups
        self.batch_size = min(batch_size, len(table))
        self.steps = len(table) // self.batch_size
        groups_M = table.positions // int(store.spec.group_items)
        self._groups, counts = torch.unique_consecutive(groups_M, return_counts=True)
        self._bounds = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[tuple[FeatureBatch, Tensor]]:
        """Features of each batch and [B] int64, the numbers of its sentences in the table, from ``first_step`` on.

        What is skipped is not read.
        """
        first, end = first_step * self.batch_size, self.steps * self.batch_size
        dealt = held = 0
        pieces: list[tuple[FeatureBatch, Tensor]] = []
        for groups, order in self._windows(epoch):
            rest = order[max(first - dealt, 0) : max(end - dealt, 0)]
            dealt += len(order)
            if not len(rest):
                continue
            loaded = {group: self._store.read_group(int(self._groups[group])) for group in groups}
            while len(rest):
                now, rest = rest[: self.batch_size - held], rest[self.batch_size - held :]
                pieces.append((self._select(loaded, groups, now), now))
                held += len(now)
                if held == self.batch_size:
                    yield (
                        FeatureBatch.concatenate([batch for batch, _ in pieces]) if len(pieces) > 1 else pieces[0][0],
                        torch.cat([indices for _, indices in pieces]),
                    )
                    pieces, held = [], 0

    def _windows(self, epoch: int) -> Iterator[tuple[list[int], Tensor]]:
        """Groups (by their place in the list of groups) of each window, and its sentences in random order."""
        generator = generator_of(self._seed, ORDER, epoch)
        shuffled = torch.randperm(len(self._groups), generator=generator).tolist()
        for start in range(0, len(shuffled), self._window_groups):
            groups = sorted(shuffled[start : start + self._window_groups])
            indices = torch.cat([torch.arange(*self._bounds[group : group + 2].tolist()) for group in groups])
            yield groups, indices[torch.randperm(len(indices), generator=generator)]

    def _select(self, loaded: dict[int, FeatureBatch], groups: list[int], indices: Tensor) -> FeatureBatch:
        """Features of some sentences of the loaded groups, in the order given."""
        rising, back = indices.sort()
        bounds = torch.searchsorted(rising, self._bounds)
        parts = []
        for group in groups:
            own = rising[bounds[group] : bounds[group + 1]]
            if len(own):
                parts.append(loaded[group].select(self._table.places[own].tolist()))
        joined = FeatureBatch.concatenate(parts) if len(parts) > 1 else parts[0]
        return joined.select(back.argsort().tolist())
