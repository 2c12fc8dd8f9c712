"""Whether an index would pay for `tai search`: its one pass over a store against FAISS.

    python -m tai_benchmarks.search_contest --items 100000 1000000

Makes a store of clustered vectors in fp16 (coarse ones alone, 512 numbers each) and looks for the best 20 of 1, 3 and
16 queries, each way in turn, ``--rounds`` times. Prints the medians in seconds and as ratios to the pass:

- pass: `search_like`, from opening the store to its hits;
- read: the same pass without the products;
- flat: FAISS's exact index from the same store (read, add, search), as a command that starts from nothing must do it;
- in memory: the search of that index alone, as a server could do it that holds all vectors in fp32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_engine.faiss_library import faiss
from tai_engine.features import FeatureBatch
from tai_engine.searching.search import Hit, search_like
from tai_engine.store import FeatureStore, StoredItem, StoreSpec

DIM, TOP, CLUSTERS = 512, 20, 256
QUERIES = (1, 3, 16)
_GROUP = 8192


def make_store(path: Path, items: int, seed: int = 0) -> FeatureStore:
    """A store of ``items`` clustered unit vectors."""
    generator = torch.Generator().manual_seed(seed)
    centres_KD = torch.randn(CLUSTERS, DIM, generator=generator)
    spec = StoreSpec("images", "space", "recipe", DIM, 0, group_items=_GROUP, chunk_items=1024)
    store = FeatureStore.create(path, spec)
    with store.writing():
        for group, start in enumerate(range(0, items, _GROUP)):
            ids = tuple(f"{n:08d}.jpg" for n in range(start, min(start + _GROUP, items)))
            chosen_N = torch.randint(CLUSTERS, (len(ids),), generator=generator)
            rows_ND = centres_KD[chosen_N] + torch.randn(len(ids), DIM, generator=generator)
            offsets = torch.zeros(len(ids) + 1, dtype=torch.int64)
            batch = FeatureBatch(ids, normalize(rows_ND, dim=1).half(), torch.empty(0, DIM).half(), offsets, "space")
            store.write_group(group, [StoredItem(name) for name in ids], [batch])
    return store


def contest(path: Path, queries_QD: Tensor, rounds: int) -> dict[str, float]:
    """Median seconds of each way; see the module.

    Raises:
        RuntimeError: if FAISS and the pass do not find the same items.
    """
    held = _flat(path)
    ways: dict[str, Callable[[], object]] = {
        "pass": lambda: search_like(FeatureStore.open(path), queries_QD, top=TOP),
        "read": lambda: sum(len(batch) for batch in FeatureStore.open(path).iter_batches(1024, with_fine=False)),
        "flat": lambda: _flat(path).search(queries_QD.numpy(), TOP),
        "in memory": lambda: held.search(queries_QD.numpy(), TOP),
    }
    _require_same(search_like(FeatureStore.open(path), queries_QD, top=TOP), held.search(queries_QD.numpy(), TOP)[0])
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, work in ways.items():
            begun = time.perf_counter()
            work()
            seconds[way].append(time.perf_counter() - begun)
    return {way: statistics.median(taken) for way, taken in seconds.items()}


def _flat(path: Path) -> Any:
    index = faiss.IndexFlatIP(DIM)
    for batch in FeatureStore.open(path).iter_batches(1024, with_fine=False):
        index.add(batch.coarse.float().numpy())
    return index


def _require_same(hits: list[list[Hit]], scores_QK: np.ndarray) -> None:
    found_QK = np.array([[hit.score for hit in one] for one in hits])
    if not np.allclose(found_QK, scores_QK, atol=1e-4):
        raise RuntimeError("FAISS and the pass find different items")


def main(arguments: list[str] | None = None) -> None:
    """Measure every size and print one JSON object a line."""
    parser = argparse.ArgumentParser(prog="python -m tai_benchmarks.search_contest", description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[100_000])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    for items in options.items:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "s.zarr"
            make_store(path, items)
            for queries in QUERIES:
                asked_QD = normalize(torch.randn(queries, DIM, generator=torch.Generator().manual_seed(1)), dim=1)
                found = contest(path, asked_QD, options.rounds)
                row = {way.replace(" ", "_") + "_s": round(taken, 4) for way, taken in found.items()}
                ratios = {f"{way}_to_pass": round(found[way] / found["pass"], 3) for way in ("read", "flat")}
                print(json.dumps({"items": items, "queries": queries, **row, **ratios}), flush=True)


if __name__ == "__main__":
    main()
