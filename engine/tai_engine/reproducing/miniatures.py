"""Published data sets in miniature: the real layout with its quirks, a handful of pictures of nothing.

What a protocol does can be tried with them from end to end in seconds; the figures that come out say nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from tai_engine.datasets.labelled import plain
from tai_engine.encoders.embedded import EMBEDDED_MODELS
from tai_engine.evaluation.class_splits import load_splits
from tai_engine.files import write_atomically
from tai_engine.reproducing.picture_sets import words_of
from tai_engine.reproducing.row_protocol import ModelPlan, Protocol
from tai_engine.vocabulary import load_vocabulary

PICTURES = 6
IMAGE_SIZE = 64
LISTED = 100
"""Of a training list with a long tail: as many as the head needs."""


def miniature_of(protocol: Protocol, data: Path) -> Protocol:
    """The same protocol for `write_miniature`'s data: the embedded model, one seed and one epoch, no templates.

    Args:
        protocol: the whole one.
        data: where the miniature lies.
    """
    return replace(
        protocol,
        pictures=replace(protocol.pictures, count=PICTURES),
        sentences=replace(protocol.sentences, with_templates=False),
        model=ModelPlan(EMBEDDED_MODELS[0], image_size=IMAGE_SIZE),
        recipe=replace(protocol.recipe, epochs=1, batch_size=32, warmup_epochs=0),
        seeds=protocol.seeds[:1],
        partial=None
        if protocol.partial is None
        else replace(
            protocol.partial,
            model=ModelPlan(EMBEDDED_MODELS[0], image_size=2 * IMAGE_SIZE),
            recipe=replace(protocol.partial.recipe, epochs=1, batch_size=4, warmup_epochs=0, known=0.7),
        ),
        needs=tuple(need for need in protocol.needs if (data / need.path).exists()),
        notes=(*protocol.notes, "A miniature of the data with a small model: the figures say nothing."),
    )


def write_miniature(protocol: Protocol, data: Path) -> None:
    """Everything that a protocol reads, below ``data``. What is there is written over.

    Raises:
        UserError: when the folder cannot be written.
    """
    names = words_of(protocol.pictures).names
    held = [[names[n % len(names)], names[(3 * n + 1) % len(names)]] for n in range(PICTURES)]
    described: Sequence[object] = range(10_000, 10_000 + 2 * len(names))
    match protocol.pictures.data:
        case "voc2007":
            labels = {f"{n + 1:06d}": dict.fromkeys(found, 1) for n, found in enumerate(held)}
            labels["000001"][names[5]] = 0  # only difficult ones of it
            write_voc(data, labels)
        case "coco2014":
            write_coco(data / "COCO", {f"COCO_val2014_{n + 1:012d}.jpg": found for n, found in enumerate(held)})
        case "coco2017":
            write_coco(data / "COCO", {f"{n + 1:012d}.jpg": found for n, found in enumerate(held)}, "val2017")
        case "nuswide":
            write_nuswide(data / "NUSWIDE", {f"{f[0]}/{n:04d}_2124494179.jpg": f for n, f in enumerate(held)})
    if protocol.sentences.only_listed == "coco-lt":
        described = write_coco_lt(data / "COCO")
    if protocol.partial is not None:
        write_labelled(protocol.partial.data, data, held)
    if protocol.pictures.splits == "voc-mlt":
        write_voc_mlt(data)
    sentences = [f"A {names[k % len(names)]} beside a {names[(k + 1) % len(names)]}." for k in range(len(described))]
    for file in protocol.sentences.files:
        if file.endswith(".jsonl"):
            write_narratives(data / file, sentences)
        else:
            write_captions(data / file, zip(described, sentences, strict=True))


def write_labelled(training: str, data: Path, held: Sequence[Sequence[str]]) -> None:
    """Training pictures with the given classes."""
    if training == "voc2007-trainval":
        labels = {f"{n + 5:06d}": dict.fromkeys(found, 1) for n, found in enumerate(held)}
        write_voc(data, labels, split="trainval")
    else:
        names = (f"COCO_train2014_{n + 9:012d}.jpg" for n in range(len(held)))
        write_coco(data / "COCO", dict(zip(names, held, strict=True)), "train2014")


def write_picture(path: Path, number: int) -> None:
    """One of the pictures: 40 by 30 pixels of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40 + number, 30), (40 * number % 256, 90, 200)).save(path)


