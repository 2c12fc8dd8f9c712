"""Sentences with the classes they name: what prompts are tuned on in place of labelled images.

The rules are those of TaI-DPT (Guo et al., CVPR 2023, arXiv 2211.12739) and of the code published with it, but for the
order of look-ups, which there changes between runs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tai_engine.errors import UserError
from tai_engine.sentences.corpus_report import CorpusReport, shortened
from tai_engine.sentences.nouns import NounFilter
from tai_engine.sentences.read import Sentence, SentenceOptions, read_sentences
from tai_engine.tables import read_small
from tai_engine.vocabulary import DEFAULT_TEMPLATE, Vocabulary, imagenet_templates

MAX_LIST_BYTES = 256 * 2**20
TEMPLATE_IDS = "template:"
"""What the ids of template sentences begin with."""
_CAPTION_NUMBER = re.compile(r"(?<=\.\w{3})#\d+$|(?<=\.\w{4})#\d+$")
_COCO_NAME = re.compile(r"COCO_\w+?_(\d+)")
_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class LabelledSentence:
    """A sentence and what it names.

    Attributes:
        id: unique in the corpus and the same at every reading: the sentence's number in its file, from 1, or
            ``template:<class index>:<template index>``.
        text: as written, blanks tidied.
        class_indices: of the classes in the vocabulary, rising, at least one.
    """

    id: str
    text: str
    class_indices: tuple[int, ...]


@dataclass(frozen=True)
class CorpusOptions:
    """Which sentences are kept.

    Attributes:
        language: code of the sentences' language, or ``"none"`` to compare words as they are.
        other_names: of things that are no class but hold a class's word, such as "hot dog" where only dogs are tagged.
        exclude_images: sentences about these images are left out (an image of the test set may not teach). Ids are
            compared by ``image_key``.
        sentences_per_image: keep the first so many of an image that name a class; None keeps all.
        limit_per_rarest_class: a sentence counts for the rarest of its classes, and each class keeps the first so many
            (1000 for NUS-WIDE in the paper). The files are then read twice.
        templates: each is added once per class with the class name in the place of ``{}``.
        max_words: words and punctuation marks after so many are not looked at: a text tower of 77 tokens, two of them
            marking start and end, never reads them.
        few: classes that fewer sentences name are reported.

    Raises:
        UserError: for a number that is not positive, or a template without ``{}``.
    """

    language: str = "en"
    other_names: tuple[str, ...] = ()
    exclude_images: frozenset[str] = frozenset()
    sentences_per_image: int | None = None
    limit_per_rarest_class: int | None = None
    templates: tuple[str, ...] = ()
    max_words: int = 75
    few: int = 20

    def __post_init__(self) -> None:
        for name in ("sentences_per_image", "limit_per_rarest_class", "max_words"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; give a number from 1.")
        for template in self.templates:
            if template.count("{}") != 1:
                raise UserError(f"The template {template!r} needs the place {{}} for the class name exactly once.")
        object.__setattr__(self, "exclude_images", frozenset(map(image_key, self.exclude_images)))


def image_key(image_id: str) -> str:
    """The form in which image ids are compared: no folder, ending, number of a caption, COCO prefix or leading zeros;
    accents are composed.

    So ``42``, ``000000000042``, ``42.jpg#0`` and ``val2014/COCO_val2014_000000000042.jpg`` are one image.
    """
    composed = unicodedata.normalize("NFC", image_id.strip().replace("\\", "/"))
    name = PurePosixPath(_CAPTION_NUMBER.sub("", composed)).name
    stem, dot, ending = name.rpartition(".")
    if dot and ending.lower() in {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"}:
        name = stem
    if found := _COCO_NAME.fullmatch(name):
        name = found[1]
    return name.lstrip("0") or "0" if name.isdecimal() else name


def read_image_ids(path: str | Path) -> frozenset[str]:
    """The ids of a text file with one a line; blank lines and lines that begin with ``#`` are skipped.

    Memory: the file, at most `MAX_LIST_BYTES`, and the ids.

    Raises:
        UserError: for a file that is missing, too large, not UTF-8 or without ids.
    """
    lines = read_small(path, f"list of image ids '{path}'", MAX_LIST_BYTES).splitlines()
    ids = frozenset(image_key(line) for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if not ids:
        raise UserError(f"The list of image ids {path} is empty; write one id a line.")
    return ids


def published_templates() -> tuple[str, ...]:
    """The 89 template sentences per class of TaI-DPT: ImageNet's 80 once each, "a photo of a {}." 9 times more."""
    return (*imagenet_templates(), *([DEFAULT_TEMPLATE] * 9))


