from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tai_engine.errors import UserError
from tai_engine.faiss_library import faiss
from tai_engine.tuning.negatives import index as sentence_index
from tai_engine.tuning.negatives.holders import Holders
from tai_engine.tuning.negatives.index import SentenceIndex

Array = np.ndarray[Any, Any]


def unit_rows(n: int, d: int, seed: int = 0) -> Array:
    rows = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_labels(m: int, c: int, share: float, seed: int = 0) -> Array:
    return np.random.default_rng(seed + 100).random((m, c)) < share


def brute_force(
    vectors: Array, labels: Array, queries: Array, ceilings: Array, count: int
) -> list[tuple[Array, Array]]:
    """All similarities, sorted; sentences of the class and those above the ceiling struck out."""
    found = []
    for c, query in enumerate(queries):
        similarities = vectors.astype(np.float64) @ query.astype(np.float64)
        order = [m for m in np.argsort(-similarities, kind="stable") if not labels[m, c]]
        chosen = [m for m in order if similarities[m] <= ceilings[c]][:count]
        found.append((np.array(chosen, dtype=np.int64), similarities[chosen]))
    return found


def assert_same(found: sentence_index.Nearest, expected: list[tuple[Array, Array]]) -> None:
    assert len(found.sentences) == len(found.similarities) == len(expected)
    for sentences, similarities, (ids, values) in zip(found.sentences, found.similarities, expected, strict=True):
        assert sentences.tolist() == ids.tolist()
        np.testing.assert_allclose(similarities, values, atol=1e-6)


# By hand


def test_search_by_hand():
    angles = np.radians([0, 10, 20, 30, 40, 50])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    labels = np.array([[1, 0], [0, 0], [0, 0], [1, 0], [0, 1], [0, 1]])
    index = SentenceIndex(vectors, Holders.from_dense(labels))
    queries = np.array([[1, 0], [0, 1]], dtype=np.float32)
    everything = np.array([np.inf, np.inf], dtype=np.float32)
    found = index.search(queries, everything, count=3)
    assert [s.tolist() for s in found.sentences] == [[1, 2, 4], [3, 2, 1]]
    np.testing.assert_allclose(found.similarities[0], np.cos(np.radians([10, 20, 40])), atol=1e-6)
    lower = np.array([np.cos(np.radians(15)), -np.inf], dtype=np.float32)
    assert [s.tolist() for s in index.search(queries, lower, count=2).sentences] == [[2, 4], []]


def test_means_by_hand():
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    index = SentenceIndex(vectors, Holders.from_dense(np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0]])))
    np.testing.assert_allclose(index.mean_D, [1.6 / 3, 1.8 / 3], atol=1e-7)
    np.testing.assert_allclose(index.class_means_CD, [[0.8, 0.4], [0.6, 0.8], [0, 0]], atol=1e-7)


def test_holders_by_hand():
    labels = torch.tensor([[1, 0, 0], [0, 0, 0], [1, 0, 1]])
    packed = Holders.from_bags(torch.tensor([0, 1, 1, 3]), torch.tensor([0, 2, 0]), 3)
    for holders in (Holders.from_dense(labels), Holders.from_dense(labels.numpy().astype(bool)), packed):
        assert (holders.n_classes, holders.n_sentences) == (3, 3)
        assert [holders.of(c).tolist() for c in range(3)] == [[0, 2], [], [2]]


@pytest.mark.parametrize(
    ("offsets", "classes"), [([0, 1], [0, 1]), ([1, 2], [0, 1]), ([0, 2, 1, 2], [0, 1]), ([0, 2], [0, 3]), ([], [])]
)
def test_labels_that_do_not_fit(offsets: list[int], classes: list[int]):
    with pytest.raises(ValueError, match=r"offsets must rise|outside the 3 classes"):
        Holders.from_bags(np.array(offsets, np.int64), np.array(classes, np.int64), 3)


