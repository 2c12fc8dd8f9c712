"""Peak memory of a fresh process that tags a store of many small items.

echo '{"store": "S", "out": "T.parquet"}' | python -m tai_benchmarks.cache_memory
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tai_benchmarks.cache_problem import random_prompts, write_store
from tai_benchmarks.peak_memory import ask_new_process, process_peak_bytes
from tai_engine.store import FeatureStore
from tai_engine.tagging.batch_loop import tag_store
from tai_engine.tagging.tag_selection import Selection

_DIM, _ROWS, _CLASSES, _TAGS = 16, 2, 20, 3


@dataclass(frozen=True)
class TaggingPeak:
    """What one process needed.

    Attributes:
        peak_bytes: resident memory at its worst moment, libraries included.
        seconds: of tagging.
        classes: C.
    """

    peak_bytes: int
    seconds: float
    classes: int


def peak_of_tagging(items: int, seconds: float = 3600.0) -> TaggingPeak:
    """Write a store of ``items`` synthetic items of small vectors, and tag it in a fresh process.

    Raises:
        NotMeasurableError: when that process fails, or takes longer than ``seconds``.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        write_store(store, items, _ROWS, _DIM, chunk_items=1024)
        given = {"store": str(store), "out": str(Path(folder, "tags.parquet"))}
        found = ask_new_process("tai_benchmarks.cache_memory", given, seconds)
    return TaggingPeak(**found, classes=_CLASSES)


def _main() -> None:
    given = json.load(sys.stdin)
    begun = time.perf_counter()
    prompts = random_prompts(_CLASSES, _DIM)
    tag_store(FeatureStore.open(given["store"]), prompts, given["out"], selection=Selection(top_k=_TAGS))
    json.dump({"peak_bytes": process_peak_bytes(), "seconds": time.perf_counter() - begun}, sys.stdout)


if __name__ == "__main__":
    _main()
