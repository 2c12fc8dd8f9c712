"""What the benchmarks of the cache work on: stores of synthetic features, pictures, and a model of random weights.

Shape legend: N items, L fine rows per item, D embedding size, C classes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

from tai_benchmarks.photograph_copies import copy_photographs
from tai_engine.features import FeatureBatch, offsets_from_counts
from tai_engine.prompts.prompt_set import PromptSet
from tai_engine.store import FeatureStore, StoredItem, StoreSpec

SPACE = "benchmark"
DATA_VARIABLE = "TAI_DATA"
_JPEG_SUFFIXES = (".jpg", ".jpeg")


def write_store(
    path: Path,
    items: int,
    rows: int,
    dim: int,
    *,
    row_dtype: str = "float16",
    chunk_items: int = 64,
    group_items: int = StoreSpec.group_items,
) -> FeatureStore:
    """A store of ``items`` pictures with random unit rows, those of a group being those of the one before, moved on.

    Memory: the rows of one group.

    Args:
        path: where to; there must be nothing yet.
        items: N.
        rows: L.
        dim: D.
        row_dtype: as `StoreSpec` has it.
        chunk_items: likewise.
        group_items: likewise.
    """
    spec = StoreSpec(
        "images", SPACE, "benchmark", dim, rows, row_dtype=row_dtype, chunk_items=chunk_items, group_items=group_items
    )
    store = FeatureStore.create(path, spec)
    generator = torch.Generator().manual_seed(0)
    count = min(items, spec.group_items)
    coarse_ND = normalize(torch.randn(count, dim, generator=generator), dim=1).half()
    fine_TD = normalize(torch.randn(count * rows, dim, generator=generator), dim=1).half()
    with store.writing():
        for group, start in enumerate(range(0, items, spec.group_items)):
            count = min(spec.group_items, items - start)
            ids = tuple(f"pictures/{start + n:09d}.jpg" for n in range(count))
            batch = FeatureBatch(
                ids=ids,
                coarse=coarse_ND.roll(group, 0)[:count],
                fine=fine_TD.roll(group, 0)[: count * rows],
                offsets=offsets_from_counts(torch.full((count,), rows)),
                space_key=SPACE,
                check_fine=False,
            )
            store.write_group(group, [StoredItem(name) for name in ids], [batch])
    return FeatureStore.open(path)


def random_prompts(classes: int, dim: int) -> PromptSet:
    """A prompt set of the space of `write_store` with random class vectors."""
    vectors_CD = normalize(torch.randn(2, classes, dim, generator=torch.Generator().manual_seed(1)), dim=2)
    names = tuple(f"class {c}" for c in range(classes))
    return PromptSet(names, vectors_CD[0], vectors_CD[1], SPACE, logit_scale=100.0, method="zero-shot")


def write_random_model(folder: Path, name: str = "RN50") -> str:
    """A model of open_clip with random weights in a folder, and what `load_encoder` knows it by."""
    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained=None)
    folder.mkdir(parents=True)
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    return f"local-dir:{folder}"


def find_pictures(folder: Path, count: int) -> tuple[list[Path], str]:
    """JPEG files to encode, and what they are: photos of the folder that TAI_DATA names, or copies of embedded ones.

    Args:
        folder: where copies go if need be.
        count: how many; there may be fewer photos.
    """
    data = os.environ.get(DATA_VARIABLE)
    if data:
        photos = sorted(path for path in Path(data).rglob("*") if path.suffix.lower() in _JPEG_SUFFIXES)
        if photos:
            return photos[:count], "photos"
    return copy_photographs(folder, count), "embedded"
