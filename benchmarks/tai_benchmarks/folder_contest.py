"""A folder of photographs to a folder of features by whole commands: clip-retrieval's, open_clip's plain loop, ours.

    make clip-retrieval      # installs it, in an environment of its own
    python -m tai_benchmarks.folder_contest

All encode the same files with the same random weights of one model. Each command is timed whole, with few pictures and
with many; what the further ones took is the rate, so that starting, which differs most, does not count. clip-retrieval
and the loop make CLIP's own vector of a picture; ours that (``coarse``) or patches too (``coarse and patches``).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

from tai_benchmarks.book import FOLDER
from tai_benchmarks.encode_contest import random_model
from tai_benchmarks.machine import device_name, environment, slug
from tai_benchmarks.photograph_copies import copy_photographs
from tai_benchmarks.protocol import BenchRow, Timing, record, throughput_row
from tai_benchmarks.steps import TAI
from tai_benchmarks.tables import tables

LOOP, THEIRS, COARSE, OURS = "open_clip", "clip-retrieval", "tai-coarse", "tai"
_BATCH, _WORKERS = 32, 2
Command = Callable[[Path, Path], list[str]]


def commands(model: str, weights: Path, clip_retrieval: str | None) -> dict[str, Command]:
    """By candidate: the command that encodes the pictures of one folder into another, which it makes."""

    def loop(pictures: Path, out: Path) -> list[str]:
        return [sys.executable, "-m", "tai_benchmarks.plain_loop", str(pictures), str(out), model, str(weights)]

    def theirs(pictures: Path, out: Path) -> list[str]:
        options = {
            "--input_dataset": pictures,
            "--output_folder": out,
            "--clip_model": f"open_clip:{model}/{weights}",
            "--enable_text": False,
            "--use_jit": False,
            "--num_prepro_workers": _WORKERS,
            "--batch_size": _BATCH,
        }
        return [str(clip_retrieval), "inference", *(str(part) for option in options.items() for part in option)]

    def ours(*more: str) -> Command:
        return lambda pictures, out: [
            *(sys.executable, *TAI, "cache", "images", str(pictures), str(out)),
            *("--model", f"local-dir:{weights.parent}", *more),
        ]

    found: dict[str, Command] = {LOOP: loop}
    if clip_retrieval is not None:
        found[THEIRS] = theirs
    return found | {COARSE: ours("--coarse-only"), OURS: ours()}


def write_model(name: str, folder: Path) -> Path:
    """A model of open_clip with random weights as a folder that all can load; gives the file of the weights."""
    config = open_clip.get_model_config(name)
    assert config is not None
    folder.mkdir()
    model = random_model(config)
    described = {"model_cfg": config, "preprocess_cfg": open_clip.get_model_preprocess_cfg(model)}
    (folder / "open_clip_config.json").write_text(json.dumps(described), encoding="utf-8")
    weights = folder / "open_clip_model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
    return weights


def run(works: Mapping[str, Command], case: str, few: int, many: int, rounds: int, folder: Path) -> Iterator[BenchRow]:
    """Time every command ``rounds`` times with both numbers of pictures, in turn; yield pictures a second.

    Args:
        works: as `commands` gives them.
        case: what is measured.
        few: pictures that are taken for starting.
        many: pictures at all.
        rounds: of each command.
        folder: for pictures and results.

    Raises:
        RuntimeError: when a command does not end well, with what it said, or more pictures take no longer.
    """
    for count in (few, many):
        copy_photographs(folder / str(count), count)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, command in works.items():
            short, long = (_seconds(command(folder / str(count), folder / "out"), folder) for count in (few, many))
            if long <= short:
                raise RuntimeError(f"{name}: {many} pictures took no longer than {few}: take more")
            seconds[name].append(long - short)
    timings = {name: Timing(tuple(found), many - few) for name, found in seconds.items()}
    facts = environment(torch.device("cpu")) | {"weights": "random"}
    for baseline in (LOOP, THEIRS):
        for name, timing in timings.items():
            if baseline in timings:
                pair = (name, timing), (baseline, timings[baseline])
                yield throughput_row(FOLDER, f"{case}/{many - few}-photographs", 0, *pair, "images/s", facts)


def _seconds(command: list[str], folder: Path) -> float:
    """Of one command, whose results are removed."""
    variables = dict(os.environ)
    if command[0] != sys.executable:
        variables.pop("PYTHONPATH", None)  # its packages are its own
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-1000:]}")
    shutil.rmtree(folder / "out")
    return seconds


def installed() -> str | None:
    """The program where `make clip-retrieval` puts it, or on the path; None if it is in neither."""
    made = Path(__file__).parents[2] / ".environments" / "clip-retrieval" / "bin" / THEIRS
    return str(made) if made.exists() else shutil.which(THEIRS)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, and keep the rows."""
    parser = argparse.ArgumentParser(prog="python -m tai_benchmarks.folder_contest", description=__doc__)
    parser.add_argument(
        "--clip-retrieval", default=installed(), help="the program; without it the others are measured alone"
    )
    parser.add_argument("--model", default="RN50")
    parser.add_argument("--few", type=int, default=32)
    parser.add_argument("--many", type=int, default=288)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, help="keep the rows in this folder, for the book")
    options = parser.parse_args(arguments)
    program = None if options.clip_retrieval is None else str(Path(options.clip_retrieval).absolute())
    with tempfile.TemporaryDirectory() as name:
        works = commands(options.model, write_model(options.model, Path(name) / "model"), program)
        rows = list(run(works, options.model.lower(), options.few, options.many, options.rounds, Path(name)))
    for table in tables(rows, {}):
        print(table.title)
        for cells in (table.headings, *table.lines):
            print("  ".join(f"{cell:<16}" for cell in cells).rstrip())
    if options.results is not None:
        record(rows, options.results, slug(device_name(torch.device("cpu"))))


if __name__ == "__main__":
    main()