# Against brute force


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize(("m", "c"), [(1, 1), (2, 3), (257, 5), (1500, 7)])
def test_search_equals_brute_force(m: int, c: int, resident: bool, threads: int):
    vectors, labels, queries = unit_rows(m, 16), random_labels(m, c, 0.3), unit_rows(c, 16, seed=1)
    index = SentenceIndex(
        vectors, Holders.from_dense(labels), threads=threads, memory_bytes=1 << 30 if resident else 0, device="cpu"
    )
    similarities = vectors @ queries.T
    for quantile in (1.0, 0.9, 0.1):
        # A little above, so that rounding does not decide about the sentence at the quantile itself.
        limits = (np.quantile(similarities, quantile, axis=0) + 1e-5).astype(np.float32)
        for count in (1, 20, m + 5):
            assert_same(
                index.search(queries, limits, count),
                brute_force(vectors, labels, queries, limits, count),
            )


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(1, 80),
    c=st.integers(1, 6),
    share=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    count=st.integers(1, 12),
    quantile=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_any_labels_ceilings_and_counts(m: int, c: int, share: float, count: int, quantile: float, seed: int):
    vectors, labels, queries = unit_rows(m, 8, seed), random_labels(m, c, share, seed), unit_rows(c, 8, seed + 1)
    between = np.sort(vectors @ queries.T, axis=0)  # halfway between two values, so that rounding decides nothing
    row = min(int(quantile * m), m - 1)
    ceilings = ((between[row] + between[min(row + 1, m - 1)]) / 2 + (1e-3 if row == m - 1 else 0)).astype(np.float32)
    index = SentenceIndex(vectors, Holders.from_dense(labels), threads=2, device="cpu")
    assert_same(index.search(queries, ceilings, count), brute_force(vectors, labels, queries, ceilings, count))


@pytest.mark.parametrize("memory_bytes", [0, 1 << 30])
def test_more_classes_and_sentences_than_one_pass_holds(memory_bytes: int, monkeypatch: pytest.MonkeyPatch):
    """Several blocks of classes, several shards, and more above the ceiling than FAISS is asked for."""
    monkeypatch.setattr(sentence_index, "_CLASS_BLOCK", 4)
    monkeypatch.setattr(sentence_index, "_SHARD_ROWS", 700)
    m, c = 3000, 11
    vectors, labels, queries = unit_rows(m, 12), random_labels(m, c, 0.2), unit_rows(c, 12, seed=1)
    ceilings = np.quantile(vectors @ queries.T, 0.3, axis=0).astype(np.float32)
    index = SentenceIndex(vectors, Holders.from_dense(labels), threads=2, memory_bytes=memory_bytes, device="cpu")
    for _ in range(2):  # the columns of the first search leave nothing behind
        assert_same(index.search(queries, ceilings, 9), brute_force(vectors, labels, queries, ceilings, 9))


def test_equal_similarities_come_in_order_of_the_sentences():
    vectors = np.repeat(unit_rows(3, 8), 5, axis=0)
    labels = np.zeros((15, 1), dtype=bool)
    labels[1] = labels[5] = True
    query = vectors[7:8]
    found = SentenceIndex(vectors, Holders.from_dense(labels), threads=2, device="cpu").search(
        query, np.array([np.inf], np.float32), 4
    )
    assert found.sentences[0].tolist() == [6, 7, 8, 9]


@pytest.mark.parametrize("kind", ["memory map", "fp16 array", "tensor", "bf16 tensor", "zarr"])
def test_tables_of_every_kind(kind: str, tmp_path: Any):
    vectors, labels, queries = unit_rows(300, 8), random_labels(300, 4, 0.3), unit_rows(4, 8, seed=1)
    table: Any
    if kind == "memory map":
        np.save(tmp_path / "vectors.npy", vectors)
        table = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    elif kind == "zarr":
        import zarr

        table = zarr.create_array(str(tmp_path / "v.zarr"), data=vectors, chunks=(64, 8), zarr_format=3)
    else:
        table = torch.from_numpy(vectors.copy())
        table = table.bfloat16() if "bf16" in kind else table
        table = table.half().numpy() if "fp16" in kind else table
    exact = sentence_index.as_float_rows(table[0:300])
    assert exact.dtype == np.float32
    no_limit = np.full(4, np.inf, np.float32)
    for memory_bytes in (0, 1 << 30):
        index = SentenceIndex(table, Holders.from_dense(labels), memory_bytes=memory_bytes, device="cpu")
        assert_same(index.search(queries, no_limit, 6), brute_force(exact, labels, queries, no_limit, 6))


