"""What is measured, how it is trained and which figure it is held against: a small versioned file for each row.

Shape of a file, all keys needed but those said to be optional::

    version = 1
    title = "..."
    notes = ["..."]                 # optional: what differs from the published run, said in the result

    [pictures]
    data = "voc2007"                # a reader, see `picture_sets`
    count = 4952                    # of the list that the figure is of
    vocabulary = "voc20"
    classes = "coco-16-novel/novel" # optional: a group of built-in splits; pictures without one of them are left out
    splits = "voc-mlt"              # optional: figures by groups too

    [sentences]
    files = ["COCO/annotations/captions_train2017.json"]
    per_image = 1                   # optional
    per_rarest_class = 1000         # optional
    without_test_pictures = true    # optional
    only_listed = "coco-lt"         # optional: only sentences about the pictures of a training list

    [model]
    name = "RN50"
    pretrained = "openai"
    image_size = 224

    [partial]                       # optional: with prompts of DualCoOp from partly labelled pictures
    data = "voc2007-trainval"       # a training list
    share = 0.9                     # of DualCoOp in the mean
    [partial.model]                 # as above
    [partial.recipe]                # settings of the system "dualcoop"

    [recipe]                        # settings of `TuningConfig`; seeds is a list
    [[needs]]                       # what has to lie where below the folder of data
    [published]                     # map in percent, its source, optionally groups
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from tai_engine.errors import unknown_choice
from tai_engine.tuning import TuningConfig

_FOLDER = files("tai_engine.reproducing") / "protocols"


@dataclass(frozen=True)
class PicturePlan:
    """Which pictures and classes are tested.

    Attributes:
        data: the reader.
        count: pictures of the published list.
        vocabulary: a built-in one.
        classes: a group of built-in splits, as ``splits/group``, or None for all classes.
        splits: groups of which figures are given as well; None for none.
    """

    data: str
    count: int
    vocabulary: str
    classes: str | None = None
    splits: str | None = None


@dataclass(frozen=True)
class SentencePlan:
    """Which sentences prompts are tuned on.

    Attributes:
        files: below the folder of data.
        per_image: keep the first so many of an image.
        per_rarest_class: and so many of the rarest class that they name.
        without_test_pictures: leave out sentences about pictures of the test.
        only_listed: keep those about pictures of this training list alone.
        with_templates: add the 89 published template sentences per class.
    """

    files: tuple[str, ...]
    per_image: int | None = None
    per_rarest_class: int | None = None
    without_test_pictures: bool = False
    only_listed: str | None = None
    with_templates: bool = True


@dataclass(frozen=True)
class ModelPlan:
    """Which weights, and how large pictures are.

    Attributes:
        name: as `load_encoder` takes it.
        pretrained: tag of the weights.
        image_size: pixels a side; None is the model's own.
    """

    name: str
    pretrained: str = ""
    image_size: int | None = None


@dataclass(frozen=True)
class PartialPlan:
    """Partly labelled pictures that DualCoOp's prompts are tuned on.

    Attributes:
        data: a training list.
        share: of DualCoOp's scores in the mean of both, from 0 to 1.
        model: whose features.
        recipe: settings of tuning; its ``known`` is the share of labels that are known.
    """

    data: str
    share: float
    model: ModelPlan
    recipe: TuningConfig


@dataclass(frozen=True)
class Need:
    """What has to lie below the folder of data.

    Attributes:
        path: with slashes.
        origin: where it comes from.
    """

    path: str
    origin: str


@dataclass(frozen=True)
class PublishedFigure:
    """What was printed.

    Attributes:
        map: in percent.
        source: which paper and table.
    """

    map: float
    source: str


@dataclass(frozen=True)
class Protocol:
    """A published row and how it is reproduced.

    Attributes:
        name: of the file.
        version: of its contents, raised with every change.
        title: in words.
        digest: SHA-256 of the file.
        pictures, sentences, model: see there.
        recipe: settings of tuning.
        seeds: of the runs whose mean is the figure.
        needs: see `Need`.
        published: the figure.
        notes: what differs from the published run, a sentence each.
        partial: with DualCoOp on partly labelled pictures; None without.
    """

    name: str
    version: int
    title: str
    digest: str
    pictures: PicturePlan
    sentences: SentencePlan
    model: ModelPlan
    recipe: TuningConfig
    seeds: tuple[int, ...]
    needs: tuple[Need, ...]
    published: PublishedFigure
    notes: tuple[str, ...] = field(default=())
    partial: PartialPlan | None = None


def protocol_names() -> tuple[str, ...]:
    """All that there are, in alphabetical order."""
    return tuple(
        sorted(entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml"))
    )


def load_protocol(name: str) -> Protocol:
    """One of `protocol_names`.

    Raises:
        UserError: for another name.
    """
    if name not in protocol_names():
        raise unknown_choice("protocol", name, protocol_names())
    data = (_FOLDER / f"{name}.toml").read_bytes()
    value = tomllib.loads(data.decode())
    recipe = dict(value["recipe"])
    seeds = tuple(recipe.pop("seeds"))
    return Protocol(
        name=name,
        version=value["version"],
        title=value["title"],
        digest=hashlib.sha256(data).hexdigest(),
        pictures=PicturePlan(**value["pictures"]),
        sentences=SentencePlan(**_tuples(value["sentences"])),
        model=ModelPlan(**value["model"]),
        recipe=TuningConfig(**recipe),
        seeds=seeds,
        needs=tuple(Need(need["path"], need["from"]) for need in value["needs"]),
        published=PublishedFigure(**value["published"]),
        notes=tuple(value.get("notes", ())),
        partial=_partial(value["partial"]) if "partial" in value else None,
    )


def _partial(value: Mapping[str, Any]) -> PartialPlan:
    recipe = TuningConfig.of_system("dualcoop", **value["recipe"])
    return PartialPlan(value["data"], value["share"], ModelPlan(**value["model"]), recipe)


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}
