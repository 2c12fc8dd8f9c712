"""The commands of `tai` that write, small enough to be run a hundred times, and what they are run on."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tai_benchmarks.stoppable_fill import draw_collections
from tai_engine.encoders.embedded import embedded_folder
from tai_engine.sentences.built_in import built_in_captions
from tai_engine.sentences.read import read_sentences
from tai_engine.tagging.exporters import EXPORTERS

_SENTENCES = 400
_WORDS = ("cat", "dog", "pizza", "airplane", "flower")
_LABELS = {
    "cat": ("cat",),
    "skimage-chelsea": ("cat",),
    "dog": ("dog",),
    "dog-human": ("dog",),
    "pizza": ("pizza",),
    "plane": ("airplane",),
    "flowers": ("flower",),
    "taxis": (),
}
"""Embedded photographs, and which of the words are on them."""
_MODEL = ("--model", "demo", "--device", "cpu")


@dataclass(frozen=True)
class Command:
    """A command that is killed.

    Attributes:
        name: what it is called here.
        arguments: of `tai`, run in the folder that `prepare` made.
        results: files, folders and stores that it makes, in that folder.
        files: those among them that are replaced whole: at any moment the older one or the new one.
        statuses: exit statuses of a run that does its work.
    """

    name: str
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    files: tuple[str, ...] = ()
    statuses: tuple[int, ...] = (0,)


def _export(name: str, makes: str) -> Command:
    where = ("--images", "pictures") if makes == "sidecars" else ("--out", f"out-{name}")
    results = ("pictures",) if makes == "sidecars" else (f"out-{name}", f"out-{name}.provenance.json")
    files = (f"out-{name}",) if makes == "file" else ()
    return Command(f"export {name}", ("export", "tags.parquet", "--to", name, *where), results, files)


_WORDS_OPTION = ("--vocabulary", "words.txt")
_TAG = ("tag", "s.zarr", *_WORDS_OPTION, "--top-k")
_TEXTS = (*_WORDS_OPTION, "--no-templates", *_MODEL)
_TRUTH = ("--truth", "truth.jsonl", "--unknown-labels", "ignore")
COMMANDS = {
    command.name: command
    for command in (
        Command("cache images", ("cache", "images", "pictures", "new.zarr", *_MODEL), ("new.zarr",)),
        Command(
            "cache images, again",
            ("cache", "images", "changed", "s.zarr", "--moved", "--delete-missing", *_MODEL),
            ("s.zarr",),
        ),
        Command("cache texts", ("cache", "texts", "more.txt", "t.zarr", *_TEXTS), ("t.zarr",)),
        Command(
            "tune",
            (
                "tune",
                "t.zarr",
                "--vocabulary",
                "words.txt",
                "--out",
                "p.safetensors",
                "--epochs",
                "2",
                "--contexts",
                "4",
            ),
            ("p.safetensors",),
            ("p.safetensors",),
        ),
        Command("tag parquet", (*_TAG, "4", "--out", "tags.parquet"), ("tags.parquet",), ("tags.parquet",)),
        Command("tag jsonl", (*_TAG, "4", "--out", "tags.jsonl"), ("tags.jsonl", "tags.jsonl.provenance.json")),
        Command(
            "calibrate",
            ("calibrate", "s.zarr", *_WORDS_OPTION, *_TRUTH, "--out", "c.json", "--report", "report-c"),
            ("c.json", "report-c"),
            ("c.json",),
        ),
        *(_export(name, exporter.makes) for name, exporter in EXPORTERS.items()),
        Command("report", ("report", "tags.parquet", "--images", "pictures", "--out", "report"), ("report",)),
        Command("compact", ("compact", "holes.zarr"), ("holes.zarr",)),
        Command("verify --repair", ("verify", "damaged.zarr", "--repair"), ("damaged.zarr",), statuses=(0, 1)),
        Command(
            "search --sheet",
            ("search", "s.zarr", "a dog", "--images", "pictures", "--sheet", "found.png"),
            ("found.png",),
            ("found.png",),
        ),
        Command(
            "explain",
            ("explain", "cat.jpg", "--store", "s.zarr", "--images", "pictures", "--out", "heat.png"),
            ("heat.png",),
            ("heat.png",),
        ),
    )
}
"""By name; the commands that are killed."""


def prepare(folder: Path, run: Callable[[Sequence[str]], None]) -> None:
    """Make the folder that the commands are run in: pictures, stores, tags; some megabytes.

    Args:
        folder: is made.
        run: runs `tai` with such arguments in it.
    """
    folder.mkdir()
    _write_pictures(folder / "pictures")
    labels = ({"file_name": f"{name}.jpg", "labels": words} for name, words in _LABELS.items())
    (folder / "truth.jsonl").write_text("".join(json.dumps(line) + "\n" for line in labels), encoding="utf-8")
    shutil.copytree(folder / "pictures", folder / "changed")
    (folder / "changed" / "dog.jpg").unlink()
    shutil.copyfile(folder / "changed" / "cat.jpg", folder / "changed" / "pizza.jpg")
    (folder / "words.txt").write_text("".join(f"{word}\n" for word in _WORDS), encoding="utf-8")
    named = (one.text for one in read_sentences(built_in_captions()) if set(_WORDS) & set(one.text.lower().split()))
    sentences = list(itertools.islice(named, _SENTENCES))
    (folder / "texts.txt").write_text("".join(f"{line}\n" for line in sentences[: _SENTENCES // 2]), encoding="utf-8")
    (folder / "more.txt").write_text("".join(f"{line}\n" for line in sentences), encoding="utf-8")
    run(("cache", "images", "pictures", "s.zarr", *_MODEL))
    run(("cache", "texts", "texts.txt", "t.zarr", *_TEXTS))
    # Older results of other settings, which are replaced.
    run((*_TAG, "3", "--out", "tags.parquet"))
    run((*_TAG, "3", "--out", "tags.jsonl"))
    collections = draw_collections(folder / "toy")
    shutil.move(collections.store_after, folder / "holes.zarr")
    shutil.move(collections.store_before, folder / "damaged.zarr")
    shutil.rmtree(folder / "toy")
    chunk = folder / "damaged.zarr" / "fine" / "c.1.0"
    chunk.write_bytes(chunk.read_bytes()[:-9])


def _write_pictures(folder: Path) -> None:
    """The photographs, small."""
    folder.mkdir()
    originals = Path(str(embedded_folder("photos"))) / "photographs"
    for name in _LABELS:
        with Image.open(originals / f"{name}.jpg") as picture:
            picture.thumbnail((96, 96))
            picture.save(folder / f"{name}.jpg")
