"""A store of pictures with labels from beside it, as tuning sees a store of labelled sentences.

Shape legend: N labelled pictures, C classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tai_engine.errors import UserError
from tai_engine.evaluation.truth import Truth
from tai_engine.features import FeatureBatch
from tai_engine.store import FeatureStore, StoredItem

_SHOTS, _KNOWN = 1, 2
_FEW_FOR_DUAL = 1000
"""Published with 5,000 pictures and more; by 76 it learned these by heart, and knew less of others than zero-shot does
(benchmarks/results/systems.md)."""


class TrainingPictures:
    """Pictures that can be trained on: those with features and labels, and of the labels those that are known.

    What is drawn depends on the seed, the ids and the labels alone. Memory: two bytes a picture and class, and the ids.

    Attributes:
        path: of the store.
        spec: of the store.
        class_names: C names, of the truth.
        data_fingerprint: of the store's content and the labels that are trained on.
        is_partial: whether some labels are unknown.
    """

    def __init__(
        self, store: FeatureStore, truth: Truth, *, known: float = 1.0, shots: int | None = None, seed: int = 1
    ) -> None:
        """Join labels and features.

        Args:
            store: of pictures.
            truth: their labels; what it calls difficult is unknown.
            known: share of the labels that are known: each of a picture's C by chance, as DualCoOp is measured.
            shots: pictures of each class that are kept: from the rarest class on, at random, and a picture that was
                taken for one class counts for all that it shows. None keeps all.
            seed: of both choices.

        Raises:
            UserError: for a store of sentences, labels without a picture in common with it, or none that is there.
        """
        if store.spec.kind == "sentences":
            raise UserError(
                f"The store {store.path} holds sentences, which have labels of their own: leave --labels out."
            )
        self._store = store
        self.path, self.spec, self.class_names = store.path, store.spec, truth.class_names
        row_of = {name: row for row, name in enumerate(truth.ids)}
        there = [item.id for group in sorted(store.groups()) for item in store.items(group) if item.status == "done"]
        rows = np.array([row_of[name] for name in there if name in row_of], dtype=np.int64)
        if not len(rows):
            first = f"first id {there[0]!r}" if there else "no picture with features"
            raise UserError(
                f"The labels (first id {truth.ids[0]!r}) and the store {store.path} ({first}) have no picture in "
                "common: ids are paths relative to the folder that was cached."
            )
        labels_NC = truth.labels[rows]
        if shots is not None:
            chosen = few_shots(labels_NC == 1, shots, seed)
            rows, labels_NC = rows[chosen], labels_NC[chosen]
        if known < 1:
            drawn = np.random.default_rng([seed, _KNOWN]).random(labels_NC.shape)
            labels_NC = np.where(drawn < known, labels_NC, 0).astype(np.int8)
        if not (labels_NC == 1).any():
            raise UserError(
                f"None of the {len(rows):,} labelled pictures of {store.path} shows a class (of the labels that are "
                "known): there is nothing to learn from; label more, or let more be known."
            )
        self._labels = labels_NC
        self._row_of = {truth.ids[row]: place for place, row in enumerate(rows.tolist())}
        self.is_partial = bool((labels_NC == 0).any())
        digest = hashlib.sha256("\0".join(self._row_of).encode() + labels_NC.tobytes())
        self.data_fingerprint = f"{store.fingerprint}:{digest.hexdigest()}"

    def __len__(self) -> int:
        return len(self._row_of)

    def known(self, item_id: str) -> NDArray[np.bool_]:
        """[C]: which labels of a picture are known."""
        return np.asarray(self._labels[self._row_of[item_id]] != 0)

    def groups(self) -> list[int]:
        """Numbers of the store's commit groups."""
        return self._store.groups()

    def items(self, group: int) -> list[StoredItem]:
        """The store's items, with known present classes for labels; None for pictures that are not trained on."""
        return [replace(item, labels=self._classes(item.id)) for item in self._store.items(group)]

    def _classes(self, item_id: str) -> tuple[int, ...] | None:
        row = self._row_of.get(item_id)
        return None if row is None else tuple(np.flatnonzero(self._labels[row] == 1).tolist())

    def read_group(self, group: int) -> FeatureBatch:
        """As the store."""
        return self._store.read_group(group)

    def read_items(self, positions: Sequence[int] | Tensor | np.ndarray, *, with_fine: bool = True) -> FeatureBatch:
        """As the store."""
        return self._store.read_items(positions, with_fine=with_fine)

    def read_texts(self, positions: Sequence[int] | Tensor | np.ndarray) -> list[str]:
        """As the store; pictures have none."""
        return self._store.read_texts(positions)

    def iter_coarse(self, batch_items: int = 1024, *, groups: Iterable[int] | None = None) -> Iterator[Any]:
        """As the store."""
        return self._store.iter_coarse(batch_items, groups=groups)


def too_few_for(system: str, pictures: int) -> str | None:
    """A sentence on why so many labelled pictures make poor prompts by a system, None if nothing speaks against it."""
    if system != "dualcoop" or pictures >= _FEW_FOR_DUAL:
        return None
    return (
        f"dualcoop starts from random contexts and wants {_FEW_FOR_DUAL:,} labelled pictures or more; of {pictures:,} "
        "it may know less afterwards than words do without any tuning: hold both against pictures that were not "
        "trained on (`tai compare`), or take --system coop."
    )


def few_shots(present_NC: NDArray[np.bool_], shots: int, seed: int) -> NDArray[np.int64]:
    """Rising indices of pictures, so that each class has ``shots`` of them, or all that there are.

    Classes choose from the rarest on, each among the pictures that are left, until it has enough with those that others
    took; a class may so have more.
    """
    order = np.random.default_rng([seed, _SHOTS]).permutation(len(present_NC))
    taken = np.zeros(len(present_NC), dtype=bool)
    for c in np.argsort(present_NC.sum(axis=0), kind="stable"):
        missing = shots - int((present_NC[:, c] & taken).sum())
        free = order[present_NC[order, c] & ~taken[order]]
        taken[free[: max(missing, 0)]] = True
    return np.flatnonzero(taken)