# Settings, errors, memory


def test_faiss_searches_and_its_settings_are_put_back(monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[int, int, bool]] = []
    search = faiss.IndexFlatIP.search

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        main = threading.current_thread() is threading.main_thread()
        seen.append((faiss.omp_get_max_threads(), faiss.cvar.distance_compute_blas_threshold, main))
        return search(self, *args, **kwargs)

    monkeypatch.setattr(faiss.IndexFlatIP, "search", watched)
    before = faiss.cvar.distance_compute_blas_threshold, faiss.omp_get_max_threads(), torch.get_num_threads()
    index = SentenceIndex(unit_rows(50, 8), Holders.from_dense(random_labels(50, 3, 0.3)), threads=2, device="cpu")
    index.search(unit_rows(3, 8, seed=1), np.full(3, np.inf, np.float32), 4)
    assert seen == [(1, 1, False)] * 2  # one per shard
    assert (faiss.cvar.distance_compute_blas_threshold, faiss.omp_get_max_threads(), torch.get_num_threads()) == before


def test_settings_are_put_back_after_a_failure(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no search today")

    index = SentenceIndex(unit_rows(5, 8), Holders.from_dense(random_labels(5, 3, 0.3)), device="cpu")
    before = faiss.cvar.distance_compute_blas_threshold
    monkeypatch.setattr(faiss.IndexFlatIP, "search", broken)
    with pytest.raises(RuntimeError, match="no search today"):
        index.search(unit_rows(3, 8), np.full(3, np.inf, np.float32), 2)
    assert faiss.cvar.distance_compute_blas_threshold == before


class WatchedTable:
    """Tells how many rows were asked for at once."""

    def __init__(self, rows: Array) -> None:
        self._rows = rows
        self.shape = rows.shape
        self.largest = 0

    def __getitem__(self, rows: Any) -> Array:
        part = self._rows[rows]
        self.largest = max(self.largest, len(part))
        return part


def test_what_does_not_fit_is_read_in_shards(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sentence_index, "_SHARD_ROWS", 64)
    table = WatchedTable(unit_rows(1000, 8))
    index = SentenceIndex(table, Holders.from_dense(random_labels(1000, 3, 0.3)), memory_bytes=0, threads=1)
    assert index._resident is None
    index.search(unit_rows(3, 8, seed=1), np.full(3, np.inf, np.float32), 4)
    assert table.largest == 64
    kept = SentenceIndex(table, Holders.from_dense(random_labels(1000, 3, 0.3)), memory_bytes=1000 * 11 * 4)
    assert kept._resident is not None


def test_sentences_and_labels_of_different_numbers():
    with pytest.raises(ValueError, match="3 sentence vectors but labels of 2 sentences"):
        SentenceIndex(unit_rows(3, 8), Holders.from_dense(np.zeros((2, 4))))


def test_no_sentence_at_all():
    index = SentenceIndex(np.zeros((0, 8), np.float32), Holders.from_dense(np.zeros((0, 2))))
    found = index.search(unit_rows(2, 8), np.full(2, np.inf, np.float32), 4)
    assert [s.tolist() for s in found.sentences] == [[], []]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(UserError, match="no usable GPU"):
        SentenceIndex(unit_rows(3, 8), Holders.from_dense(np.zeros((3, 1))), device="cuda")


@pytest.mark.gpu
def test_search_on_a_gpu_equals_brute_force():
    vectors, labels, queries = unit_rows(5000, 16), random_labels(5000, 7, 0.3), unit_rows(7, 16, seed=1)
    index = SentenceIndex(vectors, Holders.from_dense(labels), device="cuda")
    for quantile in (1.0, 0.5):
        ceilings = (np.quantile(vectors @ queries.T, quantile, axis=0) + 1e-4).astype(np.float32)
        assert_same(index.search(queries, ceilings, 20), brute_force(vectors, labels, queries, ceilings, 20))
