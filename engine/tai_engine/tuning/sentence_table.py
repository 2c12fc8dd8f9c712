"""Which sentences (or labelled pictures) of a store train and which are held out, their labels, and in which order.

Shape legend: M sentences, B sentences of a batch, C classes, D embedding size.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from tai_engine.errors import UserError
from tai_engine.features import FeatureBatch, offsets_from_counts
from tai_engine.tuning.config import TuningConfig
from tai_engine.tuning.negatives.holders import Holders
from tai_engine.tuning.training_pictures import TrainingPictures

_HELD_OUT_SCORES = 20_000_000
_HELD_OUT_SENTENCES = 10_000
_HASH_RANGE = 1 << 64
ORDER, MIX, NOISE = 1, 2, 3
"""What chance decides: the order of an epoch, which mined sentences a step sees, how its sentences are disturbed."""


class SentenceStore(Protocol):
    """What tuning needs of a store of labelled sentences; `tai_engine.store.FeatureStore` has it."""

    path: Path | str

    @property
    def spec(self) -> Any:
        """Kind, space, sizes and what the labels mean."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names in the order of the labels."""

    @property
    def data_fingerprint(self) -> str:
        """Of all ids, texts and labels."""

    def groups(self) -> list[int]:
        """Numbers of the commit groups."""

    def items(self, group: int) -> Sequence[Any]:
        """Id, status, text and labels of a group's slots."""

    def read_group(self, group: int) -> FeatureBatch:
        """The done items of a group, in slot order."""

    def read_items(self, positions: Sequence[int] | Tensor | np.ndarray, *, with_fine: bool = True) -> FeatureBatch:
        """Items from anywhere, in the order given; a position is group x ``spec.group_items`` + slot."""

    def read_texts(self, positions: Sequence[int] | Tensor | np.ndarray) -> list[str]:
        """Their texts."""

    def iter_coarse(self, batch_items: int = 1024, *, groups: Iterable[int] | None = None) -> Iterator[Any]:
        """Positions and coarse vectors of the done items."""


@dataclass(frozen=True, eq=False)
class SentenceTable:
    """Where sentences lie in a store and what they hold. Memory: 24 bytes a sentence and 8 a label, twice while made.

    Attributes:
        store: theirs.
        positions: [M] int64, rising.
        places: [M] int64: which of the done items of its commit group each one is.
        label_offsets: [M + 1] int64.
        label_classes: int64; sentence m holds ``label_classes[label_offsets[m]:label_offsets[m + 1]]``.
        n_classes: C.
        known: [M, C] bool, which labels are known; None where all are.
    """

    store: SentenceStore
    positions: Tensor
    places: Tensor
    label_offsets: Tensor
    label_classes: Tensor
    n_classes: int
    known: Tensor | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def labels(self, indices_B: Tensor) -> Tensor:
        """[B, C] bool: which classes the sentences with these numbers hold."""
        counts_B = self.label_offsets.diff()[indices_B]
        offsets = offsets_from_counts(counts_B)
        shift = torch.repeat_interleave(self.label_offsets[:-1][indices_B] - offsets[:-1], counts_B)
        classes = self.label_classes[torch.arange(int(offsets[-1])) + shift]
        labels_BC = torch.zeros(len(indices_B), self.n_classes, dtype=torch.bool)
        labels_BC[torch.repeat_interleave(torch.arange(len(indices_B)), counts_B), classes] = True
        return labels_BC

    def targets(self, indices_B: Tensor) -> Tensor:
        """The labels as a loss takes them: [B, C] bool, or int8 of 1, -1 and 0 (unknown) where some are unknown."""
        labels_BC = self.labels(indices_B)
        if self.known is None:
            return labels_BC
        return (2 * labels_BC.to(torch.int8) - 1) * self.known[indices_B]

    def class_counts(self) -> Tensor:
        """[C] int64: how many sentences hold each class."""
        return torch.bincount(self.label_classes, minlength=self.n_classes)

    def holders(self) -> Holders:
        """The same labels listed by class."""
        return Holders.from_bags(self.label_offsets, self.label_classes, self.n_classes)

    def subset(self, chosen_M: Tensor) -> SentenceTable:
        """The sentences that a [M] bool marks."""
        counts_M = self.label_offsets.diff()
        return SentenceTable(
            store=self.store,
            positions=self.positions[chosen_M],
            places=self.places[chosen_M],
            label_offsets=offsets_from_counts(counts_M[chosen_M]),
            label_classes=self.label_classes[torch.repeat_interleave(chosen_M, counts_M)],
            n_classes=self.n_classes,
            known=None if self.known is None else self.known[chosen_M],
        )


class Split(NamedTuple):
    """The sentences that train, and those that are held out."""

    training: SentenceTable
    held_out: SentenceTable


