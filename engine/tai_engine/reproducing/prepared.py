"""What a protocol computes from: lists of pictures with their truth, the model, and features of the pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tai_engine.caching.images import cache_images
from tai_engine.caching.report import CacheOptions, CacheProgress
from tai_engine.datasets.labelled import LabelledPictures
from tai_engine.decoding.decode import DecodeOptions
from tai_engine.encoders import Encoder, load_encoder
from tai_engine.files import write_atomically
from tai_engine.reproducing.row_protocol import ModelPlan
from tai_engine.sources import open_source

Progress = Callable[[str, int, int | None], None]
"""What is being done, how much of it is done, and how much there is."""


def load_model(plan: ModelPlan, device: str) -> Encoder:
    """The encoder, exactly as open_clip has it: in fp32, without a rewritten tower.

    Raises:
        UserError: as `load_encoder`.
    """
    return load_encoder(
        plan.name,
        plan.pretrained,
        device=device,
        precision="fp32",
        image_size=plan.image_size,
        decoding=DecodeOptions().recipe,
        fast=False,
    )


def write_tables(pictures: LabelledPictures, listing: Path, truth: Path) -> None:
    """The list of pictures and their truth, as the other commands read them.

    Raises:
        UserError: when they cannot be written.
    """
    folder, names = pictures.images.absolute(), pictures.class_names

    def rows() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        for name, labels in zip(pictures.ids, pictures.labels, strict=True):
            there, difficult = ([names[c] for c in np.flatnonzero(labels == value)] for value in (1, 0))
            yield {"id": name, "path": str(folder / name)}, {"id": name, "labels": there, "difficult": difficult}

    for path, column in ((listing, 0), (truth, 1)):
        write_atomically(path, "".join(json.dumps(row[column], ensure_ascii=False) + "\n" for row in rows()))


def shown(say: Progress, what: str) -> Callable[[CacheProgress], None]:
    """Progress of caching, under a name."""
    return lambda p: say(what, p.done + p.failed + p.skipped, p.total)


def cache_pictures(listing: Path, store: Path, encoder: Encoder, say: Progress, what: str) -> int:
    """Features of the pictures of a list; those that failed before are tried again. Gives how many failed.

    Raises:
        UserError: as `cache_images`.
    """
    report = cache_images(
        open_source(listing),
        encoder,
        store,
        decoding=DecodeOptions(),
        options=CacheOptions(retry_failed=True),
        progress=shown(say, what),
    )
    return report.failed
