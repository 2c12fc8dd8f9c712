"""Text vectors of names by OpenAI's CLIP (ViT-B/32) that others have computed and published.

From facebookresearch/Detic (Apache-2.0): COCO, LVIS, Objects365 and OpenImages, "a NAME". From rotem154154/clip_lt
(MIT): ImageNet, "a photo of a NAME".
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tai_engine.errors import UserError
from tai_engine.vocabulary import load_vocabulary

_LATER_NAMES = 0.5  # weight of names after the first, which the vectors were not computed of


def read_clip_vectors(folder: Path) -> dict[str, Tensor]:
    """[512] unit vectors by plain name; each source is centred, since each has its own template.

    Args:
        folder: holds ``detic`` (that repository's ``datasets/metadata`` and ``oid.py``) and ``clip_lt``.

    Raises:
        UserError: if a file is missing or names and vectors differ in number.
    """
    sums: dict[str, list[Tensor]] = defaultdict(list)
    for names, vectors in _sources(folder):
        if len(names) != len(vectors):
            raise UserError(f"{len(names)} names and {len(vectors)} CLIP vectors in {folder} do not belong together.")
        unit = normalize(vectors.float(), dim=1)
        for synonyms, vector in zip(names, unit - unit.mean(dim=0), strict=True):
            for number, name in enumerate(dict.fromkeys(synonyms)):
                sums[name].append(vector if number == 0 else _LATER_NAMES * vector)
    return {name: normalize(torch.stack(vectors).sum(dim=0), dim=0) for name, vectors in sums.items()}


def plain_name(text: str) -> str:
    """Lower case, without hyphens, underscores and what stands in brackets."""
    return " ".join(re.sub(r"\(.*?\)", " ", text).replace("_", " ").replace("-", " ").lower().split())


def _sources(folder: Path) -> Iterator[tuple[Sequence[Sequence[str]], Tensor]]:
    detic, clip_lt = folder / "detic", folder / "clip_lt"
    try:
        coco = load_vocabulary("coco80").names
        yield [[plain_name(name)] for name in coco], _array(detic / "coco_clip_a+cname.npy")
        lvis = json.loads((detic / "lvis_v1_train_cat_info.json").read_text(encoding="utf-8"))
        yield [[plain_name(entry["name"])] for entry in lvis], _array(detic / "lvis_v1_clip_a+cname.npy")
        with (detic / "Objects365_names_fix.csv").open(encoding="utf-8", newline="") as file:
            objects = [[plain_name(name) for name in row[2].split("/")] for row in csv.reader(file)]
        yield objects, _array(detic / "o365_clip_a+cnamefix.npy")
        open_images = _literal(detic / "oid.py", "categories")
        yield [[plain_name(entry["name"])] for entry in open_images], _array(detic / "oid_clip_a+cname.npy")
        labels = _literal(clip_lt / "labels_names.py", "labels_names")
        imagenet = [[plain_name(name) for name in labels[number].split(",")][:3] for number in range(len(labels))]
        yield imagenet, torch.load(clip_lt / "text_features2.pt", map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"A file of CLIP's vectors is missing: {error}.") from error


def _array(path: Path) -> Tensor:
    return torch.from_numpy(np.load(path).astype(np.float32))


def _literal(path: Path, name: str) -> Any:
    """The literal that a Python file assigns to a name; nothing of the file is run."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise UserError(f"{path} assigns nothing to {name}: take the file as its repository has it.")
