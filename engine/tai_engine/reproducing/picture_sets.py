"""The pictures, classes and sentences that a protocol means, below one folder of data laid out as published.

``VOCdevkit/VOC2007``, ``COCO/annotations`` with ``COCO/val2014``, ``NUSWIDE/ImageList`` and so on, in the layout of
TaI-DPT's authors (https://github.com/guozix/TaI-DPT).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tai_engine.datasets.coco import read_coco
from tai_engine.datasets.labelled import LabelledPictures
from tai_engine.datasets.long_tail import read_coco_lt, read_voc_mlt
from tai_engine.datasets.nuswide import read_nuswide
from tai_engine.datasets.voc import read_voc
from tai_engine.evaluation.class_splits import load_splits
from tai_engine.reproducing.row_protocol import PicturePlan, Protocol
from tai_engine.sentences.corpus import CorpusOptions, LabelledCorpus, image_key, published_templates
from tai_engine.sentences.read import read_sentences
from tai_engine.vocabulary import Vocabulary, load_vocabulary

TESTS: dict[str, Callable[[Path], LabelledPictures]] = {
    "voc2007": lambda data: read_voc(data, 2007, "test"),
    "coco2014": lambda data: read_coco(data / "COCO", "val2014"),
    "coco2017": lambda data: read_coco(data / "COCO", "val2017"),
    "nuswide": lambda data: read_nuswide(data / "NUSWIDE"),
}
TRAINING_LISTS: dict[str, Callable[[Path], LabelledPictures]] = {
    "voc2007-trainval": lambda data: read_voc(data, 2007, "trainval"),
    "coco-train2014": lambda data: read_coco(data / "COCO", "train2014"),
    "voc-mlt": read_voc_mlt,
    "coco-lt": lambda data: read_coco_lt(data / "COCO"),
}


def words_of(plan: PicturePlan) -> Vocabulary:
    """The vocabulary, or the classes of it that are tested; compound names of the others stay no class.

    So a hot dog is not a dog where hot dogs are not asked for.
    """
    vocabulary = load_vocabulary(plan.vocabulary)
    if plan.classes is None:
        return vocabulary
    splits, _, group = plan.classes.partition("/")
    kept = set(load_splits(splits).columns(vocabulary.names)[group])
    left_out = [entry for column, entry in enumerate(vocabulary.classes) if column not in kept]
    return Vocabulary(
        f"{vocabulary.name}, {group} of {splits}",
        tuple(entry for column, entry in enumerate(vocabulary.classes) if column in kept),
        templates=vocabulary.templates,
        other_names=(*vocabulary.other_names, *(word for one in left_out for word in one.words if " " in word)),
    )


def pictures_of(plan: PicturePlan, data: Path) -> LabelledPictures:
    """The pictures of the test with their labels; with some of the classes, those that hold one of them.

    Raises:
        UserError: as the readers.
    """
    pictures = TESTS[plan.data](data)
    if plan.classes is None:
        return pictures
    some = pictures.only(words_of(plan).names, with_positive=True)
    return LabelledPictures(
        f"{len(some):,} of {pictures.list_name} that hold one of {len(some.class_names)} classes",
        some.images,
        some.ids,
        some.class_names,
        some.labels,
    )


def training_sentences(protocol: Protocol, data: Path, tested: LabelledPictures) -> LabelledCorpus:
    """The sentences that name a class.

    Memory: the ids of the pictures that the sentences may not be about.

    Raises:
        UserError: as the readers, `LabelledCorpus` and `read_sentences`.
    """
    plan = protocol.sentences
    paths = [data / name for name in plan.files]
    excluded: set[str] = {image_key(name) for name in tested.ids} if plan.without_test_pictures else set()
    if plan.only_listed is not None:
        listed = {image_key(name) for name in TRAINING_LISTS[plan.only_listed](data).ids}
        described = {image_key(one.image_id) for one in read_sentences(paths) if one.image_id}
        excluded |= described - listed
    words = words_of(protocol.pictures)
    options = CorpusOptions(
        other_names=words.other_names,
        exclude_images=frozenset(excluded),
        sentences_per_image=plan.per_image,
        limit_per_rarest_class=plan.per_rarest_class,
        templates=published_templates() if plan.with_templates else (),
    )
    return LabelledCorpus(paths, words, options)