def write_voc(
    root: Path, labels: Mapping[str, Mapping[str, int]], year: int = 2007, split: str = "test", *, draw: bool = True
) -> Path:
    """``labels``: picture to class to 1 or 0 (difficult); the rest is -1. Columns are aligned by blanks, as there."""
    folder = root / "VOCdevkit" / f"VOC{year}"
    sets = folder / "ImageSets" / "Main"
    sets.mkdir(parents=True, exist_ok=True)
    (sets / f"{split}.txt").write_text("".join(f"{name}\n" for name in labels))
    for name in load_vocabulary("voc20").names:
        lines = (f"{picture} {found.get(name, -1):2d}\n" for picture, found in labels.items())
        (sets / f"{plain(name)}_{split}.txt").write_text("".join(lines))
    for number, name in enumerate(labels if draw else ()):
        write_picture(folder / "JPEGImages" / f"{name}.jpg", number)
    return root


def write_coco(root: Path, labels: Mapping[str, Sequence[str]], subset: str = "val2014", *, draw: bool = True) -> Path:
    """``labels``: file to classes. Category numbers have gaps, objects are small or crowds, keys come in any order."""
    names = load_vocabulary("coco80").names
    numbers = {name: number + 1 + number // 11 for number, name in enumerate(names)}
    annotations = [
        {"id": 1000 + k, "image_id": 42 + 7 * n, "category_id": numbers[name], "iscrowd": k % 2, "bbox": [0, 0, 1, 1]}
        for n, found in enumerate(labels.values())
        for k, name in enumerate([*found, *found[:1]])  # a second object of the same class
    ]
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    value = {
        "info": {"year": 2014},
        "annotations": annotations,
        "images": [{"id": 42 + 7 * n, "file_name": name, "width": 40, "height": 30} for n, name in enumerate(labels)],
        "categories": [{"supercategory": "x", "id": numbers[name], "name": name} for name in names],
    }
    (root / "annotations" / f"instances_{subset}.json").write_text(json.dumps(value))
    for number, name in enumerate(labels if draw else ()):
        write_picture(root / subset / name, number)
    return root


def write_nuswide(root: Path, labels: Mapping[str, Sequence[str]], split: str = "Test") -> Path:
    """``labels``: path with slashes to classes. Lists have backslashes and Windows' line ends."""
    (root / "ImageList").mkdir(parents=True, exist_ok=True)
    lines = "".join(name.replace("/", "\\") + "\r\n" for name in labels)
    (root / "ImageList" / f"{split}Imagelist.txt").write_bytes(lines.encode())
    folder = root / "Groundtruth" / "TrainTestLabels"
    folder.mkdir(parents=True, exist_ok=True)
    for name in load_vocabulary("nuswide81").names:
        (folder / f"Labels_{name}_{split}.txt").write_text("".join(f"{int(name in f)}\n" for f in labels.values()))
    for number, name in enumerate(labels):
        write_picture(root / "Flickr" / name, number)
    return root


def write_voc_mlt(root: Path) -> Path:
    """A training list whose classes fall into the published groups, and one picture of VOC2012 more."""
    labels = {f"2008_{n:06d}": dict.fromkeys(found, n % 2) for n, found in enumerate(_long_tail("voc-mlt"))}
    write_voc(root, {**labels, "2012_004331": {"dog": 1}}, 2012, "trainval", draw=False)
    _write_list(root / "VOCdevkit" / "longtail2012" / "img_id.txt", labels)
    return root


def write_coco_lt(root: Path) -> list[object]:
    """The same of COCO train2017, whose list is not sorted and ends in ``.pkl``; gives the numbers of the pictures."""
    numbers = [7 * n + 9 for n in range(LISTED, 0, -1)]
    labels = dict(zip((f"{n:012d}.jpg" for n in numbers), _long_tail("coco-lt"), strict=True))
    write_coco(root, {**labels, "000000581929.jpg": ["dog"]}, "train2017", draw=False)
    _write_list(root / "longtail2017" / "img_id.pkl", map(str, numbers))
    return list(numbers)


def write_captions(path: Path, captions: Iterable[tuple[object, str]]) -> None:
    """COCO's captions JSON, of numbers of images and sentences."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"id": 48 + n, "image_id": image, "caption": text} for n, (image, text) in enumerate(captions)]
    images = [{"id": row["image_id"], "file_name": f"{row['image_id']}.jpg"} for row in rows]
    path.write_text(json.dumps({"info": {}, "images": images, "annotations": rows}))


def write_narratives(path: Path, sentences: Iterable[str]) -> None:
    """Open Images' localized narratives, a JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (
        {"dataset_id": "open_images_train", "image_id": f"{n:016x}", "annotator_id": 93, "caption": f"{text}\n"}
        for n, text in enumerate(sentences)
    )
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


def _long_tail(splits: str) -> list[list[str]]:
    """Classes of `LISTED` pictures: all have those of the head, 30 those of the middle, 5 those of the tail."""
    groups = load_splits(splits).groups
    reach = {"head": LISTED, "medium": 30, "tail": 5}
    order = np.random.default_rng(0).permutation(LISTED).tolist()
    return [[name for group, names in groups.items() if n < reach[group] for name in names] for n in order]


def _write_list(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
