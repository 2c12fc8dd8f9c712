"""What a collection should cost on a cluster: time, money and disk, computed from rates.

    python -m tai_benchmarks.cluster_cost --encode-rate 2000 --decode-rate "233@one core, 640 x 480 JPEG" \\
        --price-per-gpu-hour 2.5

A rate is ``NUMBER@WHERE`` if it was measured, and counts as assumed as a plain number; the table says which is which.
Sizes are those that a store reckons with before it is filled. What is left out: the pictures' own storage, traffic
between regions, and machines that stand idle.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tai_engine.files import human_bytes
from tai_engine.store import StoreSpec

COLLECTIONS = (10**6, 10**9)


@dataclass(frozen=True)
class Rate:
    """A number with its origin.

    Attributes:
        value: in the unit of its option.
        measured: where it was measured; empty for an assumption.
    """

    value: float
    measured: str = ""

    @classmethod
    def parse(cls, text: str) -> Rate:
        """``"233@one core"`` or ``"233"``.

        Raises:
            ValueError: unless it is a number above 0, alone or with ``@`` and some words.
        """
        number, at, measured = text.partition("@")
        rate = cls(float(number.replace(",", "")), measured.strip())
        if rate.value <= 0 or (at and not rate.measured):
            raise ValueError(f"{text!r} is not a rate: give NUMBER or NUMBER@WHERE, the number above 0")
        return rate

    @property
    def origin(self) -> str:
        """For the table's legend."""
        return f"measured ({self.measured})" if self.measured else "assumed"


@dataclass(frozen=True)
class Prices:
    """In one currency: a GPU (with its share of the machine) for an hour, a GB for a month, a thousand writes."""

    gpu_hour: float
    gb_month: float
    thousand_writes: float


@dataclass(frozen=True)
class Fleet:
    """What does the work.

    Attributes:
        encode: pictures per second on one GPU.
        decode: pictures per second on one core, reading and resizing included.
        read: bytes per second of a store that one GPU's machine reads, for tagging.
        score: pictures per second that one GPU scores when their features are in memory.
        cores_per_gpu: cores that decode for a GPU.
        gpus: how many there are.
        worker: what they are called, where they are no GPUs: ``"machine"``.
    """

    encode: Rate
    decode: Rate
    read: Rate
    score: Rate
    cores_per_gpu: int
    gpus: int
    worker: str = "GPU"

    @property
    def cache_rate(self) -> float:
        """Pictures per second and GPU: the slower of encoding and the cores' decoding."""
        return min(self.encode.value, self.decode.value * self.cores_per_gpu)

    @property
    def cache_limit(self) -> str:
        """Which of the two it is."""
        return "encode" if self.encode.value <= self.decode.value * self.cores_per_gpu else "decode"

    def tag_rate(self, bytes_per_picture: float) -> float:
        """Pictures per second and GPU: the slower of reading the store and scoring."""
        return min(self.score.value, self.read.value / bytes_per_picture)


@dataclass(frozen=True)
class Estimate:
    """What a collection of ``pictures`` takes; money in the currency of the prices, times in hours."""

    pictures: int
    cache_gpu_hours: float
    cache_hours: float
    cache_price: float
    store_bytes: int
    store_files: int
    write_price: float
    month_price: float
    tag_gpu_hours: float
    tag_price: float


def files_per_group(spec: StoreSpec) -> int:
    """Chunks that a full commit group writes, and its record."""
    chunks = spec.group_items // spec.chunk_items
    row_arrays = 1 + spec.has_coarse_clip + spec.has_fine + spec.is_quantised
    columns = 5 + spec.has_text + (spec.labels is not None) + spec.has_content_hash  # id, status, count, size, time
    return chunks * row_arrays + columns + 1