class LabelledCorpus:
    """The sentences of files that name a class, each with its classes; iterate as often as needed.

    Order and ids are the same at every iteration. Memory holds no sentences, only one number per image where
    ``sentences_per_image`` is set.

    Attributes:
        filter: what finds the classes.
        report: of the last iteration; complete once that has ended.

    Raises:
        UserError: for an unknown language. While iterating: for whatever is wrong with a file, for a file in which no
            sentence names a class, and for a sentence without an image's id where images are excluded or limited.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        vocabulary: Vocabulary,
        options: CorpusOptions | None = None,
        sentence_options: SentenceOptions | None = None,
    ) -> None:
        self.paths = [paths] if isinstance(paths, str | Path) else list(paths)
        if not self.paths:
            raise UserError("No sentence file is given; name at least one.")
        self.vocabulary = vocabulary
        self.options = options or CorpusOptions()
        self.sentence_options = sentence_options or SentenceOptions()
        self.filter = NounFilter(vocabulary, self.options.language, self.options.other_names)
        self.report = self._new_report()

    def __iter__(self) -> Iterator[LabelledSentence]:
        """All kept sentences in file order, then the template sentences class by class."""
        limit = self.options.limit_per_rarest_class
        rank: list[int] = []
        if limit is not None:
            counted = self._new_report()
            for _, classes in self._named(counted):
                counted.keep(classes)
            by_count = sorted(range(len(self.vocabulary)), key=lambda c: (counted.class_counts[c], c))
            rank = [0] * len(by_count)
            for place, index in enumerate(by_count):
                rank[index] = place
        self.report = report = self._new_report()
        filled = [0] * len(self.vocabulary)
        for sentence, classes in self._named(report):
            if limit is not None:
                rarest = min(classes, key=rank.__getitem__)
                if filled[rarest] >= limit:
                    report.over_class_limit += 1
                    continue
                filled[rarest] += 1
            report.keep(classes)
            yield LabelledSentence(sentence.id, sentence.text, classes)
        if not report.kept:
            files = ", ".join(map(str, self.paths))
            raise UserError(
                f"None of the {report.read} sentences of {files} ({report.excluded} about excluded images) "
                f"names a class of the vocabulary {self.vocabulary.name!r} ({shortened(self.vocabulary.names)}): check "
                f"that they are in the language {self.options.language!r}, and give the classes the words of the "
                "sentences as synonyms, or sentences about them."
            )
        yield from self._template_sentences(report)

    def _new_report(self) -> CorpusReport:
        return CorpusReport(
            class_names=self.vocabulary.names,
            class_counts=[0] * len(self.vocabulary),
            shared_names=self.filter.shared,
            few=self.options.few,
            exclude_list=len(self.options.exclude_images),
        )

    def _named(self, report: CorpusReport) -> Iterator[tuple[Sentence, tuple[int, ...]]]:
        """Sentences that name a class and pass the rules about images; the others are counted in the report."""
        excluded, per_image = self.options.exclude_images, self.options.sentences_per_image
        max_words = self.options.max_words
        of_image: dict[str, int] = {}
        for sentence in read_sentences(self.paths, self.sentence_options):
            report.read += 1
            image = ""
            if excluded or per_image is not None:
                if sentence.image_id is None:
                    raise UserError(
                        f"Sentence {sentence.id} of {', '.join(map(str, self.paths))} has no image id, which excluding "
                        "images or limiting sentences per image needs; name the column of image ids, or do without."
                    )
                image = image_key(sentence.image_id)
            if image in excluded:
                report.excluded += 1
                continue
            text = sentence.text
            if not text:
                report.without_text += 1
                continue
            classes = self.filter.classes_in(text if len(text) <= max_words else _first_words(text, max_words))
            if not classes:
                report.without_class += 1
                continue
            if per_image is not None:
                of_image[image] = of_image.get(image, 0) + 1
                if of_image[image] > per_image:
                    report.over_image_limit += 1
                    continue
            yield sentence, classes

    def _template_sentences(self, report: CorpusReport) -> Iterator[LabelledSentence]:
        for index, name in enumerate(self.vocabulary.prompt_names):
            for number, template in enumerate(self.options.templates):
                report.template_sentences += 1
                text = template.replace("{}", name)
                # A template may name a class itself: a toy dog is a toy where the vocabulary has toys.
                classes = {index, *self.filter.classes_in(text)}
                yield LabelledSentence(f"{TEMPLATE_IDS}{index}:{number}", text, tuple(sorted(classes)))


def _first_words(text: str, count: int) -> str:
    """The text up to its word or punctuation mark number ``count``."""
    for number, match in enumerate(_WORD_OR_MARK.finditer(text), 1):
        if number == count:
            return text[: match.end()]
    return text