def split_sentences(store: SentenceStore, held_out: float) -> Split:
    """Deal out the labelled sentences of a store.

    A sentence is held out if the hash of its text (of its id, in a store without texts) is among the lowest share
    ``held_out`` of all that there can be: equal sentences stay together, and new ones do not move the old. No more than
    10,000 are held out, and fewer where there are thousands of classes, for their scores are kept: 20 million at most.

    Raises:
        UserError: if no sentence is left to train on.
    """
    table, hashes_M = _read_table(store)
    limit = min(_HELD_OUT_SENTENCES, max(_HELD_OUT_SCORES // table.n_classes, 1))
    ceiling = int(held_out * (_HASH_RANGE - 1))
    if int((hashes_M < ceiling).sum()) > limit:
        ceiling = int(np.partition(hashes_M, limit)[limit])
    is_held = torch.from_numpy(hashes_M < ceiling)
    if bool(is_held.all()):
        if isinstance(store, TrainingPictures):
            raise UserError(
                f"All {len(table)} labelled pictures of the store {store.path} are held out: label more, or hold out "
                "less."
            )
        raise UserError(
            f"The store {store.path} has no labelled sentence to train on ({len(table)} are held out); give "
            "`tai cache texts` more sentences that name a class of the vocabulary."
        )
    return Split(table.subset(~is_held), table.subset(is_held))


def _read_table(store: SentenceStore) -> tuple[SentenceTable, np.ndarray]:
    """All labelled sentences, and [M] uint64 hashes of their texts; group by group."""
    positions, places, counts, classes, hashes = (array(kind) for kind in "qqqqQ")
    pictures = store if isinstance(store, TrainingPictures) else None
    known_rows: list[np.ndarray] = []
    for group in sorted(store.groups()):
        place = 0
        for slot, item in enumerate(store.items(group)):
            if item.status != "done":
                continue
            # A picture without any class teaches what is not there; such a sentence teaches nothing.
            if item.labels or (pictures is not None and item.labels is not None):
                if pictures is not None and pictures.is_partial:
                    known_rows.append(pictures.known(item.id))
                positions.append(group * int(store.spec.group_items) + slot)
                places.append(place)
                counts.append(len(item.labels))
                classes.extend(item.labels)
                text = item.id if item.text is None else item.text
                # A number below 2^64 that is the same on every machine.
                hashes.append(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))
            place += 1
    columns = (torch.from_numpy(np.array(numbers, np.int64)) for numbers in (positions, places, counts, classes))
    positions_M, places_M, counts_M, label_classes = columns
    table = SentenceTable(
        store=store,
        positions=positions_M,
        places=places_M,
        label_offsets=offsets_from_counts(counts_M),
        label_classes=label_classes,
        n_classes=len(store.class_names),
        known=torch.from_numpy(np.stack(known_rows)) if known_rows else None,
    )
    return table, np.array(hashes, dtype=np.uint64)


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

    def __init__(self, table: SentenceTable, config: TuningConfig) -> None:
        self._table = table
        self._config = config
        self.batch_size = min(config.batch_size, len(table))
        self.steps = len(table) // self.batch_size
        groups_M = table.positions // int(table.store.spec.group_items)
        self._groups, counts = torch.unique_consecutive(groups_M, return_counts=True)
        self._bounds = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[tuple[FeatureBatch, Tensor]]:
        """Features of each batch and [B] int64, the numbers of its sentences in the table, from ``first_step`` on.

        What is skipped is not read.
        """
        generator = generator_of(self._config.seed, ORDER, epoch)
        # Groups go by their place in the list of groups.
        shuffled = torch.randperm(len(self._groups), generator=generator).tolist()
        first, end = first_step * self.batch_size, self.steps * self.batch_size
        dealt = held = 0
        pieces: list[tuple[FeatureBatch, Tensor]] = []
        for start in range(0, len(shuffled), self._config.window_groups):
            groups = sorted(shuffled[start : start + self._config.window_groups])
            order = torch.cat([torch.arange(*self._bounds[group : group + 2].tolist()) for group in groups])
            order = order[torch.randperm(len(order), generator=generator)]
            rest = order[max(first - dealt, 0) : max(end - dealt, 0)]
            dealt += len(order)
            if not len(rest):
                continue
            loaded = {group: self._table.store.read_group(int(self._groups[group])) for group in groups}
            while len(rest):
                now, rest = rest[: self.batch_size - held], rest[self.batch_size - held :]
                pieces.append((self._select(loaded, now), now))
                held += len(now)
                if held == self.batch_size:
                    batches, indices = zip(*pieces, strict=True)
                    yield FeatureBatch.concatenate(batches) if len(batches) > 1 else batches[0], torch.cat(indices)
                    pieces, held = [], 0

    def _select(self, loaded: Mapping[int, FeatureBatch], indices: Tensor) -> FeatureBatch:
        """Features of some sentences of the loaded groups, in the order given."""
        rising, back = indices.sort()
        bounds = torch.searchsorted(rising, self._bounds)
        parts = []
        for group, batch in loaded.items():
            own = rising[bounds[group] : bounds[group + 1]]
            if len(own):
                parts.append(batch.select(self._table.places[own].tolist()))
        joined = FeatureBatch.concatenate(parts) if len(parts) > 1 else parts[0]
        return joined.select(back.argsort().tolist())


class StoredVectors:
    """[M, D]: the coarse vectors of a table's sentences, read from the store in parts as they are asked for."""

    def __init__(self, table: SentenceTable) -> None:
        self._store = table.store
        self._positions = table.positions
        self.shape = (len(table), int(table.store.spec.dim))

    def __getitem__(self, rows: slice | np.ndarray) -> Tensor:
        """Consecutive rows, or those at rising indices."""
        if not isinstance(rows, slice):
            positions = self._positions[torch.from_numpy(np.asarray(rows, np.int64))]
            return self._store.read_items(positions, with_fine=False).coarse
        wanted = self._positions[rows]
        if not len(wanted):
            return torch.zeros(0, self.shape[1])
        groups = torch.unique(wanted // int(self._store.spec.group_items)).tolist()
        batches = self._store.iter_coarse(groups=groups)
        return torch.cat([batch.coarse[torch.isin(batch.positions, wanted)] for batch in batches])
