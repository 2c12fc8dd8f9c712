"""Published data sets in miniature: the real layout and its quirks, a handful of pictures."""

import json
from pathlib import Path

from PIL import Image

from tai_engine.datasets.labelled import plain
from tai_engine.vocabulary import load_vocabulary


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40 + number, 30), (40 * number % 256, 90, 200)).save(path)


def write_voc(root: Path, labels: dict[str, dict[str, int]], year: int = 2007, split: str = "test") -> Path:
    """``labels``: picture to class to 1 or 0 (difficult); the rest is -1. Columns are aligned by blanks, as there."""
    folder = root / "VOCdevkit" / f"VOC{year}"
    sets = folder / "ImageSets" / "Main"
    sets.mkdir(parents=True, exist_ok=True)
    (sets / f"{split}.txt").write_text("".join(f"{name}\n" for name in labels))
    for name in load_vocabulary("voc20").names:
        lines = (f"{picture} {found.get(name, -1):2d}\n" for picture, found in labels.items())
        (sets / f"{plain(name)}_{split}.txt").write_text("".join(lines))
    for number, name in enumerate(labels):
        picture(folder / "JPEGImages" / f"{name}.jpg", number)
    return root


def write_coco(root: Path, labels: dict[str, list[str]], subset: str = "val2014") -> Path:
    """``labels``: file to classes. Category numbers have gaps, objects are small or crowds, keys come in any order."""
    names = load_vocabulary("coco80").names
    numbers = {name: number + 1 + number // 11 for number, name in enumerate(names)}
    annotations = [
        {"id": 1000 + k, "image_id": 42 + 7 * n, "category_id": numbers[name], "iscrowd": k % 2, "bbox": [0, 0, 1, 1]}
        for n, found in enumerate(labels.values())
        for k, name in enumerate(found + found[:1])  # a second object of the same class
    ]
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    value = {
        "info": {"year": 2014},
        "annotations": annotations,
        "images": [{"id": 42 + 7 * n, "file_name": name, "width": 40, "height": 30} for n, name in enumerate(labels)],
        "categories": [{"supercategory": "x", "id": numbers[name], "name": name} for name in names],
    }
    (root / "annotations" / f"instances_{subset}.json").write_text(json.dumps(value))
    for number, name in enumerate(labels):
        picture(root / subset / name, number)
    return root


def write_nuswide(root: Path, labels: dict[str, list[str]], split: str = "Test") -> Path:
    """``labels``: path with slashes to classes. Lists have backslashes and Windows' line ends."""
    (root / "ImageList").mkdir(parents=True, exist_ok=True)
    lines = "".join(name.replace("/", "\\") + "\r\n" for name in labels)
    (root / "ImageList" / f"{split}Imagelist.txt").write_bytes(lines.encode())
    folder = root / "Groundtruth" / "TrainTestLabels"
    folder.mkdir(parents=True, exist_ok=True)
    for name in load_vocabulary("nuswide81").names:
        (folder / f"Labels_{name}_{split}.txt").write_text("".join(f"{int(name in f)}\n" for f in labels.values()))
    for number, name in enumerate(labels):
        picture(root / "Flickr" / name, number)
    return root
