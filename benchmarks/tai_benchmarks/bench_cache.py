"""The cache: reads against zarr-python and the raw files, tagging from it against encoding again, and memory.

What is read is held against zarr-python first, bit by bit.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from tai_benchmarks.cache_memory import peak_of_tagging
from tai_benchmarks.cache_problem import find_pictures, random_prompts, write_random_model, write_store
from tai_benchmarks.machine import environment
from tai_benchmarks.peak_memory import NotMeasurableError
from tai_benchmarks.protocol import ROUNDS, BenchRow, Candidate, Columns, Timing, Value, measure, throughput_row
from tai_engine.decoding.decode import decode_image
from tai_engine.encoders import Encoder, load_encoder
from tai_engine.errors import UserError, unknown_choice
from tai_engine.store import FeatureStore
from tai_engine.tagging.batch_loop import tag_store
from tai_engine.tagging.tag_selection import Selection

BENCH = "cache"
CASES = ("random-128", "sequential", "re-tag", "memory")
MEMORY_BOUND_BYTES = 2e9
RANDOM_ITEMS = 128
_SEQUENTIAL_ITEMS = 256
_ROWS = 49  # of RN50 at 224 pixels
_TAGS = 5

TABLE: Columns = {}


class WrongReadError(RuntimeError):
    """What was read is not what zarr-python reads."""


@dataclass(frozen=True)
class CacheConfig:
    """What to measure.

    Attributes:
        cases: names out of ``CASES``.
        items: N of the store that is read and tagged, of RN50's shapes: 100 KB each.
        dim: D.
        classes: C of the new vocabulary.
        pictures: how many are encoded again in a sample; the result is scaled to one.
        memory_items: sizes of the stores whose tagging is measured, the smallest first.
        rounds: samples of each candidate.
        quick: smaller and without memory, within a minute.

    Raises:
        UserError: for an unknown case or a number below 1.
    """

    cases: tuple[str, ...] = CASES
    items: int = 8192
    dim: int = 1024
    classes: int = 80
    pictures: int = 64
    memory_items: tuple[int, ...] = (10_000, 1_000_000)
    rounds: int = ROUNDS
    quick: bool = False

    def __post_init__(self) -> None:
        for name in self.cases:
            if name not in CASES:
                raise unknown_choice("case", name, CASES)
        for name in ("items", "dim", "classes", "pictures", "rounds"):
            if getattr(self, name) < 1:
                raise UserError(f"The setting {name} is {getattr(self, name)}; give a number from 1.")


def configure(*, quick: bool, **wanted: Any) -> CacheConfig:
    """What was asked for; the rest as a full or a quick run has it."""
    defaults: dict[str, Any] = {}
    if quick:
        defaults = {"cases": CASES[:3], "items": 4096, "pictures": 8, "rounds": 5}
    return CacheConfig(**(defaults | wanted), quick=quick)


def run(config: CacheConfig, remark: Callable[[str], None] = lambda _: None) -> Iterator[BenchRow]:
    """Measure every case on the CPU and yield its rows. The store takes 100 KB of temporary disk an item.

    Args:
        config: what to measure.
        remark: told what is being measured and what was left out.

    Raises:
        WrongReadError: when what is read is wrong.
    """
    facts = environment(torch.device("cpu")) | {"quick": config.quick}
    if set(config.cases) - {"memory"}:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            remark(f"writing a store of {config.items} items")
            store = write_store(folder / "store", config.items, _ROWS, config.dim)
            if "random-128" in config.cases:
                yield from random_rows(config, store, facts, remark)
            if "sequential" in config.cases:
                yield from sequential_rows(config, store, facts, remark)
            if "re-tag" in config.cases:
                yield from retag_rows(config, store, folder, facts, remark)
    if "memory" in config.cases:
        try:
            yield from memory_rows(config, facts, remark)
        except NotMeasurableError as error:
            remark(f"memory is left out: {error}")


def _rows(
    case: str,
    classes: int,
    timings: Mapping[str, Timing],
    baseline: str,
    unit: str,
    extra: Mapping[str, Value],
) -> Iterator[BenchRow]:
    for name, timing in timings.items():
        yield throughput_row(BENCH, case, classes, (name, timing), (baseline, timings[baseline]), unit, extra)


# Reading


def random_rows(
    config: CacheConfig, store: FeatureStore, facts: Mapping[str, Value], remark: Callable[[str], None]
) -> Iterator[BenchRow]:
    """Batches of 128 items from anywhere; ``tai-first-touch`` has a store just opened test the checksums it meets."""
    generator = np.random.default_rng(0)
    count = min(RANDOM_ITEMS, config.items)
    batches = itertools.cycle([generator.permutation(config.items)[:count] for _ in range(64)])
    check_reads(store, next(batches))
    remark(f"random batches of {count} items: what is read equals what zarr-python reads; measuring")
    # All chunks are tested beforehand, as they are after an epoch.
    for _ in store.iter_batches(_SEQUENTIAL_ITEMS):
        pass
    plain = zarr.open_group(store.path, mode="r", zarr_format=3)
    candidates = {
        "zarr-python": Candidate(lambda: zarr_items(plain, next(batches)), count),
        "tai": Candidate(lambda: store.read_items(next(batches)), count),
        "tai-first-touch": Candidate(lambda: FeatureStore.open(store.path).read_items(next(batches)), count),
    }
    timings = measure(candidates, torch.device("cpu"), rounds=config.rounds)
    extra: dict[str, Value] = {"items": config.items, "item_bytes": store.nbytes // config.items, **facts}
    yield from _rows("random-128", 0, timings, "zarr-python", "items/s", extra)


def zarr_items(group: zarr.Group, positions_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coarse and fine rows of some items by zarr-python alone, a call for each array: the faster of its ways."""
    rows_T = (positions_N[:, None] * _ROWS + np.arange(_ROWS)).reshape(-1)
    coarse: Any = group["coarse"]
    fine: Any = group["fine"]
    return coarse.oindex[positions_N], fine.oindex[rows_T]


