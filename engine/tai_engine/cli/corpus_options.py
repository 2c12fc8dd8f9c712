"""From the options of ``tai cache texts`` to labelled sentences, and what is said of them afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tai_engine.cli.options import VocabularyChoice
from tai_engine.errors import UserError
from tai_engine.sentences.corpus import CorpusOptions, LabelledCorpus, published_templates, read_image_ids
from tai_engine.sentences.corpus_report import CorpusReport
from tai_engine.sentences.read import SentenceOptions, read_sentences

_SHOWN_CLASSES = 10


def check_files(files: Sequence[Path], options: SentenceOptions) -> None:
    """Look at the first sentence of each file, so that a missing one is found before any work.

    Raises:
        UserError: as `read_sentences`.
    """
    for file in files:
        next(read_sentences(file, options))


def open_corpus(
    files: Sequence[Path],
    vocabulary: VocabularyChoice | None,
    reading: SentenceOptions,
    *,
    language: str | None,
    templates: bool,
    limit_per_rarest_class: int | None,
    exclude_images: Path | None,
    sentences_per_image: int | None,
) -> LabelledCorpus | None:
    """The sentences that name a class of the vocabulary; None without one.

    Templates are the vocabulary's own, or those of the paper.

    Raises:
        UserError: for whatever is wrong with the vocabulary or the options, and options that need a vocabulary.
    """
    needing = {
        "--language": language,
        "--limit-per-rarest-class": limit_per_rarest_class,
        "--exclude-images": exclude_images,
        "--sentences-per-image": sentences_per_image,
    }
    if vocabulary is None:
        for option, value in needing.items():
            if value is not None:
                raise UserError(f"{option} is about labelled sentences: give --vocabulary as well, or leave it out.")
        return None
    words = vocabulary.load()
    options = CorpusOptions(
        language=language or CorpusOptions.language,
        exclude_images=read_image_ids(exclude_images) if exclude_images is not None else frozenset(),
        sentences_per_image=sentences_per_image,
        limit_per_rarest_class=limit_per_rarest_class,
        templates=(words.templates or published_templates()) if templates else (),
    )
    return LabelledCorpus(files, words, options, reading)


def describe_corpus(report: CorpusReport) -> list[str]:
    """What became of the sentences, a line each."""
    left_out = {
        "without a class": report.without_class,
        "blank": report.without_text,
        "about excluded images": report.excluded,
        "over the limit per image": report.over_image_limit,
        "over the limit per class": report.over_class_limit,
    }
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count)
    lines = [
        f"Of {report.read:,} sentences {report.kept:,} were kept, with {report.labels_per_sentence:.2f} classes each"
        + (f"; left out: {reasons}." if reasons else ".")
    ]
    if report.template_sentences:
        lines.append(f"{report.template_sentences:,} template sentences were added.")
    rarest = sorted(zip(report.class_counts, report.class_names, strict=True), key=lambda pair: pair[0])
    shown = ", ".join(f"{name} {count:,}" for count, name in rarest[:_SHOWN_CLASSES])
    lines.append(f"Sentences of the rarest classes: {shown}.")
    return lines