def estimate(pictures: int, spec: StoreSpec, cluster: Fleet, prices: Prices) -> Estimate:
    """The figures of one collection."""
    size = spec.estimate_bytes(pictures)
    files = -(-pictures // spec.group_items) * files_per_group(spec)
    cache_gpu_hours = pictures / cluster.cache_rate / 3600
    tag_gpu_hours = pictures / cluster.tag_rate(size / pictures) / 3600
    return Estimate(
        pictures=pictures,
        cache_gpu_hours=cache_gpu_hours,
        cache_hours=cache_gpu_hours / cluster.gpus,
        cache_price=cache_gpu_hours * prices.gpu_hour,
        store_bytes=size,
        store_files=files,
        write_price=files / 1000 * prices.thousand_writes,
        month_price=size / 1e9 * prices.gb_month,
        tag_gpu_hours=tag_gpu_hours,
        tag_price=tag_gpu_hours * prices.gpu_hour,
    )


def stores(dim: int, rows: int, coarse_clip: bool) -> dict[str, StoreSpec]:
    """The kinds of stores that are compared, by name."""

    def spec(row_dtype: str, fine_rows: int) -> StoreSpec:
        return StoreSpec(
            "images", "", "", dim, fine_rows, row_dtype, has_coarse_clip=coarse_clip, has_content_hash=True
        )

    return {"fp16": spec("float16", rows), "int8": spec("int8", rows), "coarse only, fp16": spec("float16", 0)}


def table(specs: dict[str, StoreSpec], cluster: Fleet, prices: Prices) -> str:
    """The figures as a Markdown table, with the origin of every rate below."""
    worker = cluster.worker
    head = (
        "pictures", "store", f"{worker} hours", f"hours on {cluster.gpus} {worker}s", f"{worker} price", "size",
        "files", "writes", "storage per month", f"tag again: {worker} hours", "price",
    )  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for pictures in COLLECTIONS:
        for name, spec in specs.items():
            one = estimate(pictures, spec, cluster, prices)
            cells = (
                f"{pictures:,}", name, _number(one.cache_gpu_hours), _number(one.cache_hours),
                _number(one.cache_price), human_bytes(one.store_bytes), f"{one.store_files:,}",
                _number(one.write_price), _number(one.month_price), _number(one.tag_gpu_hours), _number(one.tag_price),
            )  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        f"- A {worker} with {cluster.cores_per_gpu} cores caches {_number(cluster.cache_rate)} pictures/s; "
        f"{cluster.cache_limit} is the limit.",
        f"- Encode, pictures/s and {worker}: {_number(cluster.encode.value)}, {cluster.encode.origin}.",
        f"- Decode, pictures/s and core: {_number(cluster.decode.value)}, {cluster.decode.origin}.",
        f"- Read a store, a second: {human_bytes(cluster.read.value)}, {cluster.read.origin}.",
        f"- Score, pictures/s and {worker}: {_number(cluster.score.value)}, {cluster.score.origin}.",
        f"- Prices (assumed): {prices.gpu_hour:g} for a {worker} hour, {prices.gb_month:g} for a GB and month, "
        f"{prices.thousand_writes:g} for 1,000 writes.",
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2g}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tai_benchmarks.cluster_cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    rate: dict[str, Any] = {"type": Rate.parse, "metavar": "RATE[@WHERE]"}
    parser.add_argument("--encode-rate", required=True, help="pictures/s of one GPU", **rate)
    parser.add_argument("--decode-rate", required=True, help="pictures/s of one core", **rate)
    parser.add_argument("--read-rate", default="1e9", help="bytes/s of a store, per GPU; default 1e9", **rate)
    parser.add_argument("--score-rate", default="1e6", help="pictures/s of one GPU; default 1e6", **rate)
    parser.add_argument("--price-per-gpu-hour", type=float, required=True)
    parser.add_argument("--price-per-gb-month", type=float, default=0.023)
    parser.add_argument("--price-per-1000-writes", type=float, default=0.005)
    parser.add_argument("--cores-per-gpu", type=int, default=16)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--worker", default="GPU", help="what the table calls them, where a CPU machine does the work")
    parser.add_argument("--dim", type=int, default=1024, help="numbers per row; default RN50's 1024")
    parser.add_argument("--rows", type=int, default=49, help="fine rows of a picture; default RN50's 49")
    parser.add_argument("--coarse-clip", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args(arguments)
    for name in ("cores_per_gpu", "gpus", "dim"):
        if getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more")
    cluster = Fleet(
        given.encode_rate,
        given.decode_rate,
        given.read_rate,
        given.score_rate,
        given.cores_per_gpu,
        given.gpus,
        given.worker,
    )
    prices = Prices(given.price_per_gpu_hour, given.price_per_gb_month, given.price_per_1000_writes)
    sys.stdout.write(table(stores(given.dim, given.rows, given.coarse_clip), cluster, prices) + "\n")


if __name__ == "__main__":
    main()