def check_reads(store: FeatureStore, positions_N: np.ndarray) -> None:
    """Hold what is read at random and in order against zarr-python.

    Raises:
        WrongReadError: if a single bit differs.
    """
    group = zarr.open_group(store.path, mode="r", zarr_format=3)
    coarse_ND, fine_TD = zarr_items(group, positions_N)
    fine: Any = group["fine"]
    for _ in range(2):  # chunks are tested the first time, and read in part the second
        batch = store.read_items(positions_N)
        if not (np.array_equal(batch.coarse, coarse_ND) and np.array_equal(batch.fine, fine_TD)):
            raise WrongReadError("items read at random differ from what zarr-python reads")
    first = next(store.iter_batches(_SEQUENTIAL_ITEMS))
    if not np.array_equal(first.fine, fine[: len(first.fine)]):
        raise WrongReadError("items read in order differ from what zarr-python reads")


def sequential_rows(
    config: CacheConfig, store: FeatureStore, facts: Mapping[str, Value], remark: Callable[[str], None]
) -> Iterator[BenchRow]:
    """The whole store in order; the raw files are read into one buffer of a batch's size, and nothing else is done."""
    remark(f"reading {store.nbytes / 1e9:.1f} GB in order")
    files = [path for name in ("coarse", "fine") for path in sorted((Path(store.path) / name).glob("c.*"))]
    # Of torch, as its memory is aligned: the kernel copies to other places at a third of the speed.
    buffer = torch.empty(_SEQUENTIAL_ITEMS * _ROWS * config.dim * 2, dtype=torch.uint8).numpy().data
    total = sum(path.stat().st_size for path in files)
    plain = zarr.open_group(store.path, mode="r", zarr_format=3)
    fine: Any = plain["fine"]

    def read_files() -> None:
        place = 0
        for path in files:
            size = path.stat().st_size
            place = 0 if place + size > len(buffer) else place
            with path.open("rb", buffering=0) as file:
                file.readinto(buffer[place : place + size])
            place += -(-size // 64) * 64

    def read_by_zarr() -> None:
        for start in range(0, fine.shape[0], _SEQUENTIAL_ITEMS * _ROWS):
            fine[start : start + _SEQUENTIAL_ITEMS * _ROWS]

    def read_batches(opened: FeatureStore) -> None:
        for _ in opened.iter_batches(_SEQUENTIAL_ITEMS):
            pass

    candidates = {
        "raw-file": Candidate(read_files, total / 1e9),
        "tai": Candidate(lambda: read_batches(store), total / 1e9),
        "tai-first-touch": Candidate(lambda: read_batches(FeatureStore.open(store.path)), total / 1e9),
        "zarr-python": Candidate(read_by_zarr, total / 1e9),
    }
    timings = measure(candidates, torch.device("cpu"), rounds=config.rounds)
    extra: dict[str, Value] = {"items": config.items, "batch_items": _SEQUENTIAL_ITEMS, **facts}
    yield from _rows("sequential", 0, timings, "raw-file", "GB/s", extra)


# Tagging


def retag_rows(
    config: CacheConfig,
    store: FeatureStore,
    folder: Path,
    facts: Mapping[str, Value],
    remark: Callable[[str], None],
) -> Iterator[BenchRow]:
    """Tags of a new vocabulary into a Parquet file: from the cache, and by decoding and encoding the pictures again."""
    pictures, kind = find_pictures(folder / "pictures", config.pictures)
    remark(f"tagging {config.items} items, and encoding {len(pictures)} {kind} pictures by RN50 of random weights")
    encoder = load_encoder(write_random_model(folder / "model"), None, device="cpu")
    prompts = random_prompts(config.classes, config.dim)
    selection = Selection(top_k=_TAGS)
    out = folder / "tags.parquet"
    candidates = {
        "encode-again": Candidate(lambda: encode_pictures(encoder, pictures), len(pictures)),
        "tai": Candidate(lambda: tag_store(store, prompts, out, selection=selection), config.items),
    }
    timings = measure(candidates, torch.device("cpu"), rounds=min(config.rounds, 5))
    extra: dict[str, Value] = {"items": config.items, "pictures": len(pictures), "tags": _TAGS, **facts}
    yield from _rows(f"re-tag/{kind}", config.classes, timings, "encode-again", "items/s", extra)


def encode_pictures(encoder: Encoder, pictures: list[Path]) -> None:
    """Features of JPEG files, decoded by as many threads as torch has."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        images = list(pool.map(lambda path: encoder.preprocess(decode_image(path)), pictures))
    encoder.encode_pixels(torch.stack(images), [os.fspath(path) for path in pictures])


# Memory


def memory_rows(config: CacheConfig, facts: Mapping[str, Value], remark: Callable[[str], None]) -> Iterator[BenchRow]:
    """Peak memory of fresh processes that tag stores of different sizes; the ratio is what is left of 2 GB.

    Raises:
        NotMeasurableError: on a system that does not tell.
    """
    smallest = 0
    for items in config.memory_items:
        remark(f"memory of tagging {items} items")
        found = peak_of_tagging(items)
        smallest = smallest or found.peak_bytes
        peak = found.peak_bytes / 1e9
        yield BenchRow(
            bench="cache-memory",
            case=f"tag/{items}-items",
            classes=found.classes,
            candidate="tai",
            baseline="2-gb",
            value=peak,
            unit="GB",
            p20=peak,
            p80=peak,
            ratio=MEMORY_BOUND_BYTES / found.peak_bytes,
            extra={"growth": found.peak_bytes / smallest, "seconds": found.seconds, **facts},
        )
