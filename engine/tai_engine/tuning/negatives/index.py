"""Exact search for the sentences most similar to a class that do not hold it.

Every sentence vector carries, beside its D numbers, one column per class that is 1 where the sentence holds the class.
A class's query has a large negative number there, so the inner product itself puts its own sentences last: a flat FAISS
index then needs neither a filter (a selector per class is an order of magnitude slower) nor an over-fetch that grows
with the number of sentences that hold the class.

Shape legend: M sentences, D embedding size, C classes, B classes that share the columns of one pass, F results that are
fetched, X = D + B, n sentences of one shard, U queries that are left over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tai_engine.errors import UserError
from tai_engine.faiss_library import faiss, gpu_is_usable
from tai_engine.tuning.negatives.holders import Holders

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_CLASS_BLOCK = 128
_SHARD_ROWS = 65_536
# Cosines lie in [-1, 1], so what holds the class comes after everything that does not.
_HELD = 4.0
# FAISS fetches no more than so many on a GPU.
_MOST_FETCHED = 2048
_settings_lock = Lock()


class VectorTable(Protocol):
    """[M, D] unit rows that can be read in parts: an array, a memory map, a tensor or a Zarr array."""

    @property
    def shape(self) -> Sequence[int]:
        """(M, D)."""
        ...

    def __getitem__(self, rows: slice | Ints, /) -> Any:
        """Consecutive rows, or those at rising indices."""
        ...


class Nearest(NamedTuple):
    """What a search found for each class, most similar first: C arrays of sentences and of cosines."""

    sentences: list[Ints]
    similarities: list[Floats]


@dataclass(eq=False)
class _Shard:
    first: int
    rows: Floats
    index: Any


class SentenceIndex:
    """A flat inner-product index over sentence vectors, in shards that are searched side by side.

    On a GPU that torch and FAISS can use each shard is searched there, else on the CPU, one shard per thread. Within a
    shard FAISS runs single-threaded: its OpenMP threads and torch's fight for the same cores otherwise, and a search
    may take ten times as long.

    Memory: the vectors in fp32 with one column for up to 128 classes, if that takes no more than ``memory_bytes``;
    otherwise one shard of at most 65,536 sentences per thread, read anew for every search.
    """

    def __init__(
        self,
        vectors: VectorTable,
        holders: Holders,
        *,
        device: str = "auto",
        memory_bytes: int = 1 << 30,
        threads: int | None = None,
    ) -> None:
        """Read all vectors once, for the means and, where they fit, to keep them.

        Args:
            vectors: [M, D] unit rows of any float dtype.
            holders: who holds what.
            device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
            memory_bytes: see above.
            threads: shards that are searched at the same time; by default torch's number of threads.

        Raises:
            UserError: for ``"cuda"`` without a GPU that FAISS can use.
            ValueError: if vectors and labels do not have the same number of sentences.
        """
        n_sentences, self.dim = (int(size) for size in vectors.shape)
        if n_sentences != holders.n_sentences:
            raise ValueError(f"there are {n_sentences} sentence vectors but labels of {holders.n_sentences} sentences")
        if device == "cuda" and not gpu_is_usable():
            raise UserError("The search for negatives cannot run on 'cuda' here: no usable GPU; use 'cpu' or 'auto'.")
        self.n_sentences = n_sentences
        self._vectors = vectors
        self._holders = holders
        self._gpu = faiss.StandardGpuResources() if device != "cpu" and gpu_is_usable() else None
        self._threads = 1 if self._gpu is not None else (threads or torch.get_num_threads())
        self._columns = min(holders.n_classes, _CLASS_BLOCK)
        shard_rows = max(1, min(_SHARD_ROWS, -(-n_sentences // self._threads)))
        self._starts = list(range(0, n_sentences, shard_rows))
        self._shard_rows = shard_rows
        fits = n_sentences * (self.dim + self._columns) * 4 <= memory_bytes
        self._resident: list[_Shard] | None = [] if fits else None
        # Means are sums of what is read anyway; every class vector's similarity to its sentences follows from them.
        self.mean_D = np.zeros(self.dim, np.float64)
        self.class_means_CD = np.zeros((holders.n_classes, self.dim), np.float64)
        for start in self._starts:
            shard = self._read(start)
            self._add_to_means(shard)
            if self._resident is not None:
                self._resident.append(shard)
        self.mean_D /= max(1, n_sentences)
        self.class_means_CD /= np.maximum(1, np.diff(holders.offsets))[:, None]

    def search(self, class_vectors_CD: Floats, ceilings_C: Floats, count: int) -> Nearest:
        """For each class the ``count`` most similar sentences of those that do not hold it, up to its ceiling.

        Equal similarities are in the order of the sentences; of more than ``count`` equal ones any may be found.

        Args:
            class_vectors_CD: unit rows.
            ceilings_C: the highest similarity that is taken; ``-inf`` for a class that shall have none.
            count: at least 1; fewer are found where there are fewer.
        """
        best = [_Ranked.empty()] * self._holders.n_classes
        with self._fast_search(), ThreadPoolExecutor(self._threads, initializer=_single_threaded) as pool:
            for found in pool.map(
                lambda start: self._search_shard(start, class_vectors_CD, ceilings_C, count), range(len(self._starts))
            ):
                best = [mine.merge(other, count) for mine, other in zip(best, found, strict=True)]
        return Nearest([ranked.sentences for ranked in best], [ranked.similarities for ranked in best])

    def _search_shard(self, i: int, class_vectors_CD: Floats, ceilings_C: Floats, count: int) -> list[_Ranked]:
        """The search within one shard; sentences are counted over the whole table."""
        shard = self._resident[i] if self._resident is not None else self._read(self._starts[i])
        n = len(shard.rows)
        results: list[_Ranked] = []
        for start in range(0, self._holders.n_classes, _CLASS_BLOCK):
            classes = range(start, min(start + _CLASS_BLOCK, self._holders.n_classes))
            self._mark_holders(shard, classes)
            queries_BX = np.zeros((len(classes), self.dim + self._columns), np.float32)
            queries_BX[:, : self.dim] = class_vectors_CD[start : classes.stop]
            queries_BX[range(len(classes)), range(self.dim, self.dim + len(classes))] = -_HELD
            fetched = min(n, max(256, 2 * count), _MOST_FETCHED)
            similarities_BF, rows_BF = self._on_device(shard.index).search(queries_BX, fetched)
            unfinished: list[int] = []
            for b, c in enumerate(classes):
                free = similarities_BF[b] > -_HELD / 2
                keep = free & (similarities_BF[b] <= ceilings_C[c])
                results.append(_Ranked.best(rows_BF[b][keep], similarities_BF[b][keep], count))
                # Where so many lie above the ceiling that the fetched ones do not reach below it, all are looked at.
                if keep.sum() < min(count, n) and free.all() and fetched < n and ceilings_C[c] > -np.inf:
                    unfinished.append(b)
            for b, ranked in zip(
                unfinished,
                _scan(shard.rows, queries_BX[unfinished], ceilings_C[start:][unfinished], count),
                strict=True,
            ):
                results[start + b] = ranked
        return [ranked.shift(shard.first) for ranked in results]

    def _read(self, start: int) -> _Shard:
        stop = min(start + self._shard_rows, self.n_sentences)
        index = faiss.IndexFlatIP(self.dim + self._columns)
        rows = np.zeros((stop - start, index.d), np.float32)
        rows[:, : self.dim] = as_float_rows(self._vectors[start:stop])
        index.add(rows)
        # The index keeps a copy of its own; the columns are written into that one.
        view = faiss.rev_swig_ptr(index.get_xb(), rows.size).reshape(rows.shape)
        return _Shard(start, view, index)

    def _mark_holders(self, shard: _Shard, classes: range) -> None:
        columns = shard.rows[:, self.dim :]
        columns[:] = 0
        for b, c in enumerate(classes):
            columns[self._in_shard(shard, c), b] = 1

    def _in_shard(self, shard: _Shard, class_index: int) -> Ints:
        """The rows of a shard that hold a class."""
        holders = self._holders.of(class_index)
        first, last = np.searchsorted(holders, [shard.first, shard.first + len(shard.rows)])
        return holders[first:last] - shard.first

    def _add_to_means(self, shard: _Shard) -> None:
        rows_nD = shard.rows[:, : self.dim]
        self.mean_D += rows_nD.sum(axis=0, dtype=np.float64)
        for c in range(self._holders.n_classes):
            self.class_means_CD[c] += rows_nD[self._in_shard(shard, c)].sum(axis=0, dtype=np.float64)

    def _on_device(self, index: Any) -> Any:
        return index if self._gpu is None else faiss.index_cpu_to_gpu(self._gpu, torch.cuda.current_device(), index)

    @contextmanager
    def _fast_search(self) -> Iterator[None]:
        """Let FAISS use matrix products however few the queries are; the setting is global, so it is put back."""
        with _settings_lock:
            before = faiss.cvar.distance_compute_blas_threshold
            faiss.cvar.distance_compute_blas_threshold = 1
            try:
                yield
            finally:
                faiss.cvar.distance_compute_blas_threshold = before


class _Ranked(NamedTuple):
    """Sentences with their similarities, most similar first, equal ones in order."""

    sentences: Ints
    similarities: Floats

    @classmethod
    def empty(cls) -> _Ranked:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.float32))

    @classmethod
    def best(cls, sentences: Ints, similarities: Floats, count: int) -> _Ranked:
        order = np.lexsort((sentences, -similarities))[:count]
        return cls(sentences[order], similarities[order])

    def shift(self, first: int) -> _Ranked:
        return _Ranked(self.sentences + first, self.similarities)

    def merge(self, other: _Ranked, count: int) -> _Ranked:
        return _Ranked.best(
            np.concatenate([self.sentences, other.sentences]),
            np.concatenate([self.similarities, other.similarities]),
            count,
        )


def _scan(rows_nX: Floats, queries_UX: Floats, ceilings_U: Floats, count: int) -> Iterator[_Ranked]:
    """For each of U queries the best ``count`` rows at or below its ceiling, by computing them all: [U, n] at once."""
    if not len(queries_UX):
        return
    for similarities_n, ceiling in zip(queries_UX @ rows_nX.T, ceilings_U, strict=True):
        rows = np.flatnonzero((similarities_n <= ceiling) & (similarities_n > -_HELD / 2))
        if len(rows) > count:
            # Everything that ties with the last one stays, so that the order of sentences decides between them.
            rows = rows[similarities_n[rows] >= np.partition(similarities_n[rows], -count)[-count]]
        yield _Ranked.best(rows, similarities_n[rows], count)


def _single_threaded() -> None:
    """The number of OpenMP threads is a setting of each thread."""
    faiss.omp_set_num_threads(1)


def as_float_rows(rows: Any) -> Floats:
    """Rows of a table as an fp32 array."""
    if isinstance(rows, Tensor):
        rows = rows.detach().cpu().float()
    return np.asarray(rows, dtype=np.float32)
