"""How good are labels read off captions? Statistics, precision and recall against the labels of the images.

An image counts as labelled with every class that any of its captions names. Run it with the folder of COCO's captions::

    TAI_DATA=<folder> python -m tai_benchmarks.caption_labels

The folder holds ``coco_val2017_captions.jsonl`` (``image_id`` and ``caption`` a line) and
``coco_val2017_labels_even_ids.txt`` (image id and the indices of its COCO-80 classes a line).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tai_engine.sentences.corpus import CorpusOptions, LabelledCorpus, image_key
from tai_engine.sentences.nouns import NounFilter
from tai_engine.sentences.read import read_sentences
from tai_engine.vocabulary import Vocabulary, load_vocabulary

WORDS_SHOWN = 5


@dataclass
class ClassAgreement:
    """Images of one class: by the captions, by the truth, by both."""

    name: str
    captioned: int = 0
    true: int = 0
    both: int = 0
    wrong_words: Counter[str] = field(default_factory=Counter)

    @property
    def precision(self) -> float:
        """Share of the captioned images that show the class; 1 where there are none."""
        return self.both / self.captioned if self.captioned else 1.0

    @property
    def recall(self) -> float:
        """Share of the images with the class that a caption names; 1 where there are none."""
        return self.both / self.true if self.true else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.captioned + self.true
        return 2 * self.both / total if total else 1.0


@dataclass(frozen=True)
class Agreement:
    """Captions against truth over ``images`` images."""

    images: int
    classes: list[ClassAgreement]

    @property
    def pooled(self) -> ClassAgreement:
        """All classes as one: micro precision and recall."""
        return ClassAgreement(
            "all",
            sum(c.captioned for c in self.classes),
            sum(c.true for c in self.classes),
            sum(c.both for c in self.classes),
        )

    def worst(self, count: int) -> list[ClassAgreement]:
        """The classes of the lowest F1 among those that some image shows."""
        return sorted((c for c in self.classes if c.true), key=lambda c: (c.f1, c.name))[:count]


def read_truth(path: Path) -> dict[str, set[int]]:
    """Image id to its class indices."""
    rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return {image_key(row[0]): {int(index) for index in row[1:]} for row in rows}


def agreement(captions: Path, truth: dict[str, set[int]], vocabulary: Vocabulary) -> Agreement:
    """Compare the union of an image's caption labels with its true labels, for the images of ``truth``.

    Memory grows with the number of images in ``truth``, not with the captions.
    """
    nouns = NounFilter(vocabulary)
    words_of_image: dict[str, dict[int, set[str]]] = {}
    for sentence in read_sentences(captions):
        image = image_key(sentence.image_id or "")
        if image in truth:
            words_of_class = words_of_image.setdefault(image, {})
            for words, classes in nouns.matches_in(sentence.text):
                for index in classes:
                    words_of_class.setdefault(index, set()).add(words)
    result = [ClassAgreement(name) for name in vocabulary.names]
    for image, words_of_class in words_of_image.items():
        for index, entry in enumerate(result):
            is_captioned, is_true = index in words_of_class, index in truth[image]
            entry.captioned += is_captioned
            entry.true += is_true
            entry.both += is_captioned and is_true
            if is_captioned and not is_true:
                entry.wrong_words.update(words_of_class[index])
    return Agreement(len(words_of_image), result)


def main(arguments: list[str] | None = None) -> int:
    """Print the statistics and the agreement, as text or as JSON."""
    parser = argparse.ArgumentParser(description="Precision and recall of caption labels.")
    parser.add_argument("folder", nargs="?", default=os.environ.get("TAI_DATA"), help="default: $TAI_DATA")
    parser.add_argument("--vocabulary", default="coco80", help="in the class order of the truth")
    parser.add_argument("--worst", type=int, default=10, help="how many of the worst classes to show")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.folder is None:
        parser.error("name the data folder, or set TAI_DATA")
    folder = Path(options.folder)
    captions = folder / "coco_val2017_captions.jsonl"
    vocabulary = load_vocabulary(options.vocabulary)
    corpus = LabelledCorpus(captions, vocabulary, CorpusOptions())
    for _ in corpus:
        pass
    found = agreement(captions, read_truth(folder / "coco_val2017_labels_even_ids.txt"), vocabulary)
    if options.json:
        rows = [asdict(c) | {"precision": c.precision, "recall": c.recall} for c in found.classes]
        print(json.dumps({"corpus": corpus.report.as_dict(), "images": found.images, "classes": rows}))
        return 0
    report, pooled = corpus.report, found.pooled
    print(
        f"{report.read} captions, {report.kept} name a class ({100 * report.kept / report.read:.1f}%), "
        f"{report.labels_per_sentence:.2f} classes each"
    )
    macro_precision = sum(c.precision for c in found.classes) / len(found.classes)
    macro_recall = sum(c.recall for c in found.classes) / len(found.classes)
    print(
        f"{found.images} images: precision {pooled.precision:.3f}, recall {pooled.recall:.3f}, F1 {pooled.f1:.3f}; "
        f"mean over classes: precision {macro_precision:.3f}, recall {macro_recall:.3f}"
    )
    for warning in report.warnings():
        print(warning)
    print(f"\n{'class':<16}{'true':>6}{'named':>6}{'both':>6}{'prec.':>7}{'recall':>7}{'F1':>6}  words where it is not")
    for entry in found.worst(options.worst):
        words = ", ".join(f"{word} {count}" for word, count in entry.wrong_words.most_common(WORDS_SHOWN))
        print(
            f"{entry.name:<16}{entry.true:>6}{entry.captioned:>6}{entry.both:>6}{entry.precision:>7.2f}"
            f"{entry.recall:>7.2f}{entry.f1:>6.2f}  {words}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
